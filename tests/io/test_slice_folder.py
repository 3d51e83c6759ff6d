from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.io.image import load_image
from gsvr.io.nifti import write_volume
from gsvr.io.slice_folder import SliceFolder, files_of_slices, read_slice_folder, write_slice_folder
from gsvr.io.transforms import read_poses_json
from gsvr.model.slices import Slices, slices_from_stacks
from tests.moving_brain import moving_brain, true_poses

# mm; affines are stored as float32
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Slices, np.ndarray]:
    """Three stacks of a moving brain, slice by slice where they truly belong; not to be changed."""
    simulation = moving_brain("moderate")
    slices = slices_from_stacks(simulation.stacks)
    poses = true_poses(slices, simulation)
    folder = tmp_path_factory.mktemp("slices")
    write_slice_folder(folder, slices, poses, slices.values)
    return folder, slices, poses


@pytest.fixture
def written(kept, tmp_path: Path) -> tuple[Path, Slices, np.ndarray]:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(kept[0], tmp_path / "slices")), *kept[1:]


def cut(folder: SliceFolder) -> tuple[Slices, np.ndarray]:
    slices = slices_from_stacks(folder.stacks, fields_of_view=folder.recorded)
    return slices, folder.poses_of(slices)


def assert_same_pixels(slices: Slices, again: Slices, poses: np.ndarray, poses_again: np.ndarray) -> None:
    np.testing.assert_array_equal(again.shapes, slices.shapes)
    np.testing.assert_array_equal(again.values, slices.values)
    np.testing.assert_array_equal(again.mask, slices.mask)
    np.testing.assert_allclose(again.thicknesses, slices.thicknesses, rtol=1e-6)
    places, places_again = slices.pixel_positions(poses), again.pixel_positions(poses_again)
    assert np.linalg.norm(places - places_again, axis=1).max() < TOLERANCE


def test_slices_come_back_as_they_were_poses_included(written) -> None:
    folder, slices, poses = written
    again, poses_again = cut(read_slice_folder(folder))
    assert_same_pixels(slices, again, poses, poses_again)
    assert again.stack_names == slices.stack_names
    for name in ("stack_index", "slice_index", "times"):
        np.testing.assert_array_equal(getattr(again, name), getattr(slices, name))
    # acquired world is that of the stacks, too
    assert np.abs(again.frames - slices.frames).max() < TOLERANCE
    assert np.abs(poses_again - poses).max() < TOLERANCE


def test_the_list_says_which_slice_is_which(written) -> None:
    folder, slices, _ = written
    entries = read_poses_json(folder / "slices.json")
    assert [entry.details["file"] for entry in entries] == [f"{number}.nii.gz" for number in range(slices.n_slices)]
    assert [entry.slice_index for entry in entries] == slices.slice_index.tolist()
    assert [entry.details["time"] for entry in entries] == slices.times.tolist()
    image = load_image(folder / entries[9].details["file"])
    np.testing.assert_array_equal(image.data[:, :, 0], slices.image(9))


def test_folders_of_other_programs_have_no_list(written) -> None:
    folder, slices, poses = written
    (folder / "slices.json").unlink()
    found = read_slice_folder(folder)
    assert [stack.n_slices for stack in found.stacks] == [int((slices.stack_index == k).sum()) for k in range(3)]
    again, poses_again = cut(found)
    assert_same_pixels(slices, again, poses, poses_again)
    # each stack is one that could have been acquired there: the poses tell of the motion of its slices alone
    moved = np.linalg.norm(again.pixel_positions(poses_again) - again.pixel_positions(), axis=1)
    assert np.median(moved) < 8.0


def test_folders_as_nesvor_writes_them(kept, tmp_path: Path) -> None:
    """Pixels outside the mask are zero, and there are no files of masks; slices that show nothing are left out."""
    _, slices, poses = kept
    used = np.flatnonzero(slices.sum_per_slice(slices.mask) > 0)
    for number, s in enumerate(used.tolist()):
        affine = poses[s] @ slices.frames[s] @ np.diag([*slices.pixel_spacings[s], slices.thicknesses[s], 1.0])
        seen = slices.image(s) * slices.image(s, slices.mask)
        image = nibabel.Nifti1Image(seen[:, :, None], affine)
        image.header.set_qform(affine, code="aligned")
        image.header.set_sform(affine, code="scanner")
        nibabel.save(image, tmp_path / f"{number}.nii.gz")
    found = read_slice_folder(tmp_path)
    assert [stack.mask for stack in found.stacks] == [None, None, None]
    again, poses_again = cut(found)
    assert again.n_slices == len(used)
    again = again.with_mask(again.values > 0)
    whole = slices.subset(used)
    whole = whole.with_mask(whole.mask & (whole.values > 0))
    seen = whole.values * whole.mask
    assert_same_pixels(replace(whole, values=seen), again, poses[used], poses_again)


def test_slices_may_be_missing_and_the_order_given(written) -> None:
    folder, slices, poses = written
    for number in (3, 4, 17):
        (folder / f"{number}.nii.gz").unlink()
        (folder / f"mask_{number}.nii.gz").unlink()
    kept = np.setdiff1d(np.arange(slices.n_slices), (3, 4, 17))
    again, poses_again = cut(read_slice_folder(folder, thickness=2.5, order="ascending"))
    np.testing.assert_array_equal(again.slice_index, slices.slice_index[kept])
    np.testing.assert_array_equal(again.values, slices.subset(kept).values)
    assert np.abs(poses_again - poses[kept]).max() < TOLERANCE
    assert (again.thicknesses == 2.5).all()
    np.testing.assert_array_equal(again.times, again.slice_index)


def test_a_list_that_is_not_that_of_the_slices_is_not_believed(
    written, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, slices, poses = written
    turned = poses[::-1].copy()
    for number in range(slices.n_slices):
        affine = turned[number] @ slices.frames[number] @ np.diag([*slices.spacings[number], 3.0, 1.0])
        for name, image in ((f"{number}", slices.image(number)), (f"mask_{number}", slices.image(number, slices.mask))):
            write_volume(folder / f"{name}.nii.gz", image[:, :, None], affine)
    again, poses_again = cut(read_slice_folder(folder))
    assert "not where it says" in caplog.text
    assert_same_pixels(slices, again, turned, poses_again)


def test_left_handed_slices_and_slices_without_masks(written) -> None:
    folder, slices, poses = written
    image = load_image(folder / "2.nii.gz")
    affine = image.affine @ np.array([[-1.0, 0, 0, image.data.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    write_volume(folder / "2.nii.gz", image.data[::-1], affine)
    (folder / "mask_2.nii.gz").unlink()
    again, poses_again = cut(read_slice_folder(folder))
    order = np.lexsort((again.slice_index, again.stack_index))
    assert again.n_slices == slices.n_slices
    number = int(order[2])
    piece = again.subset(np.array([number]))
    assert piece.mask.all()
    bright = piece.pixel_positions(poses_again[[number]])[np.argmax(piece.values)]
    own = slices.subset(np.array([2]))
    assert np.linalg.norm(bright - own.pixel_positions(poses[[2]])[np.argmax(own.values)]) < 0.05


def test_what_cannot_be_used_is_said(written, tmp_path: Path) -> None:
    folder, slices, _ = written
    with pytest.raises(InputError, match="is not a folder"):
        read_slice_folder(folder / "0.nii.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no slices"):
        files_of_slices(tmp_path / "empty")
    assert len(files_of_slices(folder)) == 2 * slices.n_slices + 1
    extra = folder / f"{slices.n_slices}.nii.gz"
    extra.write_bytes((folder / "0.nii.gz").read_bytes())
    with pytest.raises(InputError, match=f"does not tell of slice {slices.n_slices}"):
        read_slice_folder(folder)
    extra.unlink()
    listed = (folder / "slices.json").read_text()
    (folder / "slices.json").write_text(listed.replace('"slice_index": 3', '"slice_index": 300000000', 1))
    with pytest.raises(InputError, match=r"tells of slice 300000000\d* of a stack"):
        read_slice_folder(folder)
    entries = json.loads(listed)
    entries["slices"][3]["matrix"][1][3] = 6268927
    (folder / "slices.json").write_text(json.dumps(entries))
    with pytest.raises(InputError, match=r"3\.nii\.gz would lie 6\d{6} mm from the other slices"):
        read_slice_folder(folder)
    (folder / "slices.json").write_text(listed)
    (folder / "mask_0.nii.gz").write_bytes((folder / "mask_20.nii.gz").read_bytes())
    with pytest.raises(InputError, match=r"mask_0\.nii\.gz is not on the grid of 0\.nii\.gz"):
        read_slice_folder(folder)
    (folder / "mask_0.nii.gz").unlink()
    (folder / "00.nii.gz").write_bytes((folder / "0.nii.gz").read_bytes())
    with pytest.raises(InputError, match="are both slice 0"):
        read_slice_folder(folder)
    (folder / "00.nii.gz").unlink()
    for number in np.flatnonzero(slices.stack_index == 1):
        image = load_image(folder / f"{number}.nii.gz")
        write_volume(folder / f"mask_{number}.nii.gz", np.zeros(image.data.shape, np.uint8), image.affine)
    with pytest.raises(InputError, match=f"the masks of all slices of {slices.stack_names[1]} are empty"):
        read_slice_folder(folder)
    for number in np.flatnonzero(slices.stack_index != 0):
        (folder / f"{number}.nii.gz").unlink()
    with pytest.raises(InputError, match="slices of one stack"):
        read_slice_folder(folder)
