"""Milliseconds on a graphics card."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Median time of `work` on the card, after three calls that are not counted (the first compiles)."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        work()
        ended.record()
        ended.synchronize()
        times.append(begun.elapsed_time(ended))
    return float(np.median(times))
