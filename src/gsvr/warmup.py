"""Compile or load every CPU kernel of a usual reconstruction once, on a problem of a few pixels.

The first run after an installation compiles the kernels and keeps them on disk; later runs load them in well under a
second. There are two halves that share next to nothing, so two processes can compile them side by side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gsvr.acquisition import Slices, Stack, slices_from_stacks
from gsvr.field import field_of
from gsvr.solver.free_rounds import advance_free, begin_free_stage
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.rounds import begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.volume import render_volume


def warm_up() -> None:
    """Both halves one after the other."""
    warm_up_lattices()
    warm_up_free_gaussians()


def warm_up_lattices() -> None:
    """Everything that stages on lattices and their rendering need."""
    stages = (Stage("stacks", 2.0, 2, 1, 1, "stacks"), Stage("slices", 2.0, 1, 1, 1, "slices"))
    result = reconstruct(_tiny_slices(), SolverOptions(stages=stages))
    render_volume(result.field, 2.0, result.mask)


def warm_up_free_gaussians() -> None:
    """Everything that free Gaussians need on top of it."""
    slices, stage, options = _tiny_slices(), Stage("free", 2.0, 1, 1, 1, "none", free=True), SolverOptions()
    state = begin_stage(slices, stage, options, None)
    amplitudes = np.linspace(1, 2, state.amplitudes.size, dtype=np.float32).reshape(state.amplitudes.shape)
    free = begin_free_stage(slices, stage, options, replace(state, amplitudes=amplitudes))
    free = advance_free(slices, stage, options, free)
    render_volume(field_of(free.operator.primitives, free.amplitudes), 2.0)


def _tiny_slices() -> Slices:
    n = 6
    data = 1 + np.indices((n, n, n)).sum(axis=0).astype(np.float32)
    mask = np.ones((n, n, n), bool)
    axes = np.eye(4)[[2, 0, 1, 3]]
    stacks = [Stack("tiny", data, affine, 1.0, mask, np.arange(n, dtype=float)) for affine in (np.eye(4), axes)]
    return slices_from_stacks(stacks, [mask, mask])
