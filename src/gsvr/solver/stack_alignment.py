"""Stacks that lie in the wrong place: find where they belong.

Gauss-Newton from the scanner's own coordinates brings stacks together when the subject has turned by up to some 35
degrees between them. Where stacks do not predict one another after that, the largest group of those that do grows: each
stack outside is tried at all orientations and shifts (`gsvr.solver.orientation_search`) and joins where it agrees best.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from gsvr.model.fields import LatticeField
from gsvr.model.geometry import identity_poses, vector_from_rotation
from gsvr.model.slices import Slices
from gsvr.solver.motion import stack_centres
from gsvr.solver.orientation_search import CoarseImage, placements
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.stack_agreement import (
    Agreement,
    agreement,
    determined_pixels,
    determined_sites,
    operator_on,
    weights_of,
)
from gsvr.solver.state import State

logger = logging.getLogger(__name__)

# Drawn masks are compared in cells of this size (mm). A stack starts at the scanner's coordinates unless less than this
# share of what its mask covers is covered by the masks of others.
_CELL = 5.0
_LEAST_COVERED = 0.6
# Two stacks agree if one correlates so well with what the other predicts of it, over at least this share of its pixels.
_AGREES, _LEAST_COMPARED = 0.7, 0.2
# Where no stack correlates so well at its best place, no place is better than where they stand: noise, or other brains.
_HOPELESS = 0.35
# Symmetric as brains are, a stack that moves much within itself correlates by 0.3 to 0.4 in wrong places as in the
# right one: only so high a correlation speaks against the scanner's coordinates, unless all are searched for anyway.
_CONVINCING = 0.5
# After a search, one that others predict so much worse than they do a typical one is searched for once more.
_ODD = 0.93
# What a search finds has to correlate better by this.
_BETTER = 0.02
# Placements of a search that Gauss-Newton starts from, and those that it goes on from.
_TRIED, _PROMISING = 12, 3
_FEW_SLICES = 10
_QUICK_STEPS, _FULL_STEPS = 4, 8


def first_poses(slices: Slices, searching: bool = True) -> Float[np.ndarray, "n 4 4"]:
    """Poses to start with: the scanner's coordinates, but for stacks whose mask lies apart from those of the others.

    Without `searching`, the scanner's coordinates as they are.

    The subject may have moved by centimetres between two stacks. Centres of masks tell by how much only where every
    stack covers all of the brain, so they count only where a mask hardly overlaps with the others.
    """
    poses = identity_poses(slices.n_slices)
    if slices.drawn is None or not searching:
        return poses
    positions, stack_of = slices.pixel_positions(), slices.per_pixel(slices.stack_index)
    drawn = slices.mask & slices.per_pixel(slices.drawn)
    points = {int(stack): positions[drawn & (stack_of == stack)] for stack in np.unique(stack_of[drawn])}
    if len(points) < 2:
        return poses
    cells = {stack: np.unique(np.rint(inside / _CELL).astype(int), axis=0) for stack, inside in points.items()}
    middle = np.median([inside.mean(axis=0) for inside in points.values()], axis=0)
    for stack, own in cells.items():
        others = np.concatenate([theirs for other, theirs in cells.items() if other != stack])
        shared = {tuple(cell) for cell in own} & {tuple(cell) for cell in others}
        if len(shared) < _LEAST_COVERED * len(own):
            shift = middle - points[stack].mean(axis=0)
            logger.info(
                "%s: its mask lies %.0f mm from the others; starting there",
                slices.stack_names[stack],
                np.linalg.norm(shift),
            )
            poses[slices.stack_index == stack, :3, 3] = shift
    return poses


def with_lost_stacks(stage: Stage, options: SolverOptions, state: State) -> State:
    """The state itself if its stacks predict one another; else one with lost stacks where they agree best with others.

    Parameters
    ----------
    stage, state
        The stage that aligned the stacks, and how it ended.
    options
        Their `search` says which stacks count as lost.
    """
    stacks = np.unique(state.slices.stack_index)
    if options.search == "none" or len(stacks) < 2:
        return state
    if options.search == "lost" and _agree_with_one(stage, options, state):
        return state
    poses, group = state.poses.copy(), _first_group(stage, options, state)
    logger.info("%d of %d stacks agree: searching for the place of the others", len(group), len(stacks))
    apart, moved = [int(stack) for stack in stacks if stack not in group], False
    while apart:
        field = _field_of(stage, options, state.slices, poses, np.isin(state.slices.stack_index, group))
        found = {stack: _placed(field, stage, options, state.slices, poses, stack) for stack in apart}
        joining = [stack for stack in apart if found[stack][1].correlation > _AGREES]
        if not joining:
            best = max(apart, key=lambda stack: found[stack][1].evidence)
            if found[best][1].correlation < _HOPELESS:
                break
            joining = [best]
        for stack in joining:
            members = state.slices.stack_index == stack
            moved = moved or not np.array_equal(poses[members], found[stack][0])
            poses[members] = found[stack][0]
        group, apart = [*group, *joining], [stack for stack in apart if stack not in joining]
    if not moved:
        return state
    state = _with_odd_stack(stage, options, _aligned_anew(stage, options, state, poses))
    _tell(state)
    return state


def _tell(state: State) -> None:
    """How far each stack lies from where its header puts it."""
    slices, centres = state.slices, stack_centres(state.slices)
    for stack in np.unique(slices.stack_index):
        number = int(np.flatnonzero(slices.stack_index == stack)[0])
        pose, centre = state.poses[number], centres[number]
        angle = np.rad2deg(np.linalg.norm(vector_from_rotation(pose[:3, :3])))
        shift = np.linalg.norm(pose[:3, :3] @ centre + pose[:3, 3] - centre)
        logger.info("%s: turned by %.0f degrees and moved by %.0f mm", slices.stack_names[stack], angle, shift)


def _with_odd_stack(stage: Stage, options: SolverOptions, state: State) -> State:
    """The state after a search for stacks that the others predict worse than the rest, one after the other.

    Two that agreed by mistake may have been the first of their group.
    """
    slices = state.slices
    stacks = [int(stack) for stack in np.unique(slices.stack_index)]
    for _ in stacks if len(stacks) > 2 else []:
        fields = [_field_of(stage, options, slices, state.poses, slices.stack_index != stack) for stack in stacks]
        found = [_agreement_of(field, slices, state.poses, stack) for field, stack in zip(fields, stacks, strict=True)]
        agreements = [each.correlation for each in found]
        odd = int(np.argmin(agreements))
        if agreements[odd] > _ODD * float(np.median(agreements)):
            break
        poses, members = state.poses.copy(), slices.stack_index == stacks[odd]
        poses[members] = _placed(fields[odd], stage, options, slices, state.poses, stacks[odd])[0]
        if np.array_equal(poses, state.poses):
            break
        state = _aligned_anew(stage, options, state, poses)
    return state


def _aligned_anew(stage: Stage, options: SolverOptions, state: State, poses: np.ndarray) -> State:
    """Stacks aligned from other poses: what the field was made of was in the wrong place."""
    slices = state.slices
    anew = begin_stage(slices, stage, options, None, poses)
    for _ in range(stage.outer_iterations):
        anew = advance(stage, options, anew)
    return anew


def _field_of(
    stage: Stage, options: SolverOptions, slices: Slices, poses: np.ndarray, members: Bool[np.ndarray, " n"]
) -> State:
    """A field of some slices where they stand."""
    state = begin_stage(slices.subset(members), stage, options, None, poses[members])
    for _ in range(2):
        state = advance(replace(stage, motion="none"), options, state)
    return state


def _agree_with_one(stage: Stage, options: SolverOptions, state: State) -> bool:
    """Whether one stack, the one that fits best, predicts all others: quick, and all that most acquisitions need."""
    slices, poses = state.slices, state.poses
    stacks = np.unique(slices.stack_index)
    typical = [float(np.median(state.weights.residuals[slices.stack_index == stack])) for stack in stacks]
    best = int(stacks[np.argmin(typical)])
    field = _field_of(stage, options, slices, poses, slices.stack_index == best)
    return all(_agree(_agreement_of(field, slices, poses, int(stack))) for stack in stacks if stack != best)


def _first_group(stage: Stage, options: SolverOptions, state: State) -> list[int]:
    """The most stacks that hang together by pairs that agree; among equals, those that agree best with themselves.

    If all are to be searched for: the one that does so.
    """
    slices, poses = state.slices, state.poses
    stacks = [int(stack) for stack in np.unique(slices.stack_index)]
    agreements = np.zeros((len(stacks), len(stacks)))
    linked = np.eye(len(stacks), dtype=bool)
    for column, predicting in enumerate(stacks):
        field = _field_of(stage, options, slices, poses, slices.stack_index == predicting)
        for row, predicted in enumerate(stacks):
            found = _agreement_of(field, slices, poses, predicted)
            agreements[row, column] = found.correlation
            linked[row, column] |= options.search == "lost" and _agree(found)
    linked |= linked.T
    for _ in stacks:
        linked = linked @ linked
    own = np.diag(agreements)  # little motion within the stack
    best = max(range(len(stacks)), key=lambda row: (linked[row].sum(), own[linked[row]].mean(), -row))
    return [stack for number, stack in enumerate(stacks) if linked[best, number]]


def _agree(found: Agreement) -> bool:
    return found.correlation > _AGREES and found.compared > _LEAST_COMPARED


def _agreement_of(field: State, slices: Slices, poses: np.ndarray, stack: int) -> Agreement:
    members = slices.stack_index == stack
    return agreement(field, operator_on(field, slices.subset(members), poses[members]))


def _placed(
    field: State, stage: Stage, options: SolverOptions, slices: Slices, poses: np.ndarray, stack: int
) -> tuple[np.ndarray, Agreement]:
    """Best poses of a stack against the field of others, and how well it agrees there; as given, if none is better."""
    members = slices.stack_index == stack
    own, here = slices.subset(members), poses[members]
    image = _image_of(_field_of(stage, options, slices, poses, members))
    starts = [here, *(move @ here for move in placements(image, _image_of(field), _TRIED))]
    some = np.arange(0, own.n_slices, max(own.n_slices // _FEW_SLICES, 1))
    few = own.subset(some)
    quick = [_settled(field, few, start[some], options, _QUICK_STEPS) for start in starts]
    order = sorted(range(1, len(starts)), key=lambda number: -quick[number][1].evidence)
    turned = [starts[k] if len(some) == own.n_slices else _carried(quick[k][0], here, some) for k in order[:_PROMISING]]
    before = _agreement_of(field, slices, poses, stack)
    tried = [_settled(field, own, start, options, _FULL_STEPS) for start in (here, *turned)]
    found, reached = max(tried, key=lambda pair: pair[1].evidence)
    least = max(before.correlation + _BETTER, _CONVINCING if options.search == "lost" else 0.0)
    better = reached.evidence > before.evidence and reached.correlation > least
    logger.info(
        "%s: correlates by %.2f with what others predict of it; by %.2f at the best place found",
        slices.stack_names[stack],
        before.correlation,
        reached.correlation,
    )
    return (found, reached) if better else (here, before)


def _carried(settled: np.ndarray, before: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Poses of all slices of a stack, moved as some of them were."""
    return settled[0] @ np.linalg.inv(before[some[0]]) @ before


def _image_of(state: State) -> CoarseImage:
    field = state.field
    assert isinstance(field, LatticeField)  # stacks are aligned on lattices, see `Stage`
    return CoarseImage.of(field, determined_sites(state))


def _settled(
    field: State, slices: Slices, poses: np.ndarray, options: SolverOptions, steps: int
) -> tuple[np.ndarray, Agreement]:
    """Rigid Gauss-Newton steps of a stack against a field that it has no part in, and how well it agrees after them."""
    operator = operator_on(field, slices, poses)
    for _ in range(steps):
        weights = weights_of(operator, determined_pixels(field, operator))
        equations = operator.pose_equations(field.amplitudes, operator.pixels.values, weights)
        operator = operator_on(field, slices, options.stack_motion.moved(slices, operator.poses, equations, 1.0))
    return operator.poses, agreement(field, operator)
