"""Slices in, field and poses out: rounds of weights, amplitudes and motion, coarse to fine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from gsvr.model.slices import Slices
from gsvr.solver.initialise import find_lost_stacks, first_poses
from gsvr.solver.rounds import first_gains
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.stages import stages_of
from gsvr.solver.state import Result, State
from gsvr.solver.uncertainty import posterior_deviations


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each round.

    Attributes
    ----------
    stage, round
        Which stage, and which of its rounds (from 1).
    done, total
        Rounds so far and in all; rounds that a stage did not need count as done.
    state
        The reconstruction as it stands; intensities are scaled by `scale`.
    seconds
        Wall time since the start.
    stage_done
        Whether this was the stage's last round.
    """

    stage: Stage
    round: int
    done: int
    total: int
    state: State
    scale: float
    seconds: float
    stage_done: bool


Callback = Callable[[Progress], None]


def intensity_scale(slices: Slices) -> float:
    """99th percentile of the pixels inside the masks: bright tissue becomes one.

    Raises
    ------
    ValueError
        If the pixels inside the masks are all (nearly) zero.
    """
    scale = float(np.percentile(np.abs(slices.values[slices.mask]), 99))
    if not scale > 0:
        raise ValueError("the pixels inside the masks are all zero: nothing to reconstruct")
    return scale


def reconstruct(
    slices: Slices,
    options: SolverOptions | None = None,
    callback: Callback | None = None,
    poses: Float[np.ndarray, "n 4 4"] | None = None,
) -> Result:
    """Reconstruct a volume from slices.

    Parameters
    ----------
    slices
        The acquisition, see `gsvr.model.slices.slices_from_stacks`.
    options
        Stages and the options of every part.
    callback
        Called after each round with a `Progress`; may raise to stop.
    poses
        First guess, acquired world -> volume world; default: `gsvr.solver.initialise.first_poses`.

    Raises
    ------
    ValueError
        If no pixel carries any signal.
    """
    # The kernels keep all cores busy by themselves; threads of the linear algebra library would only spin.
    with threadpool_limits(1, "blas"):
        return _run_stages(slices, options or SolverOptions(), callback, poses)


def _run_stages(
    slices: Slices, options: SolverOptions, callback: Callback | None, poses: Float[np.ndarray, "n 4 4"] | None
) -> Result:
    # stacks may come with different receiver gains or rescale slopes: bring them to one level first
    intensity_scale(slices)  # refuses slices that show nothing
    levels = first_gains(slices)
    levelled = replace(slices, values=slices.values / slices.per_pixel(levels.astype(np.float32)))
    scale = intensity_scale(levelled)
    votes = slices.mask
    scaled = binned = replace(levelled, values=levelled.values / np.float32(scale))
    total = sum(stage.rounds for stage in options.stages)
    poses = first_poses(slices) if poses is None else poses
    started, done, state, stages = time.perf_counter(), 0, None, stages_of(options)
    for stage in options.stages:
        if stage.agree_on_mask and state:
            mask = stages.agreed_mask(scaled, votes, state.poses)
            scaled = scaled.with_mask(stages.project_mask(mask, scaled, state.poses))
        binned = stages.binned(scaled, stage.binning)
        running = stages.begin(binned, stage, state, poses)
        for number in range(1, stage.rounds + 1):
            moved = running.advance()
            last = number == stage.rounds or (stage.motion != "none" and moved < stage.settled * stage.spacing)
            done += stage.rounds - number + 1 if last else 1
            if callback:
                seconds = time.perf_counter() - started
                callback(Progress(stage, number, done, total, running.state(), scale, seconds, last))
            if last:
                break
        state = running.state()
        if stage.motion == "stacks":
            operator = state.operator.with_poses(find_lost_stacks(binned, stage, options, state))
            state = replace(state, operator=operator, prediction=operator.predict(state.amplitudes))
    if state is None:
        raise ValueError("the schedule has no stages")
    mask = stages.agreed_mask(scaled, votes, state.poses)
    deviations = posterior_deviations(binned, state, options)
    # the prediction is of all pixels as they were given
    if binned.binning != scaled.binning or not stages.predicts_every_pixel:
        state = replace(state, prediction=state.operator.with_slices(scaled).predict(state.amplitudes))
    return Result.from_state(state, slices.with_mask(scaled.mask), mask, scale, levels, deviations)
