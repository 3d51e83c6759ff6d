"""What a scanner writes comes back: every voxel where it was, thickness, times; by this reader and by dcm2niix."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.pixels.utils import pixel_array
from pydicom.uid import RLELossless

from gsvr.io.dicom.acquired import Vendor
from gsvr.io.dicom.dcm2niix import convert
from gsvr.io.dicom.pixels import read_dicom_stack
from gsvr.io.dicom.study import Study, read_study
from gsvr.io.image import grid_distance
from gsvr.model.slices import Stack
from tests.io.dicom.exports import as_stored, export, oblique_stacks

VENDORS: tuple[Vendor, ...] = ("siemens", "ge", "philips")
ORIENTATIONS = ["axial", "coronal", "sagittal", "axial"]


@pytest.fixture(scope="module", params=[(vendor, enhanced) for vendor in VENDORS for enhanced in (False, True)])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    vendor, enhanced = request.param
    folder = tmp_path_factory.mktemp("export")
    export(folder, oblique_stacks(), vendor, enhanced)
    return read_study([folder])


def in_order_of(reference: Stack, read: Stack) -> Stack:
    """The stack with its slices in the direction of another."""
    if read.affine[:3, 2] @ reference.affine[:3, 2] > 0:
        return read
    affine = read.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (read.n_slices - 1)
    affine[:3, 2] *= -1
    return Stack(read.name, read.data[:, :, ::-1], affine, read.thickness, slice_times=read.slice_times[::-1])


def test_every_voxel_is_where_it_was(study: Study) -> None:
    assert study.left_out == []
    assert [stack.orientation for stack in study.stacks] == ORIENTATIONS
    for found, acquired in zip(study.stacks, oblique_stacks(), strict=True):
        read = read_dicom_stack(found)
        assert read.name.startswith(f"series-{found.first.series_number:03d}-")
        # converters run through slices one way, scanners the other
        assert np.linalg.det(read.affine[:3, :3]) > 0
        read = in_order_of(acquired, read)
        assert grid_distance(read.affine, acquired.affine, acquired.data.shape) < 1e-4
        np.testing.assert_allclose(read.data, as_stored(acquired), rtol=1e-5, atol=1e-6)
        assert read.thickness == pytest.approx(acquired.thickness)


def test_times_of_slices_as_far_as_headers_tell(study: Study) -> None:
    for found, acquired in zip(study.stacks, oblique_stacks(), strict=True):
        if "philips" in found.first.manufacturer:
            assert found.times is None
            continue
        read = in_order_of(acquired, read_dicom_stack(found))
        np.testing.assert_allclose(read.slice_times, acquired.slice_times * 1.5, atol=1e-3)


def test_dcm2niix_puts_every_voxel_in_the_same_place(study: Study, tmp_path: Path) -> None:
    for found in study.stacks:
        read = read_dicom_stack(found)
        converted = convert(found)
        path = tmp_path / f"{read.name}.nii.gz"
        path.write_bytes(converted.content)
        image = nibabel.load(path)
        assert isinstance(image, nibabel.Nifti1Image)
        to_index = np.linalg.inv(read.affine) @ np.asarray(image.affine)
        index = (
            np.einsum("ij,jxyz->ixyz", to_index[:3, :3], np.indices(image.shape)) + to_index[:3, 3, None, None, None]
        )
        nearest = np.rint(index).astype(int)
        assert np.abs(read.spacing[:, None, None, None] * (index - nearest)).max() < 1e-3
        np.testing.assert_allclose(image.get_fdata(), read.data[tuple(nearest)], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(nearest[2, 0, 0], converted.slices)
        assert converted.sidecar["SliceThickness"] == pytest.approx(found.thickness)


def test_gap_and_thickness_are_told_apart(tmp_path: Path) -> None:
    stack = oblique_stacks()[3]
    thin = Stack(stack.name, stack.data, stack.affine, 2.2, slice_times=stack.slice_times)
    export(tmp_path, [thin])
    found = read_study([tmp_path]).stacks[0]
    assert found.thickness == pytest.approx(2.2)
    assert found.spacing == pytest.approx(3.0)
    assert read_dicom_stack(found).thickness == pytest.approx(2.2)
    assert read_dicom_stack(found, 2.5).thickness == 2.5


@pytest.mark.parametrize("order", ["ascending", "interleaved"])
def test_an_order_that_is_given_counts_more_than_the_headers(order: str, tmp_path: Path) -> None:
    export(tmp_path, oblique_stacks()[:1])
    found = read_study([tmp_path]).stacks[0]
    times = read_dicom_stack(found, order=order).slice_times
    expected = {"ascending": [0, 1, 2, 3], "interleaved": [0, (found.n_slices + 1) // 2, 1]}[order]
    np.testing.assert_array_equal(times[: len(expected)], expected)


def test_compressed_by_pydicom(tmp_path: Path) -> None:
    paths = export(tmp_path / "plain", oblique_stacks()[:1])
    (tmp_path / "packed").mkdir()
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(tmp_path / "packed" / path.name)
    assert_same_images(tmp_path / "plain", tmp_path / "packed")


@pytest.mark.parametrize("tool", ["dcmcjpeg", "dcmcjpls"])
def test_compressed_by_dcmtk(tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} (DCMTK)")
    paths = export(tmp_path / "plain", oblique_stacks()[:1])
    (tmp_path / "packed").mkdir()
    for path in paths:
        subprocess.run([tool, path, tmp_path / "packed" / path.name], check=True)
    first = pydicom.dcmread(tmp_path / "packed" / paths[0].name)
    assert first.file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(pixel_array(first), pixel_array(pydicom.dcmread(paths[0])))
    assert_same_images(tmp_path / "plain", tmp_path / "packed")


def assert_same_images(first: Path, second: Path) -> None:
    one, other = (read_dicom_stack(read_study([folder]).stacks[0]) for folder in (first, second))
    np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_array_equal(one.affine, other.affine)
