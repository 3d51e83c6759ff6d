"""Which field each preset leaves, and that ``gsvr render`` and ``gsvr plane`` see in it what the volume shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

import gsvr.workflows.pipeline
from gsvr.io.field import read_field
from gsvr.io.nifti import read_volume
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.solver.schedule import Stage
from tests.cli.conftest import Command
from tests.moving_brain import SHORTEST_STAGES
from tests.stack_files import masks_of


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    def stages(_finest: float, free: bool, *_: float) -> tuple[Stage, ...]:
        return (*SHORTEST_STAGES[:-1], replace(SHORTEST_STAGES[-1], free=free))

    monkeypatch.setattr(gsvr.workflows.pipeline, "default_stages", stages)


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(("words", "kind"), [((), GaussianField), (("--preset", "fast"), LatticeField)])
def test_the_stored_field_is_the_volume(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path, words: tuple[str, ...], kind: type
):
    inputs = ("--input-stacks", *stacks, "--stack-masks", *masks_of(stacks), "--output-resolution", 1.5)
    outputs = ("--output-volume", tmp_path / "v.nii.gz", "--output-uncertainty", tmp_path / "u.nii.gz")
    result = gsvr_command("reconstruct", inputs, outputs, *words)
    assert result.exit_code == 0, result.stderr
    model = tmp_path / "v_field.safetensors"
    field = read_field(model).field
    assert isinstance(field, kind)
    assert json.loads((tmp_path / "v.json").read_text())["gaussians"] == field.n_gaussians
    volume = read_volume(tmp_path / "v.nii.gz", tmp_path / "v_mask.nii.gz")
    bright = float(volume.data.max())
    assert bright > 0
    inside = np.asarray(volume.mask, dtype=bool)
    deviation = read_volume(tmp_path / "u.nii.gz").data
    assert np.isfinite(deviation).all()
    assert deviation[inside & (volume.data != 0)].min() > 0
    # rendered anew
    again = gsvr_command("render", model, "--output-volume", tmp_path / "r.nii.gz", "--output-resolution", 1.5)
    assert again.exit_code == 0, again.stderr
    rendered = read_volume(tmp_path / "r.nii.gz")
    np.testing.assert_allclose(rendered.affine, volume.affine, atol=1e-5)
    np.testing.assert_allclose(rendered.data, volume.data, rtol=0, atol=1e-4 * bright)
    # a plane through the voxels of one slice
    middle = np.array(volume.data.shape) // 2
    centre = (volume.affine @ [*middle, 1])[:3]
    plane = tmp_path / "p.nii.gz"
    asked = gsvr_command(
        *("plane", model, "--output-image", plane, "--centre", *centre.tolist(), "--normal", 0, 0, 1),
        *("--size", 15, "--spacing", 1.5),
    )
    assert asked.exit_code == 0, asked.stderr
    image = Nifti1Image.from_filename(plane)
    assert image.affine is not None
    pixels = np.moveaxis(np.indices((15, 15)), 0, -1).reshape(-1, 2)
    homogeneous = np.concatenate([pixels, np.zeros((225, 1)), np.ones((225, 1))], axis=1)
    index = (np.linalg.inv(volume.affine) @ image.affine @ homogeneous.T)[:3].T
    np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
    chosen = tuple(np.rint(index).astype(int).T)
    seen = inside[chosen]
    assert seen.sum() > 50
    assert np.ptp(volume.data[chosen][seen]) > 0.1 * bright
    np.testing.assert_allclose(image.get_fdata().reshape(-1)[seen], volume.data[chosen][seen], atol=2e-3 * bright)
