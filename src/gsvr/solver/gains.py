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


def stack_levels(slices: Slices) -> Float[np.ndarray, " n"]:
    """Level of every slice's stack from the median of its positive pixels inside the mask; weighted mean one.

    Zeros say nothing about the scale (background of a stripped brain, pixels that were filled in); a stack without
    positive pixels counts as average.
    """
    levels, counts = np.ones(slices.n_slices), np.ones(slices.n_slices)
    of_stack: dict[int, float] = {}
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        inside = slices.values[slices.mask & slices.per_pixel(members)]
        positive = inside[inside > 0]
        if positive.size:
            of_stack[int(stack)] = float(np.median(positive))
            counts[members] = positive.size / members.sum()
    typical = float(np.median(list(of_stack.values()))) if of_stack else 1.0
    for stack, level in of_stack.items():
        levels[slices.stack_index == stack] = level / typical
    return levels / np.average(levels, weights=counts)


def levelled(slices: Slices) -> tuple[Slices, Float[np.ndarray, " n"], float]:
    """Slices as all stages expect them: their stacks at one level, bright tissue near one.

    Stacks may come with different receiver gains or rescale slopes.

    Returns
    -------
    The slices, and what their intensities were divided by: levels of their stacks (mean one), and one scale for all.

    Raises
    ------
    ValueError
        If they show nothing.
    """
    intensity_scale(slices)
    levels = stack_levels(slices)
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
