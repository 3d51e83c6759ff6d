"""Geometry: what is read and written lies where it should."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsvr.errors import InputError
from gsvr.io.nifti import read_stack, read_volume, stack_name, write_volume
from gsvr.model.geometry import rotation_from_vector
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume

Save = Callable[..., Path]
# float32 in the header: about 1e-7 of the largest coordinate
MM = 1e-4

angle = st.floats(-np.pi, np.pi)
spacing = st.floats(0.4, 6.0)
offset = st.floats(-400, 400)


def oblique(vector: tuple, spacings: tuple, origin: tuple, codes: str) -> np.ndarray:
    """Affine whose axes run in the directions of `codes` (such as LPS), then turned by `vector`."""
    axes = {"R": [1, 0, 0], "L": [-1, 0, 0], "A": [0, 1, 0], "P": [0, -1, 0], "S": [0, 0, 1], "I": [0, 0, -1]}
    directions = np.stack([axes[code] for code in codes], axis=1)
    affine = np.eye(4)
    affine[:3, :3] = rotation_from_vector(np.array(vector)) @ directions * spacings
    affine[:3, 3] = origin
    return affine


affines = st.builds(
    oblique,
    st.tuples(angle, angle, angle),
    st.tuples(spacing, spacing, spacing),
    st.tuples(offset, offset, offset),
    st.sampled_from(["RAS", "LAS", "LPS", "RSA", "PIR", "SLP"]),
)


def header_of(path: Path) -> nibabel.Nifti1Header:
    return nibabel.Nifti1Image.from_filename(path).header


def by_value(image: Stack | Volume) -> dict[float, np.ndarray]:
    """World position of every voxel, found by its value."""
    index = np.argwhere(np.ones(image.data.shape, dtype=bool))
    positions = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    return dict(zip(image.data.ravel().tolist(), positions, strict=True))


def assert_same_world(first: dict[float, np.ndarray], second: dict[float, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for value, position in first.items():
        np.testing.assert_allclose(second[value], position, atol=MM)


@settings(max_examples=40, deadline=None)
@given(affine=affines, suffix=st.sampled_from([".nii", ".nii.gz"]))
def test_volume_round_trip(affine: np.ndarray, suffix: str):
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"volume{suffix}"
        write_volume(path, data, affine)
        volume = read_volume(path)
        header = header_of(path)
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, affine, atol=MM)
    # Tools differ in which of the two they read.
    np.testing.assert_allclose(np.asarray(header.get_qform()), affine, atol=1e-3)
    assert (header["qform_code"], header["sform_code"]) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"


@settings(max_examples=40, deadline=None)
@given(affine=affines)
def test_stack_keeps_every_voxel_where_it_was(affine: np.ndarray):
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.nii"
        write_volume(path, data, affine)
        stack = read_stack(path, thickness=1.5)
    assert_same_world(by_value(stack), by_value(Volume(data, affine)))
    spacings = np.sort(stack.spacing)
    if spacings[2] > 1.21 * spacings[1]:
        assert stack.spacing[2] == spacings[2]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("told_by", ["spacing", "dim_info"])
def test_slice_axis_is_moved_last(
    save: Save, intensities: np.ndarray, affine: np.ndarray, axis: int, told_by: str, caplog
):
    if told_by == "dim_info":  # dim_info outranks a spacing that says otherwise
        affine[:3, :3] = np.diag([1.0, 1.0, 1.0])
        affine[(axis + 1) % 3, (axis + 1) % 3] = 4.0
        path = save("stack.nii.gz", intensities, affine, slice_axis=axis)
        expected = intensities.shape[axis]
    else:
        columns = np.insert([0, 1], axis, 2)
        affine = affine[:, [*columns, 3]]
        intensities = intensities.transpose(columns)
        path = save("stack.nii.gz", intensities, affine)
        expected = 5
    with caplog.at_level(logging.INFO):
        stack = read_stack(path, thickness=3.0)
    assert stack.n_slices == expected
    assert_same_world(by_value(stack), by_value(Volume(intensities, affine)))
    assert ("moved last" in caplog.text) == (axis != 2)


def test_equal_spacings_mean_the_last_axis(save: Save, intensities: np.ndarray, affine: np.ndarray):
    affine[:3, :3] = np.diag([1.15, 1.0, 1.0])
    assert read_stack(save("stack.nii", intensities, affine)).n_slices == intensities.shape[2]


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1.0), ("unknown", 1.0)])
def test_units_become_mm(save: Save, intensities, affine: np.ndarray, unit: str, factor: float):
    in_unit = affine.copy()
    in_unit[:3] *= factor
    stack = read_stack(save("stack.nii", intensities, in_unit, unit=unit))
    np.testing.assert_allclose(stack.affine, affine, atol=MM)
    assert stack.thickness == pytest.approx(3.0, abs=MM)


def test_image_without_orientation_is_warned_about(save: Save, intensities, affine, caplog):
    path = save("stack.nii", intensities, affine, codes=(0, 0))
    read_stack(path, thickness=3.0)
    assert "stack.nii: the header has no orientation" in caplog.text
    caplog.clear()
    read_stack(save("stack.nii", intensities, affine, codes=(1, 0)), thickness=3.0)
    read_stack(save("stack.nii", intensities, affine, codes=(0, 1)), thickness=3.0)
    assert caplog.text == ""


def test_forms_that_disagree_are_warned_about(tmp_path: Path, intensities, affine, caplog):
    image = nibabel.Nifti1Image(intensities, affine)
    image.set_sform(affine, code=1)
    shifted = affine.copy()
    shifted[0, 3] += 5
    image.set_qform(shifted, code=1)
    nibabel.save(image, tmp_path / "stack.nii")
    stack = read_stack(tmp_path / "stack.nii", thickness=3.0)
    assert "differ by up to 5 mm" in caplog.text
    np.testing.assert_allclose(stack.affine, affine, atol=MM)


def test_trailing_axis_of_length_one(save: Save, intensities: np.ndarray, affine: np.ndarray):
    stack = read_stack(save("stack.nii", intensities[..., None], affine), thickness=3.0)
    np.testing.assert_array_equal(stack.data, intensities)


def test_gantry_tilt_is_allowed_and_spacing_is_across_planes(save: Save, intensities, affine):
    affine[1, 2] = 1.5
    path = save("stack.nii", intensities, affine, codes=(0, 1))
    stack = read_stack(path)
    np.testing.assert_allclose(stack.affine, affine, atol=MM)
    assert stack.thickness == pytest.approx(3.0, abs=MM)


def test_thickness_and_times_come_from_the_sidecar(save: Save, intensities, affine, tmp_path: Path):
    path = save("stack.nii.gz", intensities, affine)
    (tmp_path / "stack.json").write_text('{"SliceThickness": 2.5, "SliceTiming": [4, 3, 2, 1, 0]}')
    stack = read_stack(path)
    assert stack.name == "stack"
    assert stack.thickness == 2.5
    np.testing.assert_array_equal(stack.slice_times, [4, 3, 2, 1, 0])
    assert read_stack(path, thickness=2.0).thickness == 2.0
    np.testing.assert_array_equal(read_stack(path, order="ascending").slice_times, [0, 1, 2, 3, 4])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mask_moves_with_its_stack(save: Save, intensities, affine: np.ndarray, axis: int):
    columns = np.insert([0, 1], axis, 2)
    affine, intensities = affine[:, [*columns, 3]], intensities.transpose(columns)
    inside = intensities > 100
    stack = read_stack(save("stack.nii", intensities, affine), save("mask.nii", inside.astype(np.uint8), affine), 3.0)
    assert stack.mask is not None
    np.testing.assert_array_equal(stack.mask, stack.data > 100)


def test_equal_images_give_equal_bytes_and_masks_are_small_integers(tmp_path: Path, affine: np.ndarray):
    mask = np.random.default_rng(0).random((8, 9, 10)) > 0.5
    write_volume(tmp_path / "first.nii.gz", mask, affine)
    write_volume(tmp_path / "second.nii.gz", mask, affine)
    content = (tmp_path / "first.nii.gz").read_bytes()
    assert content == (tmp_path / "second.nii.gz").read_bytes()
    assert content[4:8] == bytes(4)  # no time of writing in the gzip header
    image = nibabel.Nifti1Image.from_filename(tmp_path / "first.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
    write_volume(tmp_path / "float64.nii", np.ones((2, 2, 2)), affine)
    assert header_of(tmp_path / "float64.nii").get_data_dtype() == np.float32


def test_shear_goes_into_the_sform_alone(tmp_path: Path, affine: np.ndarray):
    affine[0, 1] = 0.6
    write_volume(tmp_path / "sheared.nii", np.ones((4, 5, 6)), affine)
    header = header_of(tmp_path / "sheared.nii")
    assert header["qform_code"] == 0
    np.testing.assert_allclose(np.asarray(header.get_sform()), affine, atol=MM)


def test_write_failure_leaves_nothing(tmp_path: Path, affine: np.ndarray):
    with pytest.raises(InputError, match=r"volume\.mha: the name of a NIfTI file must end"):
        write_volume(tmp_path / "volume.mha", np.ones((2, 2, 2)), affine)
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write_volume(tmp_path / "folder.nii", np.ones((2, 2, 2)), affine)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.nii"]


def test_names_of_stacks():
    assert stack_name(Path("a") / "sub-01_acq-0.8_T2w.nii.gz") == "sub-01_acq-0.8_T2w"
    assert stack_name("stack.nii") == "stack"


def test_real_stacks(shared_data: Path, caplog):
    folder = shared_data / "fetal-mial-sub-01"
    for run in (1, 3, 5):  # axial, coronal and sagittal
        stem = folder / f"sub-01_run-{run}"
        stack = read_stack(f"{stem}_T2w.nii.gz", f"{stem}_desc-brain_mask.nii.gz")
        assert stack.thickness == 3.0
        assert stack.spacing[2] == pytest.approx(3.3, abs=1e-3)
        assert stack.n_slices == 22
        assert stack.mask is not None
        assert 0.005 < stack.mask.mean() < 0.2
    assert caplog.text == ""


def test_mask_saved_with_slightly_other_numbers(shared_data: Path, caplog: pytest.LogCaptureFixture):
    folder = shared_data / "svrtk-simulated"
    stack = read_stack(folder / "stack-2.nii.gz", folder / "mask-for-stack-2.nii.gz", thickness=2.5)
    assert stack.n_slices == 75
    assert stack.mask is not None
    assert "mask" not in caplog.text.replace("mask-for", "")
    read_stack(folder / "stack-1.nii.gz", folder / "mask-for-stack-2.nii.gz", thickness=2.5)
    assert "mask-for-stack-2.nii.gz is on another grid than its image" in caplog.text
