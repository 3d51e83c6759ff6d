"""Files of every kind, damaged in hundreds of ways: a reader takes them or refuses them in one sentence, soon.

`benchmarks.fuzz` does the same with ten thousand files, through the commands, and to the end.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.mutations import (
    Mutation,
    changed_bytes,
    changed_header,
    changed_json,
    changed_tensors,
    changed_voxels,
    compressed,
)
from gsvr.errors import InputError
from gsvr.io.checkpoint import read_checkpoint, write_checkpoint
from gsvr.io.field import StoredField, read_field, write_field, write_tensors
from gsvr.io.nifti import read_mask, read_stack, read_volume, write_volume
from gsvr.io.sidecar import read_sidecar
from gsvr.io.transforms import SlicePose, read_poses_json, write_poses_json
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.render.volume import render_volume
from tests.acquisitions import random_amplitudes, small_lattice
from tests.io.test_checkpoint import checkpoint

FILES = 60  # damaged ones of each kind
MOST_SECONDS, MOST_MEGABYTES = 10.0, 1000.0
SHAPE = (6, 5, 4)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
VOLUME = Volume(np.arange(1.0, 121.0, dtype=np.float32).reshape(SHAPE), AFFINE)
STACK = Stack("stack", VOLUME.data, AFFINE, 3.0, None, np.arange(4.0))
LATTICE = small_lattice()
FIELD = LatticeField(LATTICE, random_amplitudes(LATTICE))
NIFTI = (changed_bytes, changed_header, changed_voxels)
ZIPPED = (changed_bytes, *map(compressed, NIFTI))
TEXT, TENSORS = (changed_bytes, changed_json), (changed_bytes, changed_tensors)
in_one_folder = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_sidecar(path: Path) -> None:
    path.write_text(json.dumps({"SliceThickness": 3.0, "SliceTiming": [0, 2, 1, 3]}))


def write_poses(path: Path) -> None:
    write_poses_json(path, [SlicePose("stack", k, np.eye(4), {"gain": 1.0}) for k in range(4)])


def check_image(data: np.ndarray) -> None:
    assert np.isfinite(data).all()
    assert data.any()


def check_field(stored: StoredField) -> None:
    """What is taken can be looked at."""
    check_image(render_volume(stored.field, 10.0, stored.mask).data)


def check_slices(poses: list[SlicePose]) -> None:
    assert all(np.isfinite(pose.matrix).all() for pose in poses)


@dataclass(frozen=True)
class Kind:
    """A kind of file: a good one, what is done to it, and what reads it."""

    name: str
    write: Callable[[Path], Any]
    mutations: tuple[Mutation, ...]
    read: Callable[[Path], Any]


def write_image(path: Path) -> None:
    write_volume(path, VOLUME.data, AFFINE)


KINDS = {
    "stack": Kind("s.nii", write_image, NIFTI, lambda path: check_image(read_stack(path).data)),
    "volume": Kind("v.nii.gz", write_image, ZIPPED, lambda path: check_image(read_volume(path).data)),
    "mask": Kind(
        "m.nii.gz",
        lambda path: write_volume(path, VOLUME.data > 40, AFFINE),
        ZIPPED,
        lambda path: check_image(read_mask(path, STACK)),
    ),
    "sidecar": Kind("s.json", write_sidecar, TEXT, lambda path: read_sidecar(path.with_suffix(".nii"))),
    "poses": Kind("p.json", write_poses, TEXT, lambda path: check_slices(read_poses_json(path))),
    "lattice": Kind(
        "f.safetensors", lambda path: write_field(path, FIELD), TENSORS, lambda path: check_field(read_field(path))
    ),
    "free Gaussians": Kind(
        "f.safetensors",
        lambda path: write_field(path, free_field()),
        TENSORS,
        lambda path: check_field(read_field(path)),
    ),
    "checkpoint": Kind(
        "c.safetensors", lambda path: write_checkpoint(path, checkpoint(FIELD, True)), TENSORS, read_checkpoint
    ),
}


def free_field() -> GaussianField:
    rng = np.random.default_rng(1)
    means, log_scales, quaternions = (rng.normal(size=(9, n)) for n in (3, 3, 4))
    return GaussianField(means, log_scales, quaternions, rng.random(9))


def outcome(read: Callable[[Path], Any], path: Path) -> str:
    """Taken or refused; everything else is an error."""
    started, refusal = time.process_time(), ""
    try:
        read(path)
    except InputError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert len(refusal) < 500 + len(str(path))
    assert time.process_time() - started < MOST_SECONDS
    return "refused" if refusal else "taken"


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(tmp_path: Path, kind: str):
    kind_of_file = KINDS[kind]
    path, mutations, read = tmp_path / kind_of_file.name, kind_of_file.mutations, kind_of_file.read
    kind_of_file.write(path)
    good = path.read_bytes()
    assert outcome(read, path) == "taken"
    before = peak_megabytes()
    outcomes = []
    for number in range(FILES):
        rng = np.random.default_rng([number, *kind.encode()])
        path.write_bytes(mutations[number % len(mutations)](good, rng))
        outcomes.append(outcome(read, path))
    assert outcomes.count("refused") > FILES / 10
    assert peak_megabytes() - before < MOST_MEGABYTES


@pytest.mark.parametrize("kind", KINDS)
@in_one_folder
@given(content=st.binary(max_size=500))
def test_bytes_that_are_no_such_file(tmp_path: Path, kind: str, content: bytes):
    path = tmp_path / KINDS[kind].name
    path.write_bytes(content)
    assert outcome(KINDS[kind].read, path) == "refused" or kind == "sidecar"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@in_one_folder
@given(thickness=values, timing=values | st.lists(st.floats() | st.integers(), max_size=6), direction=values)
def test_any_values_in_a_sidecar(tmp_path: Path, thickness: Any, timing: Any, direction: Any):
    content = {"SliceThickness": thickness, "SliceTiming": timing, "SliceEncodingDirection": direction}
    (tmp_path / "s.json").write_text(json.dumps(content))
    if outcome(lambda path: read_sidecar(path), tmp_path / "s.nii") == "taken":
        found = read_sidecar(tmp_path / "s.nii")
        assert found.slice_thickness is None or 0 < found.slice_thickness < np.inf
        assert np.isfinite(found.slice_timing or 0).all()


matrices = st.lists(st.lists(st.floats() | st.just(10**400), min_size=4, max_size=4), min_size=4, max_size=4)


@in_one_folder
@given(stack=values, index=values, matrix=values | matrices, more=values)
def test_any_values_in_poses(tmp_path: Path, stack: Any, index: Any, matrix: Any, more: Any):
    content = {"format": "gsvr-poses", "version": 1}
    content["slices"] = [{"stack": stack, "slice_index": index, "matrix": matrix, "gain": more}]
    (tmp_path / "p.json").write_text(json.dumps(content))
    outcome(lambda path: check_slices(read_poses_json(path)), tmp_path / "p.json")


numbers = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e30, 1e-30])


@in_one_folder
@given(
    name=st.sampled_from(["means", "log_scales", "quaternions", "amplitudes"]), number=numbers, everywhere=st.booleans()
)
def test_any_numbers_in_a_field(tmp_path: Path, name: str, number: float, everywhere: bool):
    field = free_field()
    array = np.array(getattr(field, name))
    array[... if everywhere else 0] = number
    arrays = {key: getattr(field, key) for key in ("means", "log_scales", "quaternions", "amplitudes")} | {name: array}
    path = tmp_path / "f.safetensors"
    write_tensors(path, arrays, {"format": "gsvr-field", "version": 1, "kind": "gaussians", "metadata": {}})
    outcome(lambda path: assert_finite(render_volume(read_field(path).field, 10.0).data), path)


def assert_finite(data: np.ndarray) -> None:
    assert np.isfinite(data).all()
