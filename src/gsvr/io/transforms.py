"""Poses of slices as JSON (RAS+) and as ITK transform files (LPS+). LPS is known here and nowhere else.

Every matrix maps points of acquired world to volume world, in both formats. ITK's resampling takes the map
from output points to input points: to resample the *volume* onto the grid of an acquired slice, use the
file as it is; to resample a *slice* onto the grid of the volume, use its inverse.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path
from gsvr.io.record import write_record

_FORMAT = "gsvr-poses"
_VERSION = 1
_CONVENTION = (
    "matrix: 4 x 4, rows first; maps acquired world to volume world, both RAS+ in mm, as "
    "x_volume = matrix @ [x, y, z, 1]. slice_index counts from 0 along the stack's through-plane axis."
)
_RESERVED = frozenset({"stack", "slice_index", "matrix"})
# Files of other tools carry six digits; a rotation that misses orthogonality by more is not one.
_RIGID_TOLERANCE = 1e-4

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS+ <-> LPS+


@dataclass(frozen=True)
class SlicePose:
    """Where one slice belongs.

    Attributes
    ----------
    stack
        Name of the stack.
    slice_index
        Index along the stack's through-plane axis, from 0.
    matrix
        Acquired world -> volume world (RAS+, mm), rigid.
    details
        Anything else to say about the slice: weight, gain, residual, whether it was used.
    """

    stack: str
    slice_index: int
    matrix: Float[np.ndarray, "4 4"]
    details: dict[str, float | int | bool | str] = field(default_factory=dict)


def write_poses_json(path: str | Path, records: Sequence[SlicePose]) -> None:
    """Write the poses of all slices as JSON, whole or not at all.

    The file holds ``format``, ``version``, ``convention`` (in words) and ``slices``: one object a slice with
    ``stack``, ``slice_index``, ``matrix`` and its details, NaN among them as null.

    Raises
    ------
    ValueError
        If a slice occurs twice, a matrix is not rigid, or a detail takes the name of another entry.
    """
    entries = []
    for record in records:
        clash = _RESERVED & record.details.keys()
        if clash:
            raise ValueError(f"details must not be called {', '.join(sorted(clash))}")
        if not _is_rigid(record.matrix):
            raise ValueError(f"the pose of {record.stack}, slice {record.slice_index}, is not rigid")
        entry = {"stack": record.stack, "slice_index": record.slice_index, "matrix": record.matrix}
        entries.append(entry | record.details)
    if len({(record.stack, record.slice_index) for record in records}) < len(records):
        raise ValueError("a slice has two poses: give stacks different names")
    content = {"format": _FORMAT, "version": _VERSION, "convention": _CONVENTION, "slices": entries}
    write_record(path, content)


def read_poses_json(path: str | Path) -> list[SlicePose]:
    """Read what `write_poses_json` wrote, in the same order; a detail that is null reads as NaN.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another format or version, or holds a matrix that is not rigid.
    """
    path = Path(path)
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is not readable JSON ({reason}): write the poses again") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{path} does not hold poses written by gsvr: give its JSON file of poses")
    if content.get("version") != _VERSION:
        raise InputError(
            f"{path} has version {content.get('version')!r} of the pose format, this gsvr reads {_VERSION}: "
            "use the gsvr that wrote it"
        )
    entries = content.get("slices")
    if not isinstance(entries, list):
        raise InputError(f"{path} has no list of slices: write the poses again")
    return [_parse_entry(entry, f"{path}: entry {number}") for number, entry in enumerate(entries)]


def _parse_entry(entry: Any, where: str) -> SlicePose:
    if not isinstance(entry, dict) or not entry.keys() >= _RESERVED:
        raise InputError(f"{where} lacks one of {', '.join(sorted(_RESERVED))}: write the poses again")
    stack, slice_index = entry["stack"], entry["slice_index"]
    is_name = isinstance(stack, str) and stack.isprintable()  # no zeros, no halves of a character
    if not is_name or not isinstance(slice_index, int) or isinstance(slice_index, bool):
        raise InputError(f"{where} names no slice (stack a string, slice_index a whole number): repair it")
    matrix = _as_matrix(entry["matrix"])
    if matrix is None or not _is_rigid(matrix):
        raise InputError(f"{where} ({stack}, slice {slice_index}) has no rigid 4 x 4 matrix: repair it")
    details = {name: np.nan if value is None else value for name, value in entry.items() if name not in _RESERVED}
    return SlicePose(stack, slice_index, matrix, details)


def _as_matrix(rows: Any) -> np.ndarray | None:
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return matrix if matrix.shape == (4, 4) else None


def write_itk_transform(path: str | Path, pose: Float[np.ndarray, "4 4"]) -> None:
    """Write a pose as an ITK text transform (``.tfm`` or ``.txt``), whole or not at all.

    The stored point transform maps acquired world to volume world, in LPS+ mm about centre 0, as an
    ``AffineTransform_double_3_3``: a matrix, unlike Euler angles, is exact at every angle.

    Raises
    ------
    ValueError
        If `pose` is not rigid.
    """
    if not _is_rigid(pose):
        raise ValueError("a slice's pose must be rigid")
    matrix = _FLIP @ pose @ _FLIP
    # Adding zero turns -0 into 0.
    numbers = np.concatenate([matrix[:3, :3].ravel(), matrix[:3, 3]]) + 0.0
    lines = [
        "#Insight Transform File V1.0",
        "#Transform 0",
        "Transform: AffineTransform_double_3_3",
        "Parameters: " + " ".join(repr(float(number)) for number in numbers),
        "FixedParameters: 0 0 0",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")


def _is_rigid(matrix: np.ndarray) -> bool:
    rotation = matrix[:3, :3]
    return bool(
        np.isfinite(matrix).all()
        and np.allclose(matrix[3], [0, 0, 0, 1], rtol=0, atol=0)
        and np.allclose(rotation @ rotation.T, np.eye(3), rtol=0, atol=_RIGID_TOLERANCE)
        and np.linalg.det(rotation) > 0
    )


def _read_text(path: Path) -> str:
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist or is not a file: check the name")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: give a file of poses") from error
