"""``gsvr plane``: what it writes, where it lies, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Image
from PIL import Image

from gsvr.io.field import write_field
from gsvr.model.fields import LatticeField
from gsvr.render.plane import plane_frame, render_plane
from tests.acquisitions import random_amplitudes, small_lattice
from tests.cli.conftest import Command


@pytest.fixture
def field(tmp_path: Path) -> LatticeField:
    lattice = small_lattice()
    field = LatticeField(lattice, random_amplitudes(lattice))
    write_field(tmp_path / "f.safetensors", field)
    return field


def test_a_plane_as_a_slice_lies_where_it_was_asked_for(tmp_path: Path, field: LatticeField, gsvr_command: Command):
    result = gsvr_command(
        *("plane", tmp_path / "f.safetensors", "--output-image", tmp_path / "p.nii.gz", "--centre", 1, -2, 0.5),
        *("--normal", -0.5, 1, -0.3, "--size", 40, 30, "--spacing", 0.7, "--thickness", 3),
    )
    assert result.exit_code == 0, result.output
    image = Nifti1Image.from_filename(tmp_path / "p.nii.gz")
    assert image.shape == (40, 30, 1)
    assert image.affine is not None
    np.testing.assert_allclose(image.affine @ [19.5, 14.5, 0, 1], [1, -2, 0.5, 1], atol=1e-4)
    assert voxel_sizes(image.affine) == pytest.approx([0.7, 0.7, 3.0], rel=1e-5)
    frame = plane_frame(np.array([1, -2, 0.5]), np.array([-0.5, 1, -0.3]), (40, 30), (0.7, 0.7))
    expected = render_plane(field, frame, (40, 30), (0.7, 0.7), 3.0)
    np.testing.assert_allclose(image.get_fdata()[:, :, 0], expected, atol=1e-6)


def test_a_picture_has_up_on_top_and_the_middle_in_the_middle(tmp_path: Path, gsvr_command: Command):
    """One Gaussian, to the patient's right and front."""
    lattice = small_lattice()
    amplitudes = np.zeros(lattice.shape, np.float32)
    amplitudes[6, 5, 4] = 1.0  # +4 mm to the right, +2 mm to the front
    write_field(tmp_path / "f.safetensors", LatticeField(lattice, amplitudes))
    words = ("plane", tmp_path / "f.safetensors", "--output-image", tmp_path / "p.png", "--size", 41, "--spacing", 0.5)
    assert gsvr_command(*words).exit_code == 0
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    row, column = np.argwhere(picture == picture.max()).mean(axis=0)
    # seen from the feet the patient's right is on the left; pixels are 0.5 mm, the middle is (20, 20)
    assert (row, column) == (20 - 4, 20 - 8)


def test_a_plane_beside_the_field_is_refused(tmp_path: Path, field: LatticeField, gsvr_command: Command):
    words = ("plane", tmp_path / "f.safetensors", "--output-image", tmp_path / "p.png", "--spacing", 0.5)
    for centre in ((0, 0, 500), (300, 0, 0), (0, 0, 60)):
        result = gsvr_command(*words, "--centre", *centre)
        assert result.exit_code == 2
        assert "does not meet the field: give a --centre near 0 0 0 mm" in result.stderr.replace("-0 ", "0 ")
    assert not list(tmp_path.glob("p.*"))
    assert gsvr_command(*words, "--centre", 0, 0, 11).exit_code == 0  # its outermost Gaussians stand 9 mm away


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--output-image", "p.jpg"), "must end in"),
        (("--output-image", "p.png", "--normal", 0, 0, 0), "points nowhere"),
        (("--output-image", "p.png", "--normal", 0, 1), "three numbers"),
        (("--output-image", "p.png", "--size", 1, 2, 3), "one or two"),
        (("--output-image", "p.png", "--size", 0), "between 1"),
        (("--output-image", "p.png", "--thickness", -1), "zero or more"),
        (("--output-image", "p.png", "--thickness", 1e-300), "zero or more"),
        (("--output-image", "p.png", "--thickness", 1e30), "zero or more"),
        (("--output-image", "p.png", "--centre", 1e30, 0, 0), "--centre lies more than"),
        (("--output-image", "p.png", "--profile", "round"), "unknown slice profile"),
        (("--output-image", "p.png", "--spacing", 0), "resolution between"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, field: LatticeField, gsvr_command: Command, words: tuple, message: str
):
    result = gsvr_command("plane", tmp_path / "f.safetensors", words[0], tmp_path / words[1], *words[2:])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.glob("p.*"))


def test_a_normal_of_any_length(tmp_path: Path, field: LatticeField, gsvr_command: Command):
    pixels = []
    for length in (1, 1e-300, 1e300):
        words = ("plane", tmp_path / "f.safetensors", "--output-image", tmp_path / "p.nii.gz", "--size", 20)
        result = gsvr_command(*words, "--spacing", 1, "--normal", length, -0.5 * length, 0.25 * length)
        assert result.exit_code == 0, result.output
        pixels.append(Nifti1Image.from_filename(tmp_path / "p.nii.gz").get_fdata())
    np.testing.assert_allclose(pixels[1:], [pixels[0]] * 2, atol=1e-6)
