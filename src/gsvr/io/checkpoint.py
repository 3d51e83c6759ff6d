"""A reconstruction that was put aside, in a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gsvr.errors import InputError
from gsvr.io.field import check_tensors, field_from, field_tensors, part_of, read_tensors, write_tensors
from gsvr.io.record import to_plain
from gsvr.model.fields import SumField
from gsvr.solver.checkpoint import Checkpoint
from gsvr.solver.state import FieldChoice, Thickness

_FORMAT = "gsvr-checkpoint"
_VERSION = 2
# name -> axes, as in `gsvr.io.field`
_ARRAYS = {
    "mask": "p",
    "poses": "s44",
    "gains": "s",
    "bias": "k9",
    "pixel_weights": "q",
    "slice_weights": "s",
    "residuals": "s",
    "prediction": "q",
}
_NUMBERS = ("noise", "white_noise", "prior_factor", "share")
# Names of a partner's arrays begin with this, and its header has this name.
_PARTNER = "partner"


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path
        Where to; usually ends in ``.safetensors``.
    checkpoint
        From `gsvr.solver.reconstruct.Progress.checkpoint`, in a callback.
    """
    tensors, header = _described(checkpoint)
    write_tensors(path, tensors, {"format": _FORMAT, "version": _VERSION} | header)


def _described(checkpoint: Checkpoint) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of a checkpoint, those of its partner among them, and what the header says of it."""
    tensors, header = field_tensors(checkpoint.field)
    arrays = {name: getattr(checkpoint, name) for name in _ARRAYS} | {"mask": checkpoint.mask.astype(np.uint8)}
    numbers = [getattr(checkpoint, name) for name in _NUMBERS]
    tensors |= arrays | {"numbers": np.array(numbers)}
    if checkpoint.diagonal is not None:
        tensors["diagonal"] = checkpoint.diagonal
    header |= {name: getattr(checkpoint, name) for name in ("stage", "iteration", "finished")}
    decided = {"choice": checkpoint.choice, "thickness": checkpoint.thickness}
    header |= {name: to_plain(asdict(told)) for name, told in decided.items() if told is not None}
    if checkpoint.partner is not None:
        of_partner, header[_PARTNER] = _described(checkpoint.partner)
        tensors |= {f"{_PARTNER}.{name}": array for name, array in of_partner.items()}
    return tensors, header


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another format or version, or its arrays do not fit together.
    """
    path = Path(path)
    return _checkpoint_from(*read_tensors(path, _FORMAT, _VERSION, "checkpoint", "write_checkpoint"), path)


def _checkpoint_from(tensors: Mapping[str, np.ndarray], header: Mapping[str, Any], path: Path) -> Checkpoint:
    """The checkpoint of `_described`."""
    field = field_from(tensors, header, path)
    check_tensors(tensors, _ARRAYS | {"numbers": str(len(_NUMBERS))}, path)
    diagonal = tensors.get("diagonal")
    if isinstance(field, SumField):
        raise InputError(f"{path}: a checkpoint keeps the parts of a sum apart: write it again")
    if diagonal is not None and diagonal.shape != field.amplitudes.shape:
        raise InputError(f"{path}: the array 'diagonal' does not fit the others: write it again")
    stage, iteration, finished = (header.get(name) for name in ("stage", "iteration", "finished"))
    if not (isinstance(stage, str) and isinstance(iteration, int) and isinstance(finished, bool)):
        raise InputError(f"{path} does not say where the reconstruction stood: write it again")
    arrays = {name: tensors[name] for name in _ARRAYS} | {"mask": tensors["mask"].astype(bool)}
    numbers = dict(zip(_NUMBERS, map(float, tensors["numbers"]), strict=True))
    partner = header.get(_PARTNER)
    if partner is not None and not isinstance(partner, dict):
        raise InputError(f"{path} does not say what its second field is: write it again")
    other = None if partner is None else _checkpoint_from(part_of(tensors, f"{_PARTNER}."), partner, path)
    if other is not None and (other.partner is not None or len(other.poses) != len(arrays["poses"])):
        raise InputError(f"{path}: its second field does not fit the first: write it again")
    return Checkpoint(
        *(stage, iteration, finished, field),
        diagonal=diagonal,
        partner=other,
        choice=_choice(header.get("choice"), path),
        thickness=_thickness(header.get("thickness"), path),
        **arrays,
        **numbers,
    )


def _choice(told: Any, path: Path) -> FieldChoice | None:
    """What decided on the final field, from the header."""
    if told is None:
        return None
    try:
        errors = {str(name): tuple(map(float, of_each)) for name, of_each in told["errors"].items()}
        return FieldChoice(float(told["share"]), float(told["prior_factor"]), int(told["pixels"]), errors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} does not say what decided on its field: write it again") from error


def _thickness(told: Any, path: Path) -> Thickness | None:
    """How thick slices were found to be, from the header."""
    if told is None:
        return None
    try:
        errors = {str(name): float(error) for name, error in told["errors"].items()}
        looks = float(told["factor"]), float(told["deviation"]), bool(told["used"])
        return Thickness(*looks, errors, bool(told["gaussian"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} does not say how thick its slices are: write it again") from error
