"""What stacks show brighter than the others predict, smoothly over space, is told from anatomy and motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.bias_field import BiasField
from gsvr.model.slices import Stack
from gsvr.simulation.artefacts import coil_field
from gsvr.solver.bias_estimation import BiasOptions, first_guess
from gsvr.solver.checkpoint import Checkpoint
from gsvr.solver.gains import levelled
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import QUICK_STAGES, errors_of_poses, moving_brain, small_brain

OPTIONS = SolverOptions(stages=QUICK_STAGES)


def biased(stacks: list[Stack], strength: float) -> tuple[list[Stack], list[np.ndarray]]:
    """Stacks with bias, opposite in successive ones: what all share would be taken for anatomy."""
    brain = small_brain()
    points, fields = brain.voxel_positions(np.asarray(brain.mask)), []
    for number, stack in enumerate(stacks):
        rng = np.random.default_rng(number // 2)
        fields.append(coil_field(stack.affine, stack.data.shape, points, strength, rng) ** (-1.0) ** number)
    return [replace(stack, data=stack.data * field) for stack, field in zip(stacks, fields, strict=True)], fields


@pytest.mark.slow
def test_bias_is_found_and_poses_are_better():
    simulation = moving_brain("mild", n_stacks=4)
    stacks, fields = biased(simulation.stacks, 0.3)
    slices = prepare_slices(stacks, OPTIONS)
    corrected, left = reconstruct(slices, OPTIONS), reconstruct(slices, replace(OPTIONS, bias=None))
    errors = [errors_of_poses(result.slices, result.poses, simulation).median for result in (corrected, left)]
    assert errors[0] < 0.8 * errors[1]
    assert left.bias is not None
    assert not left.bias.coefficients.any()
    # it is right, but for what a whole slice has: that is its gain
    assert corrected.bias is not None
    assert max(corrected.bias.spreads(corrected.slices).values()) > 0.1
    estimated, true = np.log(corrected.bias.at(slices)), []
    for s in range(slices.n_slices):
        field = fields[slices.stack_index[s]][:, :, slices.slice_index[s]]
        stack = stacks[slices.stack_index[s]]
        index = (slices.pixel_positions()[slices.pixels_of(s)] - stack.affine[:3, 3]) @ np.linalg.inv(
            stack.affine[:3, :3]
        ).T
        column, row = np.rint(index[:, :2]).astype(int).T
        true.append(np.log(field[column, row]))
    true = np.concatenate(true)
    count = np.maximum(slices.sum_per_slice(slices.mask), 1)
    one, other = (
        (values - slices.per_pixel(slices.sum_per_slice(values * slices.mask) / count))[slices.mask]
        for values in (estimated.astype(np.float64), true)
    )
    assert np.corrcoef(one, other)[0, 1] > 0.7
    # the prediction is of what was recorded, bias and all
    inside = corrected.slices.mask
    uneven, recorded = corrected.prediction[inside], slices.values[inside]
    even = uneven / corrected.bias.at(slices)[inside]
    agreements = [np.corrcoef(predicted, recorded)[0, 1] for predicted in (uneven, even)]
    assert agreements[0] > 0.95
    assert agreements[0] > agreements[1] + 0.01


def test_strong_bias_is_seen_before_anything_is_aligned():
    """As far as stacks differ in it; within slices, since gains have the rest."""
    simulation = moving_brain("mild", n_stacks=4)
    stacks, fields = biased(simulation.stacks, 0.4)
    slices, _, _ = levelled(prepare_slices(stacks, OPTIONS))
    found = first_guess(BiasField.none(slices), slices, BiasOptions())
    assert max(found.spreads(slices).values()) > 0.2
    of_pixel = []
    for s in range(slices.n_slices):
        field = np.log(fields[slices.stack_index[s]][:, :, slices.slice_index[s]])
        image = stacks[slices.stack_index[s]].data[:, :, slices.slice_index[s]]
        # slices are cropped: find the rectangle by its pixels
        shape, axes = slices.shapes[s], stacks[slices.stack_index[s]].affine
        first = np.rint(np.linalg.solve(axes, slices.frames[s][:, 3])[:2]).astype(int)
        box = tuple(slice(start, start + extent) for start, extent in zip(first, shape, strict=True))
        assert image[box].shape == tuple(shape)
        of_pixel.append(field[box].ravel())
    count = np.maximum(slices.sum_per_slice(slices.mask), 1)
    true, estimated = (
        (values - slices.per_pixel(slices.sum_per_slice(values * slices.mask) / count))[slices.mask]
        for values in (np.concatenate(of_pixel).astype(np.float64), np.log(found.at(slices)).astype(np.float64))
    )
    assert np.corrcoef(true, estimated)[0, 1] > 0.8


def test_anatomy_is_not_taken_for_bias():
    slices, _, _ = levelled(prepare_slices(moving_brain("mild").stacks, OPTIONS))
    assert not first_guess(BiasField.none(slices), slices, BiasOptions()).coefficients.any()


def test_where_there_is_none_none_is_corrected():
    slices = prepare_slices(moving_brain("mild").stacks, OPTIONS)
    with_estimate, without = reconstruct(slices, OPTIONS), reconstruct(slices, replace(OPTIONS, bias=None))
    np.testing.assert_array_equal(with_estimate.field.amplitudes, without.field.amplitudes)


def test_a_resumed_run_knows_the_bias():
    """The same result to the bit, from the middle of the third stage."""
    stacks, _ = biased(moving_brain("mild").stacks, 0.3)
    slices, kept = prepare_slices(stacks, OPTIONS), list[Checkpoint]()

    def keep(progress: Progress) -> None:
        if progress.stage.name == QUICK_STAGES[2].name:
            kept.append(progress.checkpoint())

    whole = reconstruct(slices, OPTIONS, keep)
    assert whole.bias is not None
    assert kept[0].bias.any()
    resumed = reconstruct(slices, OPTIONS, checkpoint=kept[0])
    np.testing.assert_array_equal(resumed.field.amplitudes, whole.field.amplitudes)
    np.testing.assert_array_equal(resumed.prediction, whole.prediction)
    with pytest.raises(ValueError, match="2 stacks, not of these 3"):
        kept[0].__class__(**{**vars(kept[0]), "bias": kept[0].bias[:2]}).checked_bias(slices)
