"""Stacks that ended up in the wrong place: find where they belong.

Gauss-Newton from the scanner's own coordinates brings stacks together when the subject has turned by up to some
35 degrees between them. A stack that does not agree with the others after that is tried again from many
rotations, against a volume made of the other stacks alone.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from gsvr.model.fields import LatticeField
from gsvr.model.geometry import identity_poses, pose_about, transform_points
from gsvr.model.slices import Slices
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.motion import stack_centres
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State

logger = logging.getLogger(__name__)

# A stack is lost when its typical slice disagrees with the volume this much more than a typical slice of all.
_LOST_RATIO = 1.2
# Distance (mm) between the centres of masks from which on they are brought together first.
_FAR = 10.0
_ANGLES = (30.0, 60.0, 90.0, 135.0, 180.0)
_AXES_PER_ANGLE = 12
# All starts are tried with about so many slices of the stack, and the most promising ones with all of them.
_FEW_SLICES = 10
_PROMISING = 4
_QUICK_STEPS = 2
_FULL_STEPS = 8


def first_poses(slices: Slices, moving: bool = True) -> Float[np.ndarray, "n 4 4"]:
    """Poses to start with: the scanner's coordinates, but with the masks of all stacks in one place.

    Without `moving`, the scanner's coordinates as they are.

    The subject may have moved by centimetres between two stacks, farther than Gauss-Newton can see. A stack whose drawn
    mask is centred more than `_FAR` from the median of all is shifted there; nearer ones stay where they are, since the
    centre of a mask that somebody drew is no better than that.
    """
    poses = identity_poses(slices.n_slices)
    if slices.drawn is None or not moving:
        return poses
    positions, stack_of = slices.pixel_positions(), slices.per_pixel(slices.stack_index)
    drawn = slices.mask & slices.per_pixel(slices.drawn)
    centres = {
        int(stack): positions[drawn & (stack_of == stack)].mean(axis=0)
        for stack in np.unique(slices.stack_index[slices.drawn])
        if (drawn & (stack_of == stack)).any()
    }
    if len(centres) < 2:
        return poses
    middle = np.median(list(centres.values()), axis=0)
    for stack, centre in centres.items():
        if np.linalg.norm(middle - centre) > _FAR:
            name, shift = slices.stack_names[stack], middle - centre
            logger.warning("%s: its mask lies %.0f mm from the others; starting there", name, np.linalg.norm(shift))
            poses[slices.stack_index == stack, :3, 3] = shift
    return poses


def find_lost_stacks(stage: Stage, options: SolverOptions, state: State) -> Float[np.ndarray, "n 4 4"]:
    """Poses of all slices, with lost stacks moved where they agree best with the others.

    Parameters
    ----------
    stage, state
        The stage that aligned the stacks, and how it ended.
    """
    slices, poses = state.slices, state.poses
    stacks = np.unique(slices.stack_index)
    if len(stacks) < 3:
        return poses  # with two stacks nobody can tell which of them is lost
    typical = np.array([np.median(state.weights.residuals[slices.stack_index == k]) for k in stacks])
    still = replace(stage, motion="none")
    for stack in stacks[typical > _LOST_RATIO * np.median(typical)]:
        members = slices.stack_index == stack
        volume = begin_stage(slices.subset(~members), stage, options, None, poses[~members])
        for _ in range(4):
            volume = advance(still, options, volume)
        field = volume.field
        assert isinstance(field, LatticeField)  # stacks are aligned on lattices, see `Stage`
        name = slices.stack_names[stack]
        found, agreement, before = _search(slices.subset(members), poses[members], field, options)
        logger.info("%s: agreement with the other stacks %.3f, found a place with %.3f", name, before, agreement)
        if agreement > before + 0.02:
            poses = poses.copy()
            poses[members] = found
    return poses


def _search(
    slices: Slices, poses: np.ndarray, field: LatticeField, options: SolverOptions
) -> tuple[np.ndarray, float, float]:
    """Best poses of one stack against a fixed field, their agreement, and that of the poses given."""
    pivot = transform_points(poses, stack_centres(slices)).mean(axis=0)
    index = np.argwhere(field.lattice.support)
    target = index.mean(axis=0) * field.lattice.spacing + field.lattice.origin
    rng = np.random.default_rng(options.seed)
    axes = rng.normal(size=(len(_ANGLES) * _AXES_PER_ANGLE, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    vectors = axes * np.deg2rad(np.repeat(_ANGLES, _AXES_PER_ANGLE))[:, None]
    starts = [pose_about(vector, target - pivot, pivot) @ poses for vector in np.vstack([np.zeros(3), vectors])]
    some = np.arange(0, slices.n_slices, max(slices.n_slices // _FEW_SLICES, 1))
    few = slices.subset(some)
    quick = [_settle(few, start[some], field, options, _QUICK_STEPS)[1] for start in starts]
    promising = [starts[number] for number in np.argsort(quick)[-_PROMISING:]]
    tried = [_settle(slices, start, field, options, _QUICK_STEPS) for start in (poses, *promising)]
    best = max(range(len(tried)), key=lambda number: tried[number][1])
    found, agreement = _settle(slices, tried[best][0], field, options, _FULL_STEPS)
    return found, agreement, tried[0][1]


def _settle(
    slices: Slices, poses: np.ndarray, field: LatticeField, options: SolverOptions, steps: int
) -> tuple[np.ndarray, float]:
    """A few rigid Gauss-Newton steps of the stack, and the correlation of prediction and data after them."""
    operator = LatticeOperator(field.lattice, slices, poses, None, options.profile, options.backend)
    amplitudes, pixels = operator.backend.array(field.amplitudes), operator.pixels
    for _ in range(steps):
        equations = operator.pose_equations(amplitudes, pixels.values, pixels.coverage)
        operator = operator.with_poses(options.stack_motion.moved(slices, operator.poses, equations, 1.0))
    predicted = operator.backend.host(operator.predict(amplitudes))[slices.mask]
    measured = slices.values[slices.mask]
    if predicted.std() == 0 or measured.std() == 0:  # it sees nothing of the field
        return operator.poses, -1.0
    return operator.poses, float(np.corrcoef(predicted, measured)[0, 1])
