"""Quality over time: the clock stands still while a volume is rendered for the score, and while it is scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.problem import Problem
from gsvr.model.volume import Volume

# What is kept of a score on the way.
_KEPT = ("psnr", "ssim", "pose_median", "pose_p90", "pose_mean")


class BudgetSpentError(Exception):
    """The method has used its CPU seconds."""


class Recorder:
    """Clock of a method, and its scores on the way.

    Parameters
    ----------
    problem
        What is reconstructed.
    budget
        CPU seconds after which `record` stops the method; None: no limit.
    every_point
        False: only keep time, for runs whose quality on the way nobody asks for.
    """

    def __init__(self, problem: Problem, budget: float | None = None, every_point: bool = True) -> None:
        self.points: list[dict[str, Any]] = []
        self._problem, self._budget, self._every_point = problem, budget, every_point
        self._paused_cpu = self._paused_wall = 0.0
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all threads so far, without pauses."""
        return time.process_time() - self._cpu - self._paused_cpu

    @property
    def wall_seconds(self) -> float:
        """Elapsed time so far, without pauses."""
        return time.perf_counter() - self._wall - self._paused_wall

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside does not count."""
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self._paused_cpu += time.process_time() - cpu
            self._paused_wall += time.perf_counter() - wall

    def record(self, label: str, render: Callable[[], Volume], poses: np.ndarray) -> None:
        """Score what the method has so far.

        Parameters
        ----------
        label
            Where the method is, such as the name of a stage.
        render
            Makes the volume.
        poses
            Of all slices.

        Raises
        ------
        BudgetSpentError
            If the CPU seconds are used up.
        """
        point: dict[str, Any] = {
            "label": label,
            "cpu_seconds": self.cpu_seconds,
            "wall_seconds": self.wall_seconds,
        }
        if self._every_point:
            with self.paused():
                scores = self._problem.score(render(), poses)
            self.points.append(point | {name: scores[name] for name in _KEPT})
        if self._budget is not None and self.cpu_seconds > self._budget:
            raise BudgetSpentError(f"{self.cpu_seconds:.0f} of {self._budget:.0f} CPU seconds used")
