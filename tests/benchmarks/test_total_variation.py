"""Super-resolution with total variation, which gsvr is compared with: its operators, and that it helps."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.total_variation import TotalVariationOptions, _BoxAverage, _divergence, _gradient, total_variation
from examples.super_resolution import averaged
from gsvr.evaluation import compare
from gsvr.simulation.simulate import SimulationOptions, simulate
from tests.moving_brain import small_brain


def test_operators_are_adjoint_and_the_image_beats_the_mean():
    truth, rng = small_brain(), np.random.default_rng(0)
    options = SimulationOptions(
        n_stacks=3, in_plane_spacing=1.0, thickness=5.0, motion="none", gain=0.0, signal_loss=0.0
    )
    stacks = simulate(truth, options).stacks
    image = rng.normal(size=truth.data.shape).astype(np.float32)
    for stack in stacks:
        operator = _BoxAverage(stack, truth)
        predicted, recorded = operator.apply(truth.data), operator.to_world(stack.data)
        inside = operator.to_world(stack.mask)  # pyright: ignore[reportArgumentType]
        assert np.corrcoef(predicted[inside], recorded[inside])[0, 1] > 0.98
        pixels = rng.normal(size=predicted.shape).astype(np.float32)
        left, right = (operator.apply(image) * pixels).sum(), (image * operator.adjoint(pixels)).sum()
        assert left == pytest.approx(right, rel=1e-4, abs=1e-2)
    slopes = rng.normal(size=(3, *image.shape)).astype(np.float32)
    assert (_gradient(image) * slopes).sum() == pytest.approx(-(image * _divergence(slopes)).sum(), rel=1e-4)
    masks = [stack.mask for stack in stacks if stack.mask is not None]
    found = total_variation(stacks, masks, truth, TotalVariationOptions(0.003, 100))
    ours, mean = (compare(volume, truth, align=False).quality.psnr for volume in (found, averaged(stacks, truth)))
    assert ours > mean + 1
