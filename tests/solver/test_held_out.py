"""Pixels are held out in blocks, all over those in use."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.solver.held_out import held_out
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import moving_brain


def test_blocks_are_held_out_all_over_the_pixels_in_use():
    slices = prepare_slices(moving_brain().stacks, SolverOptions())
    held = held_out(slices, np.random.default_rng(0))
    assert not (held & ~slices.mask).any()
    assert held.sum() / slices.mask.sum() == pytest.approx(0.06, abs=0.01)
    shares = slices.sum_per_slice(held) / np.maximum(slices.sum_per_slice(slices.mask), 1)
    assert (shares[slices.sum_per_slice(slices.mask) > 500] > 0).all()
    # in squares: nearly all neighbours within one are held out as well
    image = slices.image(int(np.argmax(slices.sum_per_slice(held))), held)
    whole = [
        image[4 * r : 4 * r + 4, 4 * c : 4 * c + 4] for r in range(len(image) // 4) for c in range(image.shape[1] // 4)
    ]
    assert np.mean([block.all() for block in whole if block.any()]) > 0.5
    np.testing.assert_array_equal(held, held_out(slices, np.random.default_rng(0)))
    assert (held != held_out(slices, np.random.default_rng(1))).any()
