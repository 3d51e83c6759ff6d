"""The foreground of a stack: what is not zero, or what is bright."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.masks.foreground import foreground
from tests.masks.ball_stacks import RADIUS, ball_stack, inside_ball, overlap


def test_foreground_of_a_masked_stack_is_what_is_not_zero():
    stack = ball_stack(0)
    assert overlap(foreground(stack), inside_ball(stack)) > 0.99


def test_foreground_of_a_noisy_stack_is_what_is_bright():
    stack = ball_stack(0, noise=4.0, background=8.0)
    assert stack.data.min() > 0
    mask = foreground(stack)
    assert np.all(mask[inside_ball(stack)])
    # a halo of two or three pixels: intensities are smoothed before they are judged
    assert not np.any(mask & ~inside_ball(stack, RADIUS + 7.0))


def test_foreground_reaches_the_first_and_the_last_slice():
    stack = ball_stack(0)
    data = np.ascontiguousarray(stack.data[:, :, 4:-4])
    cut = replace(stack, data=data, mask=None, slice_times=np.arange(6.0))
    shown = cut.data > 0
    assert shown[:, :, 0].any()
    assert np.all(foreground(cut)[shown])


def test_foreground_has_no_holes_and_one_part():
    stack = ball_stack(1)
    data = stack.data.copy()
    middle = tuple(np.array(data.shape) // 2)
    data[middle] = 0
    data[:2, :2, :2] = 50
    mask = foreground(replace(stack, data=data))
    assert mask[middle]
    assert not mask[:2, :2, :2].any()


@pytest.mark.parametrize("where", [(5, 5, 5), (slice(None), slice(None), 5)])
def test_an_artefact_does_not_hide_the_rest(where: tuple[int | slice, ...]):
    stack = ball_stack(0, noise=4.0, background=8.0)
    data = stack.data.copy()
    data[where] = 1e5 * data.max()
    expected = foreground(stack)
    assert overlap(foreground(replace(stack, data=data))[:, :, 7:], expected[:, :, 7:]) > 0.9


def test_a_stack_without_contrast_is_foreground():
    stack = ball_stack(0)
    data = np.full_like(stack.data, 1000.0)
    data[3:6] += 0.1
    assert foreground(replace(stack, data=data)).all()


def test_without_positive_intensities_there_is_no_foreground():
    stack = ball_stack(0)
    with pytest.raises(InputError, match="stack-0"):
        foreground(replace(stack, data=-stack.data))
