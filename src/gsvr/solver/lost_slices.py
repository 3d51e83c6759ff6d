"""Slices that went astray: tried where the subject was at other times, against a field that they have no part in.

Gauss-Newton finds a pose only from nearby. A slice that was acquired during a jump, or whose neighbours in time show
little, may be too far away; then it fits the field worse than others of its stack do. Such slices are left out of the
field, and each is placed in it from where it is, from where its neighbours in time are, and from poses that its stack
had at other times. It goes where it agrees best, if that is clearly better than where it was.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from gsvr.masks.consensus import project_mask
from gsvr.model.fields import LatticeField
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.solver.amplitudes import refit
from gsvr.solver.motion import SliceMotion, time_links
from gsvr.solver.placement import Level, place
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.stack_agreement import slice_correlations
from gsvr.solver.state import State

logger = logging.getLogger(__name__)

# A slice is doubted if its prediction leaves so many times as much of its contrast unexplained as is typical of its
# stack, or if its robust weight is below this.
_UNEXPLAINED, _WEIGHT = 2.5, 0.5
# Of fewer pixels nothing is known.
_LEAST_PIXELS = 50
# No more than this share of the slices.
_MOST = 0.3
# Neighbours in time on either side, and poses of other times.
_NEIGHBOURS, _OTHERS = 2, 6
# Conjugate-gradient steps of the field without them.
_STEPS = 5
_LEVELS = (Level(3.5, 3, 0, 4), Level(0.0, 2, 0, 4))
_STILL = Level(0.0, 2, 0, 0)
# Of those that are tried, the best, which Gauss-Newton starts from.
_PROMISING = 5
# By how much less may be unexplained at a new place.
_LEAST_GAIN = 0.25
# mm around the mask that a slice may show.
_MARGIN = 2.0


def poses_with_lost_slices(
    state: State, slices: Slices, mask: Volume, options: SolverOptions
) -> Float[np.ndarray, "n 4 4"]:
    """Poses with slices that went astray where they fit better.

    Parameters
    ----------
    state
        Of a stage on a lattice.
    slices
        As they were given: scaled as those of the state, not binned, with all pixels that may show the anatomy.
    mask
        Consensus mask, in volume world.
    """
    doubted = _doubted(state)
    if not doubted.any():
        return state.poses
    field = _field_without(state, doubted)
    number = np.flatnonzero(doubted)
    some = slices.subset(number)
    free = (
        replace(options, motion=replace(options.motion, prior_share=0.0))
        if isinstance(options.motion, SliceMotion)
        else options
    )

    def tried(start: Float[np.ndarray, "q 4 4"], levels: tuple[Level, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Where slices end from a start, and what is left unexplained there."""
        shown = some.with_mask(project_mask(mask, some, start, _MARGIN) & some.mask)
        placed = place(field, shown, start, free, levels)
        return placed.poses, np.where(np.isfinite(placed.agreement), 1 - placed.agreement**2, np.inf)

    poses, before = tried(state.poses[number], (_STILL,))
    best, starts = before.copy(), _starts(state, doubted)
    seen = np.stack([tried(start, (_STILL,))[1] for start in starts])
    order = np.argsort(seen, axis=0, kind="stable")[:_PROMISING]
    for start in starts[order, np.arange(len(number))]:
        found, left = tried(start, _LEVELS)
        better = left < best
        best, poses[better] = np.where(better, left, best), found[better]
    moved = best < (1 - _LEAST_GAIN) * before
    logger.info("%d of %d slices doubted, %d found elsewhere", len(number), slices.n_slices, int(moved.sum()))
    all_poses = state.poses.copy()
    all_poses[number[moved]] = poses[moved]
    return all_poses


def _doubted(state: State) -> Bool[np.ndarray, " n"]:
    """Slices that their field explains far worse than others of their stack; the worst, if they are many."""
    slices, operator = state.slices, state.operator
    enough = slices.sum_per_slice(slices.mask) * slices.binning**2 >= _LEAST_PIXELS
    correlations = slice_correlations(slices, operator.backend.host(state.prediction), slices.mask)
    unexplained = np.where(np.isfinite(correlations), 1 - correlations**2, 1.0)
    ratio = np.zeros(slices.n_slices)
    for stack in np.unique(slices.stack_index):
        members = enough & (slices.stack_index == stack)
        if members.any():
            ratio[members] = unexplained[members] / max(float(np.median(unexplained[members])), 1e-9)
    doubted = enough & ((ratio > _UNEXPLAINED) | (state.weights.slices < _WEIGHT))
    most = int(_MOST * enough.sum())
    if doubted.sum() > most:
        worst = np.argsort(np.where(doubted, -ratio, np.inf), kind="stable")[:most]
        doubted = np.isin(np.arange(slices.n_slices), worst)
    return doubted


def _field_without(state: State, doubted: Bool[np.ndarray, " n"]) -> LatticeField:
    """The field that the other slices make."""
    operator = state.operator.with_mask(state.slices.mask & ~state.slices.per_pixel(doubted))
    weights = replace(state.weights, pixels=state.weights.pixels * operator.pixels.per_pixel((~doubted).astype(float)))
    field = refit(replace(state, operator=operator, weights=weights, diagonal=None), _STEPS).own_field
    assert isinstance(field, LatticeField)
    return field


def _starts(state: State, doubted: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "k q 4 4"]:
    """Poses to try: one of each doubted slice at a time, its own first."""
    poses, number = state.poses, np.flatnonzero(doubted)
    starts = np.tile(poses[number], (1 + 2 * _NEIGHBOURS + _OTHERS, 1, 1, 1))
    for order in time_links(state.slices):
        trusted = np.flatnonzero(~doubted[order])  # places in time
        if not len(trusted):
            continue
        others = trusted[np.linspace(0, len(trusted) - 1, _OTHERS).astype(int)]
        for at in np.flatnonzero(doubted[order]):
            after = int(np.searchsorted(trusted, at))
            near = np.clip(np.arange(after - _NEIGHBOURS, after + _NEIGHBOURS), 0, len(trusted) - 1)
            row = int(np.searchsorted(number, order[at]))
            starts[1:, row] = poses[order[np.concatenate([trusted[near], others])]]
    return starts
