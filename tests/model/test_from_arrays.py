"""Slices from arrays in memory: as from stacks, whatever holds the numbers; what cannot be meant is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest

from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.slices import Slices, slices_from_arrays, slices_from_stacks
from gsvr.model.volume import Volume
from tests.acquisitions import random_amplitudes, small_lattice, small_slices, small_stack

TURNED = np.eye(3)[:, [1, 2, 0]]
STACKS = [small_stack("a", np.eye(3), (1.1, 1.1, 3.0), 3.0, 0), small_stack("b", TURNED, (1.0, 1.4, 3.3), 2.5, 1)]
MASKS = [np.asarray(stack.mask) for stack in STACKS]


@pytest.fixture(autouse=True)
def _annotations_are_not_checked():
    """As outside the tests: what is refused here, gsvr itself refuses."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def assert_equal(got: Slices, want: Slices) -> None:
    for name, values in vars(want).items():
        if name != "stack_names":
            np.testing.assert_array_equal(getattr(got, name), values, err_msg=name)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float64])
def test_masks_of_any_type_are_the_same_mask(dtype: type):
    masks = [mask.astype(dtype) for mask in MASKS]
    want = slices_from_stacks(STACKS, MASKS)
    images = [stack.data.astype(np.float64) for stack in STACKS]
    affines = [stack.affine.tolist() for stack in STACKS]
    assert_equal(slices_from_arrays(images, affines, [3.0, 2.5], masks), want)
    assert_equal(slices_from_stacks([replace(s, mask=m) for s, m in zip(STACKS, masks, strict=True)]), want)
    everywhere = np.ones_like(want.mask)
    assert_equal(want.with_mask(everywhere.astype(dtype)), want.with_mask(everywhere))
    np.testing.assert_array_equal(
        want.pixel_positions(pixels=want.mask.astype(dtype)), want.pixel_positions(pixels=want.mask)
    )


def test_lists_of_lists_are_arrays():
    images = [stack.data.astype(int).tolist() for stack in STACKS]
    slices = slices_from_arrays(images, [stack.affine.tolist() for stack in STACKS], 3.0)
    assert slices.values.dtype == np.float32
    assert slices.n_pixels == sum(stack.data.size for stack in STACKS)
    assert slices.thicknesses.tolist() == [3.0] * 10
    assert slices.stack_names == ("image-0", "image-1")


def test_single_slices_are_where_they_are_in_the_stack():
    stack, mask = STACKS[1], MASKS[1]
    single = []
    for k in range(stack.n_slices):
        affine = stack.affine.copy()
        affine[:3, 3] += k * affine[:3, 2]
        single.append((stack.data[:, :, k], affine, mask[:, :, k]))
    images, affines, masks = zip(*single, strict=True)
    slices = slices_from_arrays(images, affines, 2.5, masks, names=list("vwxyz"))
    want = slices_from_stacks([stack], [mask])
    np.testing.assert_array_equal(slices.values, want.values)
    np.testing.assert_allclose(slices.pixel_positions(), want.pixel_positions(), atol=1e-12)
    assert slices.stack_index.tolist() == [0, 1, 2, 3, 4]
    assert_equal(slices_from_arrays(np.array(images), np.array(affines), 2.5, np.array(masks)), slices)


def test_acquisition_times_are_kept():
    times = np.array([4.0, 2, 0, 1, 3])
    slices = slices_from_arrays([s.data for s in STACKS], [s.affine for s in STACKS], 3.0, slice_times=[times, None])
    np.testing.assert_array_equal(slices.times[:5], times)
    np.testing.assert_array_equal(slices.times[5:], STACKS[1].slice_times)


AFFINE, IMAGE = STACKS[1].affine, STACKS[1].data
SHEARED = AFFINE @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"images": [np.full((4, 5, 6), np.nan)]}, "image-0 must be finite"),
        ({"images": [np.zeros(5)]}, "image-0 must be a stack .* not of 1 axes"),
        ({"images": [np.full((4, 5, 6), "x")]}, "image-0 must be real numbers"),
        ({"images": [IMAGE.astype(complex)]}, "image-0 must be real numbers"),
        ({"affines": [np.eye(3)]}, "image-0: the affine must be 4 x 4, not 3 x 3"),
        ({"affines": [np.zeros((4, 4))]}, "image-0: the affine must have three axes"),
        ({"affines": [AFFINE.T]}, "image-0: the affine must have three axes"),
        ({"affines": [np.full((4, 4), np.inf)]}, "image-0: the affine must be finite"),
        ({"affines": [SHEARED]}, "image-0: the in-plane axes are not perpendicular"),
        ({"affines": [AFFINE, AFFINE]}, "2 affines for 1 images"),
        ({"thicknesses": 0.0}, "image-0: the slice thickness .*positive, not 0"),
        ({"thicknesses": [1.0, 2.0]}, "2 thicknesses for 1 images"),
        ({"masks": [5 * MASKS[1].astype(np.uint8)]}, "image-0: the mask must be True or False"),
        ({"masks": [MASKS[1][1:]]}, "image-0: the mask must be 11 x 9 x 5, not 10 x 9 x 5"),
        ({"masks": [np.zeros_like(MASKS[1])]}, "no pixel is inside any mask"),
        ({"slice_times": [[1.0, 2.0]]}, "image-0: the times of the slices must be 5, not 2"),
        ({"names": ["a", "b"]}, "2 names for 1 images"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(changes: dict[str, Any], match: str):
    given = {"images": [IMAGE], "affines": [AFFINE], "thicknesses": 3.0} | changes
    with pytest.raises(ValueError, match=match):
        slices_from_arrays(**given)


def test_lists_for_stacks_must_be_as_long():
    for given in ({"masks": MASKS[:1]}, {"fields_of_view": MASKS[:1]}, {"drawn": [True]}):
        with pytest.raises(ValueError, match=f"1 {next(iter(given))} for 2 stacks"):
            slices_from_stacks(STACKS, **given)  # pyright: ignore[reportArgumentType]


def test_slices_whose_arrays_do_not_fit_are_refused():
    slices, _ = small_slices()
    for changes, match in (
        ({"values": slices.values[1:]}, "coverage of slices must be"),
        ({"frames": slices.frames[1:]}, "frames of slices must be 10 x 4 x 4, not 9 x 4 x 4"),
        ({"mask": slices.mask * 3}, "the mask of slices must be True or False"),
        ({"shapes": slices.shapes + 1, "offsets": np.append(slices.offsets[:-1], 5)}, "slices need 5 pixels"),
    ):
        with pytest.raises(ValueError, match=match):
            replace(slices, **changes)


def test_fields_and_volumes_are_checked_and_converted():
    field = GaussianField([[0, 1, 2]], [[0, 0, 0]], [[1, 0, 0, 0]], [2])  # pyright: ignore[reportArgumentType]
    assert field.means.dtype == field.amplitudes.dtype == np.float64
    lattice = small_lattice()
    assert LatticeField(lattice, random_amplitudes(lattice).astype(float)).amplitudes.dtype == np.float32
    assert replace(lattice, support=lattice.support.astype(np.uint8)).n_sites == lattice.n_sites
    affine: Any = np.eye(4).tolist()
    volume = Volume(np.arange(24).reshape(2, 3, 4), affine, np.ones((2, 3, 4), np.uint8))
    assert volume.data.dtype == np.float32
    assert volume.mask is not None
    assert volume.mask.dtype == bool
    np.testing.assert_array_equal(volume.voxel_positions(volume.mask.astype(np.uint8)), volume.voxel_positions())
    for make, match in (
        (lambda: replace(field, means=np.full((1, 3), np.nan)), "means of a field must be finite"),
        (lambda: replace(field, quaternions=np.ones((1, 3))), "quaternions of a field must be 1 x 4, not 1 x 3"),
        (lambda: replace(field, amplitudes=np.ones(2)), "amplitudes of a field must be 1, not 2"),
        (lambda: replace(field, normalisation=0.0), "normalisation"),
        (lambda: replace(field, nearest=0), "nearest"),
        (lambda: replace(lattice, sigma=-1.0), "the sigma of a lattice"),
        (lambda: replace(lattice, support=lattice.support * 2), "the support of a lattice"),
        (lambda: LatticeField(lattice, np.ones((2, 2, 2))), "amplitudes of a field must be"),
        (lambda: replace(volume, mask=np.ones((2, 3, 5), bool)), "the mask of a volume must be 2 x 3 x 4"),
        (lambda: replace(volume, data=np.full((2, 3, 4), np.inf)), "a volume must be finite"),
    ):
        with pytest.raises(ValueError, match=match):
            make()


def test_arrays_that_are_fine_are_not_copied():
    slices, _ = small_slices()
    for made, name in ((STACKS[0], "data"), (STACKS[0], "mask"), (slices, "values"), (slices, "frames")):
        assert getattr(replace(made), name) is getattr(made, name)


def test_what_is_shown_of_them_is_one_line():
    lattice = small_lattice()
    shown = [
        repr(made)
        for made in (
            STACKS[1],
            small_slices()[0],
            lattice,
            LatticeField(lattice, random_amplitudes(lattice)),
            replace(LatticeField(lattice, random_amplitudes(lattice)).to_gaussians(), normalisation=0.1, nearest=50),
            Volume(IMAGE, AFFINE, MASKS[1]),
        )
    ]
    assert shown[0] == "Stack('b', 11 x 9 x 5 pixels of 1 x 1.4 x 3.3 mm, 2.5 mm thick, with a mask)"
    assert shown[-1] == "Volume(11 x 9 x 5 voxels of 1 x 1.4 x 3.3 mm, with a mask)"
    assert all("\n" not in line and len(line) < 120 and "array" not in line for line in shown)
    assert [type(made).__name__ for made in (lattice,)] == [shown[2].split("(")[0]]
    assert "normalised by 0.1, the 50 nearest" in shown[4]
