"""How long a piece of work takes when nothing has to be prepared any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Times:
    """Of several calls: least CPU seconds (all threads), least and median wall seconds.

    The least says most: other programs can only add to it.
    """

    cpu: float
    wall: float
    median_wall: float


def timed(work: Callable[[], object], repeats: int) -> Times:
    """Call `repeats` times, after one call that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        seconds.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpus, walls = np.transpose(seconds)
    return Times(float(cpus.min()), float(walls.min()), float(np.median(walls)))
