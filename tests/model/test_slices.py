"""Slices: every pixel keeps its value and its place, cut from stacks, binned or picked out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.geometry import pose_about, transform_points
from gsvr.model.slices import Slices, Stack, interleaved_times, slice_frame, slices_from_stacks
from tests.acquisitions import small_slices, small_stack

TURNED = np.eye(3)[:, [1, 2, 0]]


@pytest.fixture
def stacks() -> list[Stack]:
    return [
        small_stack("a", np.eye(3), (1.1, 1.1, 3.0), 3.0, 0),
        small_stack("b", TURNED, (1.0, 1.4, 3.3), 2.5, 1),
    ]


@pytest.fixture
def slices(stacks: list[Stack]) -> Slices:
    return slices_from_stacks(stacks, masks_of(stacks))


def masks_of(stacks: list[Stack]) -> list[np.ndarray]:
    return [stack.mask for stack in stacks if stack.mask is not None]


def ramp(points: np.ndarray) -> np.ndarray:
    """Linear in the world: its mean over pixels is its value at their centre."""
    return points @ [0.3, -0.7, 1.1] + 50


def with_ramp(stacks: list[Stack]) -> list[Stack]:
    filled = []
    for stack in stacks:
        index = np.moveaxis(np.indices(stack.data.shape), 0, -1)
        filled.append(replace(stack, data=ramp(transform_points(stack.affine, index.astype(float))).astype(np.float32)))
    return filled


def test_interleave_takes_odd_numbers_first():
    # counted from 1: slices 1, 3, 5, then 2, 4
    np.testing.assert_array_equal(np.argsort(interleaved_times(5)), [0, 2, 4, 1, 3])
    np.testing.assert_array_equal(np.argsort(interleaved_times(4)), [0, 2, 1, 3])


@pytest.mark.parametrize("mirror", [False, True])
def test_slice_frame_is_rigid_and_starts_at_its_pixel(mirror: bool):
    affine = np.eye(4)
    affine[:3, :3] = TURNED @ np.diag([1.2, 1.5, -3.0 if mirror else 3.0])
    affine[:3, 3] = [5, 6, 7]
    frame = slice_frame(affine, np.array([2, 1, 4]))
    np.testing.assert_allclose(frame[:3, :3] @ frame[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(frame[:3, 3], transform_points(affine, np.array([2.0, 1.0, 4.0])))
    there = transform_points(frame, np.array([3 * 1.2, 2 * 1.5, 0.0]))
    np.testing.assert_allclose(there, transform_points(affine, np.array([5.0, 3.0, 4.0])))


def test_every_pixel_is_where_the_stack_has_it(stacks: list[Stack]):
    slices = slices_from_stacks(with_ramp(stacks), masks_of(stacks))
    np.testing.assert_allclose(slices.values, ramp(slices.pixel_positions()), rtol=1e-6)


def test_no_masked_pixel_is_lost(stacks: list[Stack], slices: Slices):
    inside = np.sort(np.concatenate([stack.data[mask] for stack, mask in zip(stacks, masks_of(stacks), strict=True)]))
    np.testing.assert_array_equal(np.sort(slices.values[slices.mask]), inside)
    assert slices.n_pixels == len(inside)
    np.testing.assert_array_equal(slices.coverage, slices.mask)


def test_slices_are_cropped_to_their_mask(slices: Slices):
    for s in range(slices.n_slices):
        mask = slices.image(s, slices.mask)
        assert mask[[0, -1]].any(axis=1).all()
        assert mask[:, [0, -1]].any(axis=0).all()


def test_a_wider_field_of_view_keeps_more_pixels_at_hand(stacks: list[Stack], slices: Slices):
    views = [np.ones_like(mask) for mask in masks_of(stacks)]
    wide = slices_from_stacks(with_ramp(stacks), masks_of(stacks), views, drawn=[False, True])
    assert wide.n_slices == sum(stack.n_slices for stack in stacks)
    assert wide.n_pixels == slices.n_pixels
    assert len(wide.values) == sum(stack.data.size for stack in stacks)
    np.testing.assert_allclose(wide.values, ramp(wide.pixel_positions()), rtol=1e-6)
    np.testing.assert_array_equal(wide.drawn, wide.stack_index == 1)


def test_slices_without_a_pixel_in_view_are_left_out(stacks: list[Stack]):
    masks = masks_of(stacks)
    masks[0] = masks[0].copy()
    masks[0][:, :, 2] = False
    slices = slices_from_stacks(stacks, masks)
    assert slices.slice_index[slices.stack_index == 0].tolist() == [0, 1, 3, 4]
    with pytest.raises(ValueError, match="no pixel"):
        slices_from_stacks(stacks, [np.zeros_like(mask) for mask in masks])


def test_geometry_of_each_stack_comes_along(stacks: list[Stack], slices: Slices):
    for number, stack in enumerate(stacks):
        members = slices.stack_index == number
        np.testing.assert_allclose(slices.spacings[members], np.tile(stack.spacing[:2], (members.sum(), 1)))
        np.testing.assert_array_equal(slices.thicknesses[members], stack.thickness)
        np.testing.assert_array_equal(slices.times[members], stack.slice_times[slices.slice_index[members]])
        assert slices.stack_names[number] == stack.name


def test_pixels_stand_where_the_poses_put_them(slices: Slices):
    vectors = np.random.default_rng(3).normal(size=(slices.n_slices, 6))
    poses = pose_about(vectors[:, :3], vectors[:, 3:], np.zeros((slices.n_slices, 3)))
    placed, acquired = slices.pixel_positions(poses), slices.pixel_positions()
    for s in range(slices.n_slices):
        piece = slices.pixels_of(s)
        np.testing.assert_allclose(placed[piece], transform_points(poses[s], acquired[piece]), atol=1e-9)


def test_centres_are_the_middle_of_the_rectangles(slices: Slices):
    positions = slices.pixel_positions()
    middles = [positions[slices.pixels_of(s)].mean(axis=0) for s in range(slices.n_slices)]
    np.testing.assert_allclose(slices.centres, middles, atol=1e-9)


def test_sums_and_repeats_go_by_slice(slices: Slices):
    numbers = np.arange(slices.n_slices, dtype=np.float32)
    owner = slices.per_pixel(numbers)
    for s in range(slices.n_slices):
        assert np.all(slices.image(s, owner) == s)
    np.testing.assert_allclose(slices.sum_per_slice(owner), numbers * np.prod(slices.shapes, axis=1))


@pytest.mark.parametrize("factor", [2, 3])
def test_binning_averages_inside_the_mask_and_keeps_every_place(stacks: list[Stack], factor: int):
    slices = slices_from_stacks(with_ramp(stacks), masks_of(stacks))
    binned = slices.binned(factor)
    assert binned.binning == factor
    np.testing.assert_allclose(binned.pixel_spacings, factor * slices.spacings)
    np.testing.assert_allclose(binned.spacings, slices.spacings)
    full = binned.coverage == 1
    assert full.any()
    np.testing.assert_allclose(binned.values[full], ramp(binned.pixel_positions())[full], rtol=1e-5)


@pytest.mark.parametrize("factor", [2, 3])
def test_binning_loses_no_signal(slices: Slices, factor: int):
    binned = slices.binned(factor)
    np.testing.assert_allclose(
        binned.sum_per_slice(binned.values * binned.coverage) * factor**2,
        slices.sum_per_slice(slices.values * slices.mask),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        binned.sum_per_slice(binned.coverage) * factor**2, slices.sum_per_slice(slices.mask), rtol=1e-6
    )
    np.testing.assert_array_equal(binned.mask, binned.coverage >= 0.5)


def test_binning_in_steps_is_binning_at_once(slices: Slices):
    assert slices.binned(1) is slices
    twice, once = slices.with_mask(np.ones_like(slices.mask)).binned(2).binned(2), slices.binned(4)
    assert twice.binning == once.binning == 4
    np.testing.assert_allclose(twice.frames, once.frames, atol=1e-12)
    np.testing.assert_array_equal(twice.shapes, once.shapes)


def test_binning_reduces_noise():
    slices, _ = small_slices()
    noise = np.random.default_rng(0).normal(size=len(slices.values)).astype(np.float32)
    noisy = replace(slices, values=noise)
    binned = noisy.binned(2)
    assert binned.values[binned.coverage == 1].std() == pytest.approx(0.5, rel=0.3)


def test_subset_picks_slices_in_order(slices: Slices):
    keep = np.array([4, 1, 7])
    some = slices.subset(keep)
    assert some.n_slices == 3
    for new, old in enumerate(keep.tolist()):
        np.testing.assert_array_equal(some.image(new), slices.image(old))
        np.testing.assert_array_equal(some.image(new, some.mask), slices.image(old, slices.mask))
        assert some.slice_index[new] == slices.slice_index[old]
    np.testing.assert_allclose(some.centres, slices.centres[keep])
    np.testing.assert_array_equal(some.thicknesses, slices.thicknesses[keep])


def test_subset_by_truth_values_partitions(slices: Slices):
    first = slices.stack_index == 0
    parts = [slices.subset(first), slices.subset(~first)]
    assert sum(part.n_pixels for part in parts) == slices.n_pixels
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), slices.values)


def test_another_mask_takes_the_coverage_with_it(slices: Slices):
    mask = np.zeros_like(slices.mask)
    mask[::3] = True
    other = slices.with_mask(mask)
    assert other.n_pixels == mask.sum()
    np.testing.assert_array_equal(other.coverage, mask)
    np.testing.assert_array_equal(other.values, slices.values)


@pytest.mark.parametrize("factor", [0, -1, 1.5])
def test_blocks_of_pixels_that_cannot_be(slices: Slices, factor: int):
    with pytest.raises((ValueError, TypeError)):  # in tests, types are checked as well
        slices.binned(factor)


def test_offsets_that_do_not_go_with_the_shapes_are_refused(slices: Slices):
    offsets = slices.offsets.copy()
    offsets[1] += 1
    for changed in ({"offsets": offsets}, {"shapes": slices.shapes + np.array([0, 1])}):
        with pytest.raises(ValueError, match="offsets of slices must be the sums"):
            replace(slices, **changed)
