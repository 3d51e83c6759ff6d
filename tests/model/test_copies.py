"""A recording that is given twice is recognised, however it is stored; two recordings of the same are not one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.copies import copies
from gsvr.model.slices import Stack
from tests.moving_brain import moving_brain


@pytest.fixture(scope="module")
def stack() -> Stack:
    """One stack of a brain."""
    return moving_brain().stacks[0]


def with_noise(stack: Stack, seed: int) -> Stack:
    """The same brain recorded again: other noise of 2 % of the brightest pixel."""
    noise = np.random.default_rng(seed).normal(scale=0.02 * float(stack.data.max()), size=stack.data.shape)
    return replace(stack, name=f"{stack.name}-{seed}", data=(stack.data + noise).astype(np.float32))


def reordered(stack: Stack) -> Stack:
    """Columns and rows swapped, and the new columns backwards: other voxels, the same places."""
    data = stack.data.transpose(1, 0, 2)[::-1]
    affine = stack.affine[:, [1, 0, 2, 3]].copy()
    affine[:3, 3] += affine[:3, 0] * (len(data) - 1)
    affine[:3, 0] *= -1
    return Stack(f"{stack.name}-reordered", data.copy(), affine, stack.thickness)


def test_copies_are_found_scaled_shifted_or_stored_in_another_order(stack: Stack):
    shifted = stack.affine.copy()
    shifted[:3, 3] += 5
    bright = replace(stack, data=2 * stack.data)
    assert copies([stack, with_noise(stack, 1), bright, replace(stack, affine=shifted), reordered(stack)]) == [
        (0, 2),
        (0, 3),
        (0, 4),
        (2, 3),
        (2, 4),
        (3, 4),
    ]


def test_repeated_recordings_and_other_stacks_are_no_copies(stack: Stack):
    assert copies([with_noise(stack, 1), with_noise(stack, 2), *moving_brain().stacks[1:]]) == []


def test_stacks_without_any_contrast_are_no_copies(stack: Stack):
    empty = replace(stack, data=np.zeros_like(stack.data))
    assert copies([empty, empty]) == []
