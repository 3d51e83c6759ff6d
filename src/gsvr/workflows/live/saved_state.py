"""The state of an examination as files, to go on from after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path
from gsvr.io.field import read_field, write_field
from gsvr.io.transforms import SlicePose, read_poses_json, write_poses_json
from gsvr.model.bias_field import N_TERMS
from gsvr.model.fields import LatticeField
from gsvr.model.validation import as_numbers
from gsvr.solver.online.reconstruction import OnlineState
from gsvr.solver.reconstruct import Earlier


def write_state(folder: Path, state: OnlineState) -> None:
    """Write ``field.safetensors``, ``bias.json`` and, last of all, ``poses.json``."""
    _poses(folder).unlink(missing_ok=True)
    write_field(folder / "field.safetensors", state.field, {}, state.mask)
    with atomic_path(folder / "bias.json") as temporary:
        temporary.write_text(
            json.dumps({name: bias.tolist() for name, bias in state.earlier.bias.items()}), encoding="utf-8"
        )
    records = [SlicePose(stack, index, pose) for (stack, index), pose in state.poses.items()]
    write_poses_json(_poses(folder), records)


def read_state(folder: Path) -> OnlineState | None:
    """What `write_state` wrote; None if it is not there, or not whole: then the stacks are reconstructed anew.

    What was decided on the final field is not kept: the next one decides.
    """
    if not _poses(folder).is_file():
        return None
    try:
        stored = read_field(folder / "field.safetensors")
        records = read_poses_json(_poses(folder))
        content = json.loads((folder / "bias.json").read_text(encoding="utf-8"))
        bias = {str(name): as_numbers(f"the bias of {name}", own, (N_TERMS,)) for name, own in content.items()}
    except (InputError, OSError, ValueError, AttributeError):
        return None
    if not isinstance(stored.field, LatticeField) or stored.mask is None:
        return None
    poses = {(record.stack, record.slice_index): record.matrix for record in records}
    n_stacks = len({record.stack for record in records})
    return OnlineState(poses, n_stacks, stored.mask, Earlier(stored.field, bias))


def _poses(folder: Path) -> Path:
    return folder / "poses.json"
