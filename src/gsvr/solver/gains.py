"""Intensities: how much brighter one slice is than another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

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


# How many times brighter than its stack a slice is when something went wrong: more than `SliceGains` would allow.
_TOO_BRIGHT = 4.0


def slice_levels(slices: Slices) -> Float[np.ndarray, " n"]:
    """Level of every slice from medians of positive pixels inside the mask.

    It is that of its stack (weighted mean one), but for a slice that is several times brighter: one such slice would
    outweigh all others in the first field, which no weights hold back yet.

    Zeros say nothing about the scale (background of a stripped brain, pixels that were filled in); a stack without
    positive pixels counts as average.
    """
    levels, counts, own = np.ones(slices.n_slices), np.ones(slices.n_slices), np.zeros(slices.n_slices)
    positive = slices.mask & (slices.values > 0)
    for s in np.flatnonzero(slices.sum_per_slice(positive)):
        pixels = slices.pixels_of(int(s))
        own[s] = np.median(slices.values[pixels][positive[pixels]])
    of_stack: dict[int, float] = {}
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        inside = slices.values[positive & slices.per_pixel(members)]
        if inside.size:
            of_stack[int(stack)] = float(np.median(inside))
            counts[members] = inside.size / members.sum()
    typical, extra = float(np.median(list(of_stack.values()))) if of_stack else 1.0, np.ones(slices.n_slices)
    for stack, level in of_stack.items():
        members = slices.stack_index == stack
        levels[members] = level / typical
        extra[members] = np.where(own[members] > _TOO_BRIGHT * level, own[members] / level, 1.0)
    return levels / np.average(levels, weights=counts) * extra


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
