"""Compile or load every CPU kernel once, on a problem of a few pixels."""

from __future__ import annotations

import numpy as np

from gsvr.acquisition import Stack, slices_from_stacks
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.volume import render_volume


def warm_up() -> None:
    """Run a reconstruction of two tiny stacks.

    The first run after an installation compiles the kernels and keeps them on disk; later runs load them in well under
    a second.
    """
    n = 6
    data = 1 + np.indices((n, n, n)).sum(axis=0).astype(np.float32)
    mask = np.ones((n, n, n), bool)
    axes = np.eye(4)[[2, 0, 1, 3]]
    stacks = [Stack("tiny", data, affine, 1.0, mask, np.arange(n, dtype=float)) for affine in (np.eye(4), axes)]
    stages = (
        Stage("stacks", 2.0, 2, 1, 1, "stacks"),
        Stage("slices", 2.0, 1, 1, 1, "slices"),
        Stage("free", 2.0, 1, 1, 1, "none", free=True),
    )
    result = reconstruct(slices_from_stacks(stacks, [mask, mask]), SolverOptions(stages=stages))
    render_volume(result.field, 2.0, result.mask)
