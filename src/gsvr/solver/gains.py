"""Intensities: how much brighter one slice is than another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from gsvr.backends.protocol import Array
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator


@runtime_checkable
class IntensityModel(Protocol):
    """How the intensities of slices relate to the field's."""

    def gains(
        self, operator: AcquisitionOperator, plain: Array, weights: Array, mean_one: bool = True
    ) -> Float[np.ndarray, " n"]:
        """Factor of each slice.

        Parameters
        ----------
        plain
            Prediction of the operator's slices with all gains one.
        weights
            Of the pixels.
        mean_one
            Whether the gains are scaled to a weighted mean of one: not for slices that the field has never seen.
        """
        ...


@dataclass(frozen=True)
class SliceGains:
    """Least-squares gain of each slice.

    A slice with little signal keeps close to its stack's level: its energy is held against a hundredth of the median.

    Attributes
    ----------
    limit
        Gains stay between 1 / limit and limit times the level of their stack.
    """

    limit: float = 3.0

    def gains(
        self, operator: AcquisitionOperator, plain: Array, weights: Array, mean_one: bool = True
    ) -> Float[np.ndarray, " n"]:
        """See `IntensityModel`."""
        slices, pixels = operator.slices, operator.pixels
        weighted = weights * plain
        energy = pixels.sum_per_slice(weighted * plain)
        match = pixels.sum_per_slice(weighted * pixels.values)
        hold = 0.01 * float(np.median(energy)) + 1e-12
        # stacks may differ in scale by any factor; slices of one stack may not
        level = np.ones(slices.n_slices)
        for stack in np.unique(slices.stack_index):
            members = slices.stack_index == stack
            level[members] = match[members].sum() / max(float(energy[members].sum()), 1e-12)
        level = np.maximum(level, 1e-6)
        gains = np.clip((match + hold * level) / (energy + hold), level / self.limit, level * self.limit)
        return gains / np.average(gains, weights=energy + hold) if mean_one else gains


# How many times brighter than the bright slices of its stack a slice is when something went wrong: more than
# `SliceGains` would allow. And the share of such slices.
_TOO_BRIGHT, _FEW = 4.0, 0.1


def slice_levels(slices: Slices) -> Float[np.ndarray, " n"]:
    """Level of every slice from the positive pixels inside the mask.

    It is that of its stack, from their median (weighted mean one), times how much brighter than the brightest slices of
    its stack it is where that is several times: one such slice would outweigh all others in the first field, which no
    weights hold back yet.

    Zeros say nothing about the scale (background of a stripped brain, pixels that were filled in); a stack without
    positive pixels counts as average.
    """
    levels, counts, extra = np.ones(slices.n_slices), np.ones(slices.n_slices), np.ones(slices.n_slices)
    positive = slices.mask & (slices.values > 0)
    of_stack: dict[int, float] = {}
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        inside = slices.values[positive & slices.per_pixel(members)]
        if inside.size:
            of_stack[int(stack)] = float(np.median(inside))
            counts[members] = inside.size / members.sum()
            extra[members] = _far_brighter(slices, np.flatnonzero(members), positive)
    typical = float(np.median(list(of_stack.values()))) if of_stack else 1.0
    for stack, level in of_stack.items():
        levels[slices.stack_index == stack] = level / typical
    return levels / np.average(levels, weights=counts) * extra


def _far_brighter(
    slices: Slices, members: Int[np.ndarray, " k"], positive: Bool[np.ndarray, " p"]
) -> Float[np.ndarray, " k"]:
    """How many times brighter than the bright slices of a stack each is, where that is several times; else one.

    By bright pixels and bright slices, since masks may hold much background, and many slices nothing else.
    """
    bright = np.zeros(len(members))
    for number, s in enumerate(members):
        pixels = slices.pixels_of(int(s))
        shown = slices.values[pixels][positive[pixels]]
        bright[number] = np.percentile(shown, 95) if shown.size else 0.0
    usual = np.sort(bright)[::-1][min(int(np.ceil(_FEW * len(members))), len(members) - 1)]
    return np.where((bright > _TOO_BRIGHT * usual) & (usual > 0), bright / max(usual, 1e-30), 1.0)


def levelled(slices: Slices) -> tuple[Slices, Float[np.ndarray, " n"], float]:
    """Slices as all stages expect them: at one level, see `slice_levels`, and bright tissue near one.

    Stacks may come with different receiver gains or rescale slopes.

    Returns
    -------
    The slices, and what their intensities were divided by: their levels (mean one), and one scale for all.

    Raises
    ------
    ValueError
        If they show nothing.
    """
    intensity_scale(slices)
    levels = slice_levels(slices)
    even = replace(slices, values=slices.values / slices.per_pixel(levels.astype(np.float32)))
    scale = intensity_scale(even)
    return replace(even, values=even.values / np.float32(scale)), levels, scale


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
