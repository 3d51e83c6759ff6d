"""Every way in which an input image can be unusable: one sentence that names the file."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.io.nifti import read_stack, read_volume

Save = Callable[..., Path]


def refusal(read: Callable[[], object], path: Path) -> str:
    """Read, expect one sentence that names the file, and return it."""
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def with_value(data: np.ndarray, *values: float) -> np.ndarray:
    changed = data.copy()
    changed.ravel()[: len(values)] = values
    return changed


BAD_VOXELS = {
    "four axes": (lambda data: np.stack([data, data], axis=3), "is 4-D (6 x 7 x 5 x 2)"),
    "one slice": (lambda data: data[:, :, :1], "single slice (6 x 7 x 1"),
    "one slice, first axis": (lambda data: data[:1], "single slice (1 x 7 x 5"),
    "two axes": (lambda data: data[:, :, 0], "single slice (6 x 7 x 1"),
    "not finite": (lambda data: with_value(data, np.nan, np.nan, np.inf), "2 NaN and 1 infinite"),
    "beyond float32": (lambda data: with_value(data.astype(np.float64), 1e300), "0 NaN and 1 infinite"),
    "beyond intensities": (lambda data: with_value(data, -1e20), "holds values up to 1e+20, which no scanner records"),
    "zero": (lambda data: data * 0, "every voxel is zero"),
    "constant": (lambda data: data * 0 + 7, "every voxel is 7"),
    "complex": (lambda data: data.astype(np.complex64), "complex voxels"),
    "colour": (lambda data: np.zeros(data.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]), "colour"),
}


@pytest.mark.parametrize("read", [read_stack, read_volume])
@pytest.mark.parametrize("case", BAD_VOXELS)
def test_bad_voxels(save: Save, intensities, affine: np.ndarray, case: str, read):
    change, expected = BAD_VOXELS[case]
    path = save("bad.nii.gz", change(intensities), affine)
    assert expected in refusal(lambda: read(path), path)


@pytest.mark.parametrize("value", [1e9, -1e12])
@pytest.mark.parametrize("sheet", [False, True])
def test_a_value_that_is_no_intensity(save: Save, intensities, affine: np.ndarray, value: float, sheet: bool):
    """Of a voxel or a whole slice; artefacts a thousand times brighter than anything else are left to the solver."""
    data = intensities.copy()
    where = (slice(None), slice(None), 2) if sheet else (1, 2, 2)
    data[where] = 1000 * intensities.max()
    read_stack(save("bright.nii.gz", data, affine))
    data[where] = value
    path = save("bad.nii.gz", data, affine)
    assert f"holds a value of {abs(value):.0e}" in refusal(lambda: read_stack(path), path)
    # a slice or two that show something between empty ones are no damage
    data[:] = 0
    data[2:4, 2:4, 2] = 1000
    read_stack(save("masked.nii.gz", data, affine))


def test_what_nibabel_finds_is_not_told(save: Save, intensities, affine: np.ndarray, capfd: pytest.CaptureFixture[str]):
    path = save("odd.nii", intensities, affine)
    content = bytearray(path.read_bytes())
    content[254:256] = (-1).to_bytes(2, "little", signed=True)  # sform_code
    path.write_bytes(content)
    read_stack(path)
    assert capfd.readouterr().err == ""


def replace_column(affine: np.ndarray, column: int, vector: list[float]) -> np.ndarray:
    changed = affine.copy()
    changed[:3, column] = vector
    return changed


def write_raw(path: Path, header: nibabel.Nifti1Header, data: np.ndarray) -> None:
    """Write a header as it is, which the image class would correct or refuse."""
    header.set_data_offset(352)
    path.write_bytes(header.binaryblock + bytes(4) + data.tobytes(order="F"))


BAD_AFFINES = {
    "zero axis": (lambda affine: replace_column(affine, 1, [0, 0, 0]), "unusable affine"),
    "parallel axes": (lambda affine: replace_column(affine, 1, [2, 0, 0]), "unusable affine"),
    "not finite": (lambda affine: replace_column(affine, 3, [np.nan, 0, 0]), "unusable affine"),
    "sheared in plane": (lambda affine: replace_column(affine, 1, [0.3, 1.2, 0]), "meet at 76.0 degrees"),
}


@pytest.mark.parametrize("case", BAD_AFFINES)
def test_bad_affine(tmp_path: Path, intensities, affine: np.ndarray, case: str):
    change, expected = BAD_AFFINES[case]
    image = nibabel.Nifti1Image(intensities, None)
    image.header.set_sform(change(affine), code=1)
    path = tmp_path / "bad.nii"
    write_raw(path, image.header, intensities)
    assert expected in refusal(lambda: read_stack(path, thickness=3.0), path)


def test_qform_that_is_no_rotation(tmp_path: Path, intensities: np.ndarray, affine: np.ndarray):
    image = nibabel.Nifti1Image(intensities, affine)
    image.set_sform(None)
    image.set_qform(affine, code=1)
    image.header["quatern_b"] = 3.0
    path = tmp_path / "bad.nii"
    write_raw(path, image.header, intensities)
    refusal(lambda: read_stack(path), path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("length", [0, 10, 200, 500])
def test_truncated(save: Save, intensities, affine: np.ndarray, suffix: str, length: int):
    path = save(f"cut{suffix}", intensities * np.float32(np.pi), affine)
    content = path.read_bytes()
    assert len(content) > length
    path.write_bytes(content[:length])
    refusal(lambda: read_stack(path), path)


def test_a_header_without_voxels(save: Save, intensities: np.ndarray, affine: np.ndarray):
    path = save("image.nii.gz", intensities, affine)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[44:46] = (0).to_bytes(2, "little")  # dim[2]
    content[108:112] = bytes(4)  # vox_offset
    path.write_bytes(gzip.compress(bytes(content)))
    assert "holds no voxels (6 x 0 x 5)" in refusal(lambda: read_volume(path), path)


def test_damaged_in_the_middle(save: Save, intensities: np.ndarray, affine: np.ndarray):
    path = save("damaged.nii.gz", intensities * np.float32(np.pi), affine)
    content = bytearray(path.read_bytes())
    content[400:460] = bytes(60)
    path.write_bytes(content)
    refusal(lambda: read_stack(path), path)


def test_end_is_missing(save: Save, intensities: np.ndarray, affine: np.ndarray):
    path = save("cut.nii.gz", intensities, affine)
    path.write_bytes(path.read_bytes()[:-1])
    refusal(lambda: read_stack(path), path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.nii", b"hello " * 100),
        ("text.nii.gz", gzip.compress(b"hello " * 100, mtime=0)),  # or workers call the case by other names
        ("not-compressed.nii.gz", b"hello " * 100),
        ("text.txt", b"hello"),
    ],
)
def test_not_an_image(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    refusal(lambda: read_stack(path), path)


def test_other_formats(tmp_path: Path, intensities: np.ndarray, affine: np.ndarray):
    path = tmp_path / "image.mgz"
    nibabel.save(nibabel.MGHImage(intensities, affine), path)  # pyright: ignore[reportArgumentType]
    assert "not a NIfTI image" in refusal(lambda: read_stack(path), path)


def test_missing_file_and_folder(tmp_path: Path):
    path = tmp_path / "absent.nii.gz"
    assert "does not exist" in refusal(lambda: read_stack(path), path)
    assert "is a folder" in refusal(lambda: read_stack(tmp_path), tmp_path)


@pytest.mark.parametrize("thickness", [0.0, -1.0, np.nan, 15.1, 3000.0])
def test_bad_thickness(save: Save, intensities, affine: np.ndarray, thickness: float):
    path = save("stack.nii", intensities, affine)
    assert "mm" in refusal(lambda: read_stack(path, thickness=thickness), path)


BAD_MASKS = {
    "empty": (lambda mask, affine: (mask * 0, affine), "is empty"),
    "not above half": (lambda mask, affine: (mask * np.float32(0.4), affine), "is empty"),
    "elsewhere": (lambda mask, affine: (mask, replace_column(affine, 3, [0, 15, 4])), "does not meet its image"),
    "not finite": (lambda mask, affine: (with_value(mask, np.nan), affine), "1 NaN"),
    "four axes": (lambda mask, affine: (np.stack([mask, mask], axis=3), affine), "4-D"),
}


@pytest.mark.parametrize("read", [read_stack, read_volume])
@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_mask(save: Save, intensities, affine: np.ndarray, case: str, read):
    change, expected = BAD_MASKS[case]
    image = save("image.nii", intensities, affine)
    path = save("mask.nii", *change((intensities > 100).astype(np.float32), affine))
    assert expected in refusal(lambda: read(image, path), path)


def test_missing_mask(save: Save, intensities: np.ndarray, affine: np.ndarray):
    path = save("image.nii", intensities, affine)
    absent = path.with_name("absent.nii")
    refusal(lambda: read_volume(path, absent), absent)


def header_of(shape: tuple[int, ...]) -> bytes:
    """A header that claims a shape of float32, with the four bytes that follow."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + bytes(4)


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz"])
def test_a_header_that_claims_more_than_there_is(tmp_path: Path, name: str):
    """Seven gigabytes, in a file of some hundred kilobytes: refused before memory is asked for."""
    path = tmp_path / name
    content = header_of((2000, 2000, 450)) + bytes(2**20)
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    tracemalloc.start()
    try:
        message = refusal(lambda: read_stack(path), path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert "ends before the 2000 x 2000 x 450 voxels of its header" in message


def test_no_more_is_read_than_the_header_says(tmp_path: Path):
    """What follows is read on to the checksum, but not kept; nobody waits for gigabytes of it."""
    path = tmp_path / "s.nii.gz"
    voxels = np.arange(7 * 6 * 5, dtype=np.float32).tobytes()
    path.write_bytes(gzip.compress(header_of((7, 6, 5)) + voxels + bytes(2**24)))
    tracemalloc.start()
    try:
        assert read_stack(path).data.max() == 7 * 6 * 5 - 1
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    path.write_bytes(gzip.compress(header_of((7, 6, 5)) + voxels + bytes(2**27), 1))
    assert "goes on long after the last voxel" in refusal(lambda: read_stack(path), path)
