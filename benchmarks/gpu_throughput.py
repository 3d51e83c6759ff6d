"""Several subjects at once on one card: each a process of its own, all with the same pixels."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from benchmarks.speed_acquisitions import SpeedAcquisition

_WAIT_AT_MOST = 600.0


def measure_throughput(
    acquisition: SpeedAcquisition, backend: str, workers: tuple[int, ...] = (1, 2, 4), subjects: int = 4
) -> list[dict[str, Any]]:
    """Reconstructions an hour with so many processes at once, each of which makes `subjects` of them."""
    return [_measure(acquisition, backend, count, subjects) for count in workers]


def _measure(acquisition: SpeedAcquisition, backend: str, count: int, subjects: int) -> dict[str, Any]:
    # a process that has used CUDA cannot be forked
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(count + 1)
    processes = [context.Process(target=_work, args=(acquisition, backend, subjects, ready)) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        ready.wait(_WAIT_AT_MOST)
        started = time.perf_counter()
        ready.wait(_WAIT_AT_MOST)
        seconds = time.perf_counter() - started
    finally:
        for process in processes:
            process.join(_WAIT_AT_MOST)
    return {"processes": count, "subjects": count * subjects, "subjects_per_hour": 3600 * count * subjects / seconds}


def _work(acquisition: SpeedAcquisition, backend: str, subjects: int, ready: Any) -> None:
    """Prepare and compile, wait for the others, work, wait for the others."""
    from benchmarks.bare_machine import stand_in

    stand_in()
    from benchmarks.gpu_reconstruction import options_for, slices_of, to_volume

    slices, options = slices_of(acquisition), options_for(acquisition, backend)
    to_volume(slices, options)
    ready.wait(_WAIT_AT_MOST)
    for _ in range(subjects):
        to_volume(slices, options)
    ready.wait(_WAIT_AT_MOST)
