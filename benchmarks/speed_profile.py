"""Where the time of one reconstruction goes: ``python -m benchmarks.speed_profile OUTPUT.json STACK-FOLDER``.

CPU seconds of the process, all threads included, by stage and by function.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import gsvr
from benchmarks.acquisitions import Acquisition
from gsvr.solver.reconstruct import Progress
from gsvr.workflows import pipeline
from gsvr.workflows.pipeline import StackInputs

_SHOWN = 24  # functions; the others are summed


class Clock:
    """CPU seconds by function, while the context lasts.

    What a function spends outside the packages that are watched (in NumPy, SciPy, the kernels in C and the threads they
    run on) is its own; what it calls inside them is not.

    Parameters
    ----------
    package
        Folder of the functions to tell apart.
    """

    def __init__(self, package: Path = Path(gsvr.__file__).parent) -> None:
        self._package, self._carriers = f"{package}/", f"{package}/compiled/"
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[str] = []

    def __enter__(self) -> Clock:
        self._inside, self._last = [""], time.process_time()
        sys.setprofile(self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _notice(self, frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        if event not in ("call", "return") or not path.startswith(self._package) or path.startswith(self._carriers):
            return
        now = time.process_time()
        self.seconds[self._inside[-1]] += now - self._last
        self._last = now
        if event == "return":
            self._inside.pop()
        else:
            module = path[len(self._package) :].removesuffix(".py").replace("/", ".")
            self._inside.append(f"{module}: {frame.f_code.co_qualname.partition('.<locals>')[0]}")

    def largest(self, count: int) -> dict[str, float]:
        """The functions that took most, and all others together."""
        ordered = sorted(((name, value) for name, value in self.seconds.items() if name), key=lambda item: -item[1])
        rest = sum(self.seconds.values()) - sum(value for _, value in ordered[:count])
        return {**dict(ordered[:count]), "everything else": rest}


def profile(acquisition: Acquisition) -> dict[str, Any]:
    """Reconstruct once and tell CPU seconds by stage and by function."""
    stages: dict[str, dict[str, float]] = {}
    last = time.process_time()

    def watch(progress: Progress) -> None:
        nonlocal last
        now = time.process_time()
        stage = stages.setdefault(progress.stage.name, {"cpu_seconds": 0.0, "outer_iterations": 0})
        stage["cpu_seconds"] += now - last
        stage["outer_iterations"] += 1
        stage["gaussians"] = progress.state.field.n_gaussians
        stage["pixels"] = progress.state.slices.n_pixels
        last = now

    started = time.process_time()
    with Clock() as clock:
        job = pipeline.prepare(StackInputs(acquisition.stacks, acquisition.masks, []))
        prepared = last = time.process_time()
        done = pipeline.run(job, callback=watch)
        rendered = time.process_time()
    return {
        "cpu_seconds": rendered - started,
        "before_reconstruction": prepared - started,
        "after_last_iteration": rendered - last,
        "stages": stages,
        "functions": clock.largest(_SHOWN),
        "pixels": done.result.slices.n_pixels,
    }


def main() -> None:
    """Reconstruct, write the numbers."""
    output, folder = Path(sys.argv[1]), Path(sys.argv[2])
    output.write_text(json.dumps(profile(Acquisition(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()
