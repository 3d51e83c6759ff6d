"""A reconstruction that was put aside, in a safetensors file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gsvr.errors import InputError
from gsvr.io.field import check_tensors, field_from, field_tensors, read_tensors, write_tensors
from gsvr.solver.checkpoint import Checkpoint

_FORMAT = "gsvr-checkpoint"
_VERSION = 1
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


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path
        Where to; usually ends in ``.safetensors``.
    checkpoint
        From `gsvr.solver.reconstruct.Progress.checkpoint`, in a callback.
    """
    tensors, header = field_tensors(checkpoint.field)
    arrays = {name: getattr(checkpoint, name) for name in _ARRAYS} | {"mask": checkpoint.mask.astype(np.uint8)}
    tensors |= arrays | {"numbers": np.array([checkpoint.noise, checkpoint.white_noise])}
    if checkpoint.diagonal is not None:
        tensors["diagonal"] = checkpoint.diagonal
    header |= {name: getattr(checkpoint, name) for name in ("stage", "iteration", "finished")}
    write_tensors(path, tensors, {"format": _FORMAT, "version": _VERSION} | header)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another format or version, or its arrays do not fit together.
    """
    path = Path(path)
    tensors, header = read_tensors(path, _FORMAT, _VERSION, "checkpoint", "write_checkpoint")
    field = field_from(tensors, header, path)
    check_tensors(tensors, _ARRAYS | {"numbers": "2"}, path)
    diagonal = tensors.get("diagonal")
    if diagonal is not None and diagonal.shape != field.amplitudes.shape:
        raise InputError(f"{path}: the array 'diagonal' does not fit the others: write it again")
    stage, iteration, finished = (header.get(name) for name in ("stage", "iteration", "finished"))
    if not (isinstance(stage, str) and isinstance(iteration, int) and isinstance(finished, bool)):
        raise InputError(f"{path} does not say where the reconstruction stood: write it again")
    arrays = {name: tensors[name] for name in _ARRAYS} | {"mask": tensors["mask"].astype(bool)}
    noise, white_noise = (float(number) for number in tensors["numbers"])
    return Checkpoint(
        stage, iteration, finished, field, noise=noise, white_noise=white_noise, diagonal=diagonal, **arrays
    )
