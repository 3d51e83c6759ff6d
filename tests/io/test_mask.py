"""Masks: on the grid of their image in any order of the voxels, or on another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.io.mask import read_mask
from gsvr.io.nifti import read_stack, read_volume
from gsvr.model.geometry import rotation_from_vector, transform_points
from gsvr.model.volume import Volume

Save = Callable[..., Path]


def test_mask_stored_in_another_orientation(save: Save, intensities: np.ndarray, affine: np.ndarray):
    stack = read_stack(save("stack.nii", intensities, affine), thickness=3.0)
    inside = nibabel.Nifti1Image((intensities > 100).astype(np.uint8), affine)
    turned = nibabel.as_closest_canonical(inside).as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    assert turned.shape != inside.shape
    path = save("mask.nii", np.asarray(turned.dataobj), turned.affine)
    np.testing.assert_array_equal(read_mask(path, stack), intensities > 100)


@pytest.mark.parametrize(("scale", "above"), [(1.0, 0.5), (0.9, 0.5), (255.0, 0.0)])
def test_grey_masks(save: Save, intensities, affine: np.ndarray, scale: float, above: float):
    grey = (scale * (intensities - 1) / (intensities.max() - 1)).astype(np.float32)
    volume = read_volume(save("volume.nii", intensities, affine), save("mask.nii", grey, affine))
    np.testing.assert_array_equal(volume.mask, grey > above)


def test_mask_within_tolerance_of_its_grid(save: Save, intensities, affine: np.ndarray, caplog):
    volume = read_volume(save("volume.nii", intensities, affine))
    near, far = affine.copy(), affine.copy()
    near[0, 3] += 0.05
    far[0, 3] += 0.2
    inside = (intensities > 100).astype(np.uint8)
    for name, moved, told in (("near.nii", near, False), ("far.nii", far, True)):
        np.testing.assert_array_equal(read_mask(save(name, inside, moved), volume), inside)
        assert (f"{name} is on another grid" in caplog.text) == told


def test_a_mask_on_another_grid_is_resampled(save: Save, caplog):
    """A box of the world, written on a fine turned grid: its voxels are inside on every other grid."""
    turn = np.eye(4)
    turn[:3, :3] = rotation_from_vector(np.array([0.3, -0.5, 0.8]))
    low, high = np.array([-12.0, -9.0, -15.0]), np.array([8.0, 14.0, 10.0])

    def inside_box(affine: np.ndarray, shape: tuple[int, ...], margin: float = 0.0) -> np.ndarray:
        points = transform_points(affine, np.moveaxis(np.indices(shape), 0, -1).astype(float))
        return np.all((points > low - margin) & (points < high + margin), axis=-1)

    fine = (
        turn @ np.diag([0.7, 0.7, 0.7, 1.0]) @ np.array([[1, 0, 0, -44], [0, 1, 0, -44], [0, 0, -1, 44], [0, 0, 0, 1]])
    )
    path = save("mask.nii.gz", inside_box(fine, (90, 90, 90)).astype(np.uint8), fine)
    for axes in (np.eye(3), np.eye(3)[:, [2, 0, 1]] * [1, -1, 1]):
        affine = np.eye(4)
        affine[:3, :3] = axes * [1.3, 1.3, 4.0]
        affine[:3, 3] = -affine[:3, :3] @ [14.5, 13.5, 5.5]
        volume = Volume(np.zeros((30, 28, 12), np.float32), affine)
        found = read_mask(path, volume)
        assert np.all(found[inside_box(affine, found.shape, -0.7)])
        assert not np.any(found & ~inside_box(affine, found.shape, 0.7))
    assert "mask.nii.gz is on another grid than its image, and was resampled onto it" in caplog.text


def test_a_mask_elsewhere_is_refused(save: Save, intensities, affine: np.ndarray):
    volume = Volume(intensities, affine)
    affine = affine.copy()
    affine[0, 3] += 100
    with pytest.raises(InputError, match=r"mask\.nii does not meet its image"):
        read_mask(save("mask.nii", (intensities > 100).astype(np.uint8), affine), volume)
