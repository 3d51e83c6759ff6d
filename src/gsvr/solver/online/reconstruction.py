"""A reconstruction that stacks join one by one, quick at first and then as good as that of all stacks at once.

The first stacks are reconstructed from nothing, as ever. A stack that comes later is placed against the volume that
there is; then the stages of the schedule that know poses better than that go on from there, for all slices. Both
ways end with the same stages, and so with the same volume.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from gsvr.masks.consensus import project_mask
from gsvr.model.fields import LatticeField
from gsvr.model.geometry import identity_poses
from gsvr.model.slices import SliceKey, Slices
from gsvr.model.volume import Volume
from gsvr.solver.gains import levelled
from gsvr.solver.outer_iteration import advance, state_from_field
from gsvr.solver.placement import SLICE_LEVELS, STACK_LEVELS, Placement, place
from gsvr.solver.reconstruct import Callback, Earlier, Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, Stage, moving_parts
from gsvr.solver.stack_alignment import first_poses, with_lost_stacks
from gsvr.solver.state import Result

logger = logging.getLogger(__name__)

# Of so few stacks the volume is too poor to place others against it: all are reconstructed from nothing.
_FEW_STACKS = 3
# From this spacing (mm) on, stages know better where slices belong than `place` does.
_JOINING = 2.6
# What was decided on the final field holds until there are so many times the stacks that decided it.
_DECIDED_ANEW = 1.25
# A quick volume has at most so many outer iterations a stage.
_QUICK_ITERATIONS = 3
# Stacks that do not fit the others are looked for here, as in the reconstruction of all at once.
_CHECK = Stage("stacks that do not fit", 5.0, 3, 2, 5, "stacks", sigma_ratio=0.8)


@dataclass(frozen=True, repr=False)
class OnlineState:
    """What new slices are placed against.

    Attributes
    ----------
    poses
        Of every slice so far, by the name of its stack and its number in it.
    n_stacks
        How many stacks that are.
    mask
        Consensus mask, in volume world.
    earlier
        The volume on a lattice, bias fields, and what the last volume in final quality decided.
    decided_by
        How many stacks decided it.
    """

    poses: dict[SliceKey, Float[np.ndarray, "4 4"]]
    n_stacks: int
    mask: Volume
    earlier: Earlier
    decided_by: int = 0

    @property
    def field(self) -> LatticeField:
        """What slices are placed against."""
        return self.earlier.field

    def __repr__(self) -> str:
        return f"OnlineState({len(self.poses)} slices of {self.n_stacks} stacks, {self.field!r})"


def place_slices(
    state: OnlineState, slices: Slices, known: dict[SliceKey, Float[np.ndarray, "4 4"]], options: SolverOptions
) -> Placement:
    """Place the slices of a stack that is being acquired.

    Parameters
    ----------
    state
        What to place them against.
    slices
        Those of the stack so far, cropped to where the anatomy may be. Their mask is not used.
    known
        Poses of those that were placed before; others start where the slice before them in time is.

    Returns
    -------
    Placement
        Of all of them: the motion of the slices before is seen better with each that follows.
    """
    poses = predicted_poses(slices, known)
    return place(state.field, _masked(state, slices, poses, options), poses, options, SLICE_LEVELS)


def update(
    state: OnlineState | None,
    slices: Slices,
    options: SolverOptions,
    known: dict[SliceKey, Float[np.ndarray, "4 4"]] | None = None,
    callback: Callback | None = None,
) -> tuple[OnlineState, Result]:
    """A quick volume of all slices so far.

    Parameters
    ----------
    state
        How the last update, or `finish`, ended; None: nothing is known yet.
    slices
        All slices, those of the state among them.
    known
        Where slices that are not of the state were placed while they came in.
    """
    coarse, quick, _ = _parts(options, len(np.unique(slices.stack_index)))
    if state is None or not can_join(state, slices):
        return _run(slices, options, (*coarse, *quick), None, None, callback)
    with threadpool_limits(1, "blas"):
        poses = _joined(state, slices, known or {}, options)
        poses = _found(state, slices, poses, options)
    return _run(slices, options, quick, poses, state, callback)


def can_join(state: OnlineState, slices: Slices) -> bool:
    """Whether the volume is good enough to place new stacks against it; else all are reconstructed from nothing."""
    return state.n_stacks >= min(_FEW_STACKS, len(np.unique(slices.stack_index)))


def finish(
    state: OnlineState, slices: Slices, options: SolverOptions, callback: Callback | None = None
) -> tuple[OnlineState, Result]:
    """The volume of all slices in final quality.

    Parameters
    ----------
    state, slices
        How `update` ended, and the slices that it was given.
    """
    n_stacks = len(np.unique(slices.stack_index))
    *_, fine = _parts(options, n_stacks)
    if n_stacks >= _DECIDED_ANEW * state.decided_by:
        state = replace(state, earlier=replace(state.earlier, choice=None, thickness=None), decided_by=n_stacks)
    return _run(slices, options, fine, predicted_poses(slices, state.poses), state, callback)


def predicted_poses(slices: Slices, known: dict[SliceKey, Float[np.ndarray, "4 4"]]) -> Float[np.ndarray, "n 4 4"]:
    """Poses of slices: as known, or that of the slice of their stack that is known and nearest in time, or none."""
    keys, poses = slices.keys, identity_poses(slices.n_slices)
    has = np.array([key in known for key in keys])
    for number in np.flatnonzero(has):
        poses[number] = known[keys[number]]
    for stack in np.unique(slices.stack_index):
        members = np.flatnonzero(slices.stack_index == stack)
        there = members[has[members]]
        for number in members[~has[members]] if len(there) else ():
            poses[number] = poses[there[np.argmin(np.abs(slices.times[there] - slices.times[number]))]]
    return poses


def _parts(options: SolverOptions, n_stacks: int) -> tuple[tuple[Stage, ...], tuple[Stage, ...], tuple[Stage, ...]]:
    """Stages before a new stack is known well, those of a quick volume, and those that make it final.

    One stack alone says nothing of its own motion: its slices stay where they are.
    """
    stages = options.stages
    if n_stacks == 1:
        stages = tuple(replace(stage, motion="none") for stage in stages)
    moving = [number for number, stage in enumerate(options.stages) if stage.motion != "none"]
    split = min(max(moving[-1] if moving else 0, 1), len(stages) - 1)
    before = stages[:split] or stages
    n_coarse = sum(stage.spacing > _JOINING for stage in before[:-1])
    quick = (replace(s, outer_iterations=min(s.outer_iterations, _QUICK_ITERATIONS)) for s in before[n_coarse:])
    # which pixels show the brain is settled before a stage that comes after these: from nothing but drawn masks it
    # would move slices by a quarter of a millimetre
    fine = (replace(stages[split], consensus_mask=True), *stages[split + 1 :])
    return before[:n_coarse], tuple(quick), fine


def _run(
    slices: Slices,
    options: SolverOptions,
    stages: tuple[Stage, ...],
    poses: Float[np.ndarray, "n 4 4"] | None,
    before: OnlineState | None,
    callback: Callback | None,
) -> tuple[OnlineState, Result]:
    """Run some stages; the state keeps their last field on a lattice, since slices move on lattices only."""
    earlier = None if before is None else before.earlier
    last: list[LatticeField] = [] if earlier is None else [earlier.field]

    def heard(progress: Progress) -> None:
        if not progress.stage.free:
            found = progress.state.field
            assert isinstance(found, LatticeField)  # only free Gaussians are not on a lattice
            last[:] = [replace(found, amplitudes=found.amplitudes * np.float32(progress.scale))]
        if callback:
            callback(progress)

    result = reconstruct(slices, replace(options, stages=stages), heard, poses, earlier=earlier)
    bias = {} if result.bias is None else result.bias.polynomials(slices)
    choice = result.choice or (earlier and earlier.choice)
    state = OnlineState(
        poses=dict(zip(slices.keys, result.poses, strict=True)),
        n_stacks=len(np.unique(slices.stack_index)),
        mask=result.mask,
        earlier=Earlier(last[0], bias, choice, result.thickness),
        decided_by=0 if before is None else before.decided_by,
    )
    return state, result


def _masked(state: OnlineState, slices: Slices, poses: Float[np.ndarray, "n 4 4"], options: SolverOptions) -> Slices:
    """The slices with those pixels that show the anatomy of the state."""
    return slices.with_mask(project_mask(state.mask, slices, poses, options.masks.margin))


def _joined(
    state: OnlineState, slices: Slices, known: dict[SliceKey, Float[np.ndarray, "4 4"]], options: SolverOptions
) -> Float[np.ndarray, "n 4 4"]:
    """Poses of all slices, with those of new stacks where they fit the volume best."""
    poses = predicted_poses(slices, known | state.poses)
    of_state, moving = {name for name, _ in state.poses}, moving_parts(options.stages)
    if moving == "none":
        return poses
    levels = STACK_LEVELS if moving == "slices" else tuple(replace(level, slice_steps=0) for level in STACK_LEVELS)
    guessed = first_poses(slices)
    for stack in np.unique(slices.stack_index):
        name, members = slices.stack_names[stack], slices.stack_index == stack
        if name in of_state:
            continue
        new = slices.subset(members)
        placed = place(state.field, new, guessed[members], options, levels)
        if moving == "slices" and any(key[0] == name for key in known):
            seen = _masked(state, new, poses[members], options)
            followed = place(state.field, seen, poses[members], options, SLICE_LEVELS)
            placed = max(placed, followed, key=lambda placement: placement.total_agreement)
        logger.info("%s: joined with an agreement of %.3f", name, placed.total_agreement)
        poses[members] = placed.poses
    return poses


def _found(
    state: OnlineState, slices: Slices, poses: Float[np.ndarray, "n 4 4"], options: SolverOptions
) -> Float[np.ndarray, "n 4 4"]:
    """Poses with stacks that do not fit the others where they fit better."""
    if moving_parts(options.stages) == "none":
        return poses
    even, _, scale = levelled(slices)
    field = replace(state.field, amplitudes=state.field.amplitudes / np.float32(scale))
    checked = state_from_field(even.binned(_CHECK.binning), _CHECK, options, field, poses)
    still = replace(_CHECK, motion="none")
    for _ in range(still.outer_iterations):
        checked = advance(still, options, checked)
    return with_lost_stacks(_CHECK, options, checked).poses
