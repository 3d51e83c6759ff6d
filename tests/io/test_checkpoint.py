"""A checkpoint in a file: nothing is lost, to the bit, and a bad file is named."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from gsvr.errors import InputError
from gsvr.io.checkpoint import read_checkpoint, write_checkpoint
from gsvr.io.field import write_field
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.solver.checkpoint import Checkpoint
from gsvr.solver.state import FieldChoice, Thickness
from tests.acquisitions import random_amplitudes, small_lattice

LATTICE = small_lattice()
FIELD = LatticeField(LATTICE, random_amplitudes(LATTICE))
RNG = np.random.default_rng(1)
FREE = GaussianField(
    means=RNG.normal(size=(6, 3)).astype(np.float32),
    log_scales=RNG.normal(size=(6, 3)).astype(np.float32),
    quaternions=RNG.normal(size=(6, 4)).astype(np.float32),
    amplitudes=RNG.random(6, np.float32),
)


def checkpoint(field: LatticeField | GaussianField, diagonal: bool) -> Checkpoint:
    """Three slices, of eleven pixels as they were given and seven of their stage."""
    rng = np.random.default_rng(2)
    return Checkpoint(
        stage="motion, 2.5 mm",
        iteration=4,
        finished=True,
        field=field,
        mask=rng.random(11) > 0.5,
        poses=rng.normal(size=(3, 4, 4)),
        gains=rng.random(3),
        bias=rng.random((2, 9)),
        pixel_weights=rng.random(7, np.float32),
        slice_weights=rng.random(3),
        residuals=rng.random(3),
        noise=0.1,
        white_noise=0.07,
        prediction=rng.random(7, np.float32),
        diagonal=rng.random(field.amplitudes.shape, np.float32) if diagonal else None,
    )


@pytest.mark.parametrize(("field", "diagonal"), [(FIELD, True), (FREE, False)], ids=["lattice", "free"])
def test_round_trip(tmp_path: Path, field: LatticeField | GaussianField, diagonal: bool):
    written = checkpoint(field, diagonal)
    write_checkpoint(tmp_path / "c.safetensors", written)
    read = read_checkpoint(tmp_path / "c.safetensors")
    assert type(read.field) is type(field)
    for part in fields(Checkpoint):
        before, after = getattr(written, part.name), getattr(read, part.name)
        if part.name == "field":
            before, after = before.amplitudes, after.amplitudes
        assert np.asarray(after).dtype == np.asarray(before).dtype, part.name
        np.testing.assert_array_equal(after, before, err_msg=part.name)


def test_a_partner_is_kept(tmp_path: Path):
    partner = replace(checkpoint(FIELD, diagonal=True), prior_factor=0.25)
    choice = FieldChoice(0.6, 0.5, 120, {"lattice": (0.3, 0.2, 0.1), "average": (0.05,)})
    thickness = Thickness(1.3, 0.02, True, {"1": 0.1, "1.18": 0.05})
    written = replace(
        checkpoint(FREE, diagonal=False),
        **{"partner": partner, "share": 0.6, "prior_factor": 0.5, "choice": choice, "thickness": thickness},
    )
    write_checkpoint(tmp_path / "c.safetensors", written)
    read = read_checkpoint(tmp_path / "c.safetensors")
    assert (read.share, read.prior_factor) == (0.6, 0.5)
    assert read.partner is not None
    assert read.partner.prior_factor == 0.25
    np.testing.assert_array_equal(read.partner.field.amplitudes, FIELD.amplitudes)
    assert (read.choice, read.thickness) == (written.choice, written.thickness)
    np.testing.assert_array_equal(read.field.amplitudes, FREE.amplitudes)


def test_bad_files_are_named(tmp_path: Path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match=r"c\.safetensors does not exist"):
        read_checkpoint(path)
    write_field(path, FIELD)
    with pytest.raises(InputError, match=r"c\.safetensors is not a checkpoint"):
        read_checkpoint(path)
    write_checkpoint(path, checkpoint(FIELD, diagonal=True))
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["gsvr"])
    for change, header_change, message in (
        ({"gains": np.ones(2)}, {}, r"the array '\w+' does not fit"),
        ({"diagonal": np.ones((2, 2, 2), np.float32)}, {}, "the array 'diagonal' does not fit"),
        ({}, {"iteration": "four"}, "does not say where"),
        ({}, {"version": 0}, "has version 0"),
        ({}, {"choice": {"share": 1}}, "does not say what decided"),
        ({}, {"thickness": {"factor": "thick"}}, "does not say how thick"),
        ({}, {"partner": 3}, "does not say what its second field is"),
    ):
        save_file(tensors | change, path, {"gsvr": json.dumps(header | header_change)})
        with pytest.raises(InputError, match=rf"c\.safetensors.*{message}"):
            read_checkpoint(path)
