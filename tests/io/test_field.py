from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from gsvr.errors import InputError
from gsvr.io.field import read_field, write_field
from gsvr.model.fields import GaussianField, Lattice, LatticeField, SumField
from gsvr.model.volume import Volume


def lattice_field() -> LatticeField:
    random = np.random.default_rng(1)
    support = random.random((3, 4, 5)) > 0.3
    lattice = Lattice(np.array([-10.1, 3.3, 0.7]), 1.1, 0.825, support)
    return LatticeField(lattice, (random.random((3, 4, 5)) * support).astype(np.float32))


def gaussian_field(n: int = 7) -> GaussianField:
    random = np.random.default_rng(2)
    shapes = {"means": (n, 3), "log_scales": (n, 3), "quaternions": (n, 4), "amplitudes": (n,)}
    return GaussianField(**{key: random.random(shape).astype(np.float32) for key, shape in shapes.items()})


def test_lattice_round_trip(tmp_path: Path):
    field = lattice_field()
    write_field(tmp_path / "field.safetensors", field, {"profile": "slab", "stacks": np.arange(2)})
    stored = read_field(tmp_path / "field.safetensors")
    assert isinstance(stored.field, LatticeField)
    np.testing.assert_array_equal(stored.field.amplitudes, field.amplitudes)
    np.testing.assert_array_equal(stored.field.lattice.support, field.lattice.support)
    np.testing.assert_array_equal(stored.field.lattice.origin, field.lattice.origin)
    assert stored.field.lattice.spacing == field.lattice.spacing
    assert stored.field.lattice.sigma == field.lattice.sigma
    assert stored.metadata == {"profile": "slab", "stacks": [0, 1]}
    assert stored.mask is None


def test_gaussians_round_trip_with_mask(tmp_path: Path):
    field, mask = gaussian_field(), np.random.default_rng(3).random((4, 5, 6)) > 0.5
    affine = np.diag([0.8, 0.8, 0.8, 1.0])
    write_field(tmp_path / "field.safetensors", field, mask=Volume(np.zeros(mask.shape, np.float32), affine, mask))
    stored = read_field(tmp_path / "field.safetensors")
    assert isinstance(stored.field, GaussianField)
    for name in ("means", "log_scales", "quaternions", "amplitudes"):
        np.testing.assert_array_equal(getattr(stored.field, name), getattr(field, name))
    assert stored.mask is not None
    np.testing.assert_array_equal(stored.mask.mask, mask)
    np.testing.assert_array_equal(stored.mask.affine, affine)
    assert stored.metadata == {}


def test_how_far_beyond_the_mask_is_stored(tmp_path: Path):
    write_field(tmp_path / "field.safetensors", gaussian_field(), {"margin": 5.0})
    masks = read_field(tmp_path / "field.safetensors").masks
    assert (masks.margin, masks.shown) == (5.0, 4.5)
    write_field(tmp_path / "field.safetensors", gaussian_field())
    assert read_field(tmp_path / "field.safetensors").masks.shown == 2.0
    for wrong in (-1.0, 1e9, "wide", None):
        write_field(tmp_path / "field.safetensors", gaussian_field(), {"margin": wrong})
        with pytest.raises(InputError, match="its margin is no distance"):
            read_field(tmp_path / "field.safetensors")


def test_a_normalised_field_of_nearest_gaussians_stays_one(tmp_path: Path):
    path = tmp_path / "field.safetensors"
    write_field(path, replace(gaussian_field(), normalisation=1e-6, nearest=3))
    stored = read_field(path).field
    assert isinstance(stored, GaussianField)
    assert (stored.normalisation, stored.nearest) == (1e-6, 3)
    tensors, header = load_file(path), {"format": "gsvr-field", "version": 1, "kind": "gaussians", "metadata": {}}
    for change, message in (
        ({"nearest": 0}, "nearest Gaussians is 0"),
        ({"normalisation": -1.0}, "normalisation is -1"),
    ):
        save_file(tensors, path, {"gsvr": json.dumps(header | change)})
        with pytest.raises(InputError, match=message):
            read_field(path)


@pytest.mark.parametrize("delta", [None, 1e-7, 2.0])
def test_normalisation_round_trip(tmp_path: Path, delta: float | None):
    write_field(tmp_path / "field.safetensors", replace(gaussian_field(), normalisation=delta))
    stored = read_field(tmp_path / "field.safetensors").field
    assert isinstance(stored, GaussianField)
    assert stored.normalisation == delta


@pytest.mark.parametrize("delta", [-0.1, 0, "0.1", True, [1], float("inf"), float("nan")])
def test_a_normalisation_that_is_none_is_refused(tmp_path: Path, delta: object):
    path = tmp_path / "field.safetensors"
    header = {"format": "gsvr-field", "version": 1, "kind": "gaussians", "metadata": {}}
    write_field(path, gaussian_field())
    save_file(load_file(path), path, {"gsvr": json.dumps(header | {"normalisation": delta})})
    with pytest.raises(InputError, match=r"field\.safetensors: its normalisation is .*, not a positive number"):
        read_field(path)


def test_a_sum_round_trip(tmp_path: Path):
    field = SumField((lattice_field(), gaussian_field(5)))
    write_field(tmp_path / "field.safetensors", field, {"profile": "slab"})
    stored = read_field(tmp_path / "field.safetensors").field
    assert isinstance(stored, SumField)
    assert [type(part) for part in stored.parts] == [LatticeField, GaussianField]
    for name in ("means", "log_scales", "quaternions", "amplitudes"):
        np.testing.assert_array_equal(getattr(stored.to_gaussians(), name), getattr(field.to_gaussians(), name))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (None, "does not say what its field is the sum of"),
        ([], "does not say what its field is the sum of"),
        ([{"kind": "gaussians"}], "the array 'means' is missing"),
        ([{"kind": "lattice"}, {"kind": "sum"}], "unknown kind of field"),
        ([{"kind": "lattice"}, {"kind": "gaussians", "nearest": 3}], "cannot be parts of a sum"),
    ],
)
def test_a_sum_that_is_none_is_refused(tmp_path: Path, parts: object, message: str):
    path = tmp_path / "field.safetensors"
    write_field(path, SumField((lattice_field(), gaussian_field(5))))
    header = {"format": "gsvr-field", "version": 1, "kind": "sum", "parts": parts, "metadata": {}}
    save_file(load_file(path), path, {"gsvr": json.dumps(header)})
    with pytest.raises(InputError, match=message):
        read_field(path)


def test_views_in_another_memory_order_are_stored_right(tmp_path: Path):
    field = lattice_field()
    turned = LatticeField(field.lattice, np.asfortranarray(field.amplitudes))
    write_field(tmp_path / "field.safetensors", turned)
    stored = read_field(tmp_path / "field.safetensors").field
    np.testing.assert_array_equal(stored.amplitudes, field.amplitudes)


def test_bytes_repeat(tmp_path: Path):
    for name in ("first", "second"):
        write_field(tmp_path / name, gaussian_field(), {"b": 1, "a": {"y", "x"}})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_volume_without_a_mask_is_no_mask(tmp_path: Path):
    with pytest.raises(ValueError, match="no mask"):
        write_field(tmp_path / "field", gaussian_field(), mask=Volume(np.ones((2, 2, 2), np.float32), np.eye(4)))
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_files_are_named(tmp_path: Path):
    path = tmp_path / "field.safetensors"
    with pytest.raises(InputError, match=r"field\.safetensors does not exist"):
        read_field(path)
    write_field(path, gaussian_field())
    whole = path.read_bytes()
    for damaged in (b"", b"not a model", whole[:-5], whole[:40]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"field\.safetensors is not a readable model"):
            read_field(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a model written by gsvr"),
        ({"version": 2}, "version 2"),
        ({"kind": "splines"}, "splines"),
        ({"kind": ["lattice"]}, "unknown kind"),
        ({"kind": {}}, "unknown kind"),
        ({"kind": "lattice"}, "'origin' is missing"),
        ({"metadata": 1}, "metadata are missing"),
    ],
)
def test_wrong_format_version_or_kind(tmp_path: Path, change: dict, message: str):
    path = tmp_path / "field.safetensors"
    header = {"format": "gsvr-field", "version": 1, "kind": "gaussians", "metadata": {}}
    write_field(path, gaussian_field())
    tensors = load_file(path)
    save_file(tensors, path, {"gsvr": json.dumps(header)})
    read_field(path)
    save_file(tensors, path, {"gsvr": json.dumps(header | change)})
    with pytest.raises(InputError, match=message) as caught:
        read_field(path)
    assert str(path) in str(caught.value)


def test_file_of_another_program(tmp_path: Path):
    path = tmp_path / "network.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(InputError, match=r"network\.safetensors is not a model written by gsvr"):
        read_field(path)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("means", np.zeros((6, 3), dtype=np.float32)),
        ("quaternions", np.zeros((7, 3), dtype=np.float32)),
        ("amplitudes", np.zeros((7, 1), dtype=np.float32)),
        ("log_scales", np.full((7, 3), np.nan, dtype=np.float32)),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, name: str, tensor: np.ndarray):
    path = tmp_path / "field.safetensors"
    header = {"format": "gsvr-field", "version": 1, "kind": "gaussians", "metadata": {}}
    write_field(path, gaussian_field())
    save_file(load_file(path) | {name: tensor}, path, {"gsvr": json.dumps(header)})
    with pytest.raises(InputError, match=r"field\.safetensors: the array"):
        read_field(path)


def set_to(value: float, *place: int | slice) -> Callable[[np.ndarray], np.ndarray]:
    def changed(tensor: np.ndarray) -> np.ndarray:
        tensor = tensor.copy()
        tensor[place] = value
        return tensor

    return changed


DAMAGE = [
    (lattice_field, {"support": lambda tensor: tensor * 0}, "no Gaussians"),
    (lattice_field, {"support": set_to(7, 0)}, "True or False"),
    (lattice_field, {"sigma": set_to(0.0, 0)}, "sigma of a lattice"),
    (lattice_field, {"sigma": set_to(1e-300, 0)}, "too small or too large"),
    (lattice_field, {"sigma": set_to(500.0, 0)}, "too narrow or too wide"),
    (lattice_field, {"sigma": set_to(0.01, 0)}, "too narrow or too wide"),
    (lattice_field, {"spacing": set_to(-1.0, 0)}, "spacing of a lattice"),
    (lattice_field, {"spacing": set_to(1e200, 0)}, "away"),
    (lattice_field, {"origin": set_to(1e30, 1)}, "away"),
    (lattice_field, {"amplitudes": set_to(3e38, 1)}, "amplitudes"),
    (lattice_field, {"amplitudes": set_to(np.nan, 1)}, "amplitudes"),
    (gaussian_field, {"quaternions": set_to(0.0, 2)}, "quaternion"),
    (gaussian_field, {"log_scales": set_to(200.0, 3, 1)}, "too small or too large"),
    (gaussian_field, {"log_scales": set_to(-200.0, 3, 1)}, "too small or too large"),
    (gaussian_field, {"means": set_to(1e20, 3, 1)}, "away"),
    (gaussian_field, {"amplitudes": set_to(-3e38, 1)}, "amplitudes"),
    (gaussian_field, {"means": lambda tensor: tensor.astype(np.complex64)}, "means"),
    (gaussian_field, dict.fromkeys(("means", "log_scales", "quaternions", "amplitudes"), lambda t: t[:0]), "Gaussians"),
    (gaussian_field, {"mask": lambda tensor: tensor * 0}, "mask is empty"),
    (gaussian_field, {"mask_affine": set_to(0.0, slice(None), 1)}, "axes that span space"),
    (gaussian_field, {"mask_affine": set_to(1e30, 0, 3)}, "away"),
]


@pytest.mark.parametrize(("field", "damage", "message"), DAMAGE)
def test_fields_that_show_nothing_are_refused(tmp_path: Path, field: Callable, damage: dict, message: str):
    path = tmp_path / "field.safetensors"
    inside = np.ones((2, 3, 4), bool)
    write_field(path, field(), mask=Volume(inside.astype(np.float32), np.diag([1.0, 2, 3, 1]), inside))
    read_field(path)
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    tensors = load_file(path)
    save_file(tensors | {name: change(tensors[name]) for name, change in damage.items()}, path, header)
    with pytest.raises(InputError, match=message) as caught:
        read_field(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_half_precision_is_read_as_single(tmp_path: Path):
    path = tmp_path / "field.safetensors"
    write_field(path, gaussian_field())
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    save_file({name: tensor.astype(np.float16) for name, tensor in load_file(path).items()}, path, header)
    field = read_field(path).field
    assert field.amplitudes.dtype == np.float32
    np.testing.assert_allclose(field.amplitudes, gaussian_field().amplitudes, atol=1e-3)
