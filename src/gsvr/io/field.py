"""A fitted field in a safetensors file: plain arrays and JSON, nothing that runs code when loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path
from gsvr.io.record import to_plain
from gsvr.masks.options import MaskOptions
from gsvr.model.fields import Field, GaussianField, Lattice, LatticeField, SumField, check_field
from gsvr.model.validation import as_mask, check_extent
from gsvr.model.volume import Volume

_FORMAT = "gsvr-field"
_VERSION = 1
# One entry only: the order of several entries in a safetensors header changes from run to run.
_HEADER_ENTRY = "gsvr"

# name -> axes; a letter stands for the same length everywhere, a digit for itself
_GAUSSIANS = {"means": "n3", "log_scales": "n3", "quaternions": "n4", "amplitudes": "n"}
_LATTICE = {"origin": "3", "spacing": "1", "sigma": "1", "support": "xyz", "amplitudes": "xyz"}
_MASK = {"mask": "ijk", "mask_affine": "44"}
_WIDEST_MARGIN = 100.0  # mm


@dataclass(frozen=True)
class StoredField:
    """What a model file holds.

    Attributes
    ----------
    field
        The field, in volume world (mm).
    metadata
        What the writer said about it, JSON types only.
    mask
        Anatomy of interest (volume world), as a volume's mask and data, or None.
    """

    field: Field
    metadata: dict[str, Any]
    mask: Volume | None = None

    @property
    def masks(self) -> MaskOptions:
        """How far outside the mask there were pixels (`margin` of the metadata), and the volume is shown."""
        return MaskOptions(margin=float(self.metadata.get("margin", MaskOptions.margin)))


def write_field(
    path: str | Path,
    field: Field,
    metadata: Mapping[str, Any] | None = None,
    mask: Volume | None = None,
) -> None:
    """Write a field, whole or not at all; equal fields give equal bytes.

    Parameters
    ----------
    path
        Where to; usually ends in ``.safetensors``.
    field
        The field, in volume world (mm).
    metadata
        Anything `gsvr.io.record.to_plain` can turn into JSON.
    mask
        A volume whose mask is the anatomy of interest (volume world); its data are not kept.

    Raises
    ------
    ValueError
        If the volume has no mask.
    """
    tensors, of_field = field_tensors(field)
    if mask is not None:
        if mask.mask is None:
            raise ValueError("the volume given as `mask` has no mask: give its voxels as Volume.mask")
        tensors |= {"mask": mask.mask.astype(np.uint8), "mask_affine": mask.affine}
    header = {"format": _FORMAT, "version": _VERSION, **of_field, "metadata": to_plain(metadata or {})}
    write_tensors(path, tensors, header)


def field_tensors(field: Field) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of a field, and what the header says of it; those of the parts of a sum are named after their number."""
    if isinstance(field, SumField):
        parts = [field_tensors(part) for part in field.parts]
        tensors = {f"{number}.{name}": array for number, part in enumerate(parts) for name, array in part[0].items()}
        return tensors, {"kind": "sum", "parts": [header for _, header in parts]}
    if isinstance(field, LatticeField):
        lattice = field.lattice
        tensors = {
            "origin": np.asarray(lattice.origin, dtype=np.float64),
            "spacing": np.array([lattice.spacing], dtype=np.float64),
            "sigma": np.array([lattice.sigma], dtype=np.float64),
            "support": lattice.support.astype(np.uint8),
            "amplitudes": field.amplitudes,
        }
        return tensors, {"kind": "lattice"}
    given = {"normalisation": field.normalisation, "nearest": field.nearest}
    header = {"kind": "gaussians"} | {name: value for name, value in given.items() if value is not None}
    return {name: getattr(field, name) for name in _GAUSSIANS}, header


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Write arrays and a header as a safetensors file, whole or not at all."""
    content = save(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
        {_HEADER_ENTRY: json.dumps(header, allow_nan=False)},
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(
    path: Path, format_name: str, version: int, what: str, writer: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_tensors` wrote; messages speak of `what` is in the file, and of the function that writes such.

    Raises
    ------
    InputError
        If the file is missing, damaged, or of another format or version.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist or is not a file: check the name")
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER_ENTRY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path} is not a readable {what} file (.safetensors): give one, or write it again") from error
    if not isinstance(header, dict) or header.get("format") != format_name:
        raise InputError(f"{path} is not a {what} written by gsvr: give a file of `{writer}`")
    if header.get("version") != version:
        raise InputError(
            f"{path} has version {header.get('version')!r} of the {what} format, this gsvr reads {version}: "
            "use the gsvr that wrote it"
        )
    return tensors, header


def read_field(path: str | Path) -> StoredField:
    """Read what `write_field` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another format or version, or its arrays do not fit together.
    """
    path = Path(path)
    tensors, header = read_tensors(path, _FORMAT, _VERSION, "model", "write_field")
    metadata = header.get("metadata")
    field = field_from(tensors, header, path)
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: its metadata are missing: write it again")
    margin = metadata.get("margin", MaskOptions.margin)
    if not isinstance(margin, int | float) or not 0 <= margin <= _WIDEST_MARGIN:
        raise InputError(f"{path}: its margin is no distance in mm: write it again")
    if "mask" not in tensors and "mask_affine" not in tensors:
        return StoredField(field, metadata)
    check_tensors(tensors, _MASK, path)
    try:
        inside = as_mask("the mask", tensors["mask"], (None, None, None))
        mask = Volume(inside.astype(np.float32), tensors["mask_affine"], inside)
        check_extent("the mask", mask.affine @ np.append(inside.shape, 1.0), mask.affine)
    except ValueError as error:
        raise InputError(f"{path}: {error}: write it again") from error
    if not inside.any():
        raise InputError(f"{path}: the mask is empty: write it again")
    return StoredField(field, metadata, mask)


def field_from(tensors: Mapping[str, np.ndarray], header: Mapping[str, Any], path: Path) -> Field:
    """The field of `field_tensors`."""
    if header.get("kind") != "sum":
        return _part_from(tensors, header, path)
    headers = header.get("parts")
    if not (isinstance(headers, list) and headers and all(isinstance(of_part, dict) for of_part in headers)):
        raise InputError(f"{path} does not say what its field is the sum of: write it again")
    parts = [_part_from(part_of(tensors, f"{number}."), header, path) for number, header in enumerate(headers)]
    try:
        return SumField(tuple(parts))
    except ValueError as error:
        raise InputError(f"{path}: {error}: write it again") from error


def part_of(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _part_from(
    tensors: Mapping[str, np.ndarray], header: Mapping[str, Any], path: Path
) -> LatticeField | GaussianField:
    kind, layouts = header.get("kind"), {"lattice": _LATTICE, "gaussians": _GAUSSIANS}
    if not isinstance(kind, str) or kind not in layouts:
        raise InputError(f"{path} holds an unknown kind of field ({kind!r}): use the gsvr that wrote it")
    check_tensors(tensors, layouts[kind], path)
    try:
        field = _lattice_field(tensors) if kind == "lattice" else _gaussian_field(tensors, header, path)
        check_field(field)
    except ValueError as error:
        raise InputError(f"{path}: {error}: write it again") from error
    return field


def _lattice_field(tensors: Mapping[str, np.ndarray]) -> LatticeField:
    lattice = Lattice(
        origin=tensors["origin"],
        spacing=float(tensors["spacing"][0]),
        sigma=float(tensors["sigma"][0]),
        support=as_mask("the support of a lattice", tensors["support"], (None, None, None)),
    )
    return LatticeField(lattice, tensors["amplitudes"].astype(np.float32))


def _gaussian_field(tensors: Mapping[str, np.ndarray], header: Mapping[str, Any], path: Path) -> GaussianField:
    delta, nearest = header.get("normalisation"), header.get("nearest")
    # true is an int; infinite would make the field zero, and zero undefined far from all Gaussians
    is_number = isinstance(delta, float | int) and not isinstance(delta, bool)
    if delta is not None and not (is_number and 0 < delta < np.inf):
        raise InputError(f"{path}: its normalisation is {delta!r}, not a positive number: write it again")
    if nearest is not None and not (isinstance(nearest, int) and not isinstance(nearest, bool) and nearest > 0):
        raise InputError(f"{path}: its number of nearest Gaussians is {nearest!r}, not one from 1 on: write it again")
    normalisation = None if delta is None else float(delta)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as such
        arrays = {name: np.asarray(tensors[name], np.float32) for name in _GAUSSIANS}
    return GaussianField(**arrays, normalisation=normalisation, nearest=nearest)


def check_tensors(tensors: Mapping[str, np.ndarray], layout: Mapping[str, str], path: Path) -> None:
    """Refuse arrays that are missing, do not fit together, or hold numbers that are not finite."""
    lengths: dict[str, int] = {}
    for name, axes in layout.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.ndim != len(axes):
            raise InputError(f"{path}: the array {name!r} is missing or has the wrong shape: write it again")
        for axis, length in zip(axes, tensor.shape, strict=True):
            expected = int(axis) if axis.isdigit() else lengths.setdefault(axis, length)
            if length != expected:
                raise InputError(f"{path}: the array {name!r} does not fit the others: write it again")
        if tensor.dtype.kind not in "biuf":
            raise InputError(f"{path}: the array {name!r} holds no real numbers: write it again")
        if not np.isfinite(tensor).all():
            raise InputError(f"{path}: the array {name!r} holds NaN or infinite values: write it again")
