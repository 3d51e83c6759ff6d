"""Stacks that hold the same recording: one that is given again under another name adds nothing, and counts twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Int8

from gsvr.model.slices import Stack

# Two recordings of a subject who lies still differ by their noise: half of the small differences between neighbours
# change their sign. In a copy, scaled or corrected for a bias or not, hardly any does.
_LEAST_AGREEMENT = 0.95
# Slices that are looked at.
_SLICES = 5


def copies(stacks: Sequence[Stack]) -> list[tuple[int, int]]:
    """Pairs of stacks of which the second is a copy of the first, in whatever order of voxels it is stored.

    Resampled copies are not recognised.
    """
    steps = [_steps(stack) for stack in stacks]
    return [
        (first, second)
        for first, second in combinations(range(len(stacks)), 2)
        if steps[first].shape == steps[second].shape and _agreement(steps[first], steps[second]) > _LEAST_AGREEMENT
    ]


def _steps(stack: Stack) -> Int8[np.ndarray, "x y z"]:
    """Signs of the differences between neighbours along the first axis, with axes along those of the world."""
    matrix = stack.affine[:3, :3] / stack.spacing
    order, left = [0, 0, 0], [0, 1, 2]
    for world in range(3):  # the voxel axis that runs most along each axis of the world
        order[world] = max(left, key=lambda axis: abs(matrix[world, axis]))
        left.remove(order[world])
    middle = stack.n_slices // 2
    some = slice(max(middle - _SLICES // 2, 0), middle - _SLICES // 2 + _SLICES)
    data = stack.data[:, :, some].transpose(order)
    backwards = tuple(axis for axis in range(3) if matrix[axis, order[axis]] < 0)
    return np.sign(np.diff(np.flip(data, backwards), axis=0)).astype(np.int8)


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the signs that are equal where either is not zero."""
    told = (first != 0) | (second != 0)
    return float((first == second)[told].mean()) if told.any() else 0.0
