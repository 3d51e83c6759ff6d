"""Acquisitions as files, for tests of everything that starts from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsvr.io.nifti import write_volume
from gsvr.io.transforms import SlicePose, write_poses_json
from gsvr.model.slices import Stack
from gsvr.simulation.simulate import Simulation


def write_stack(folder: Path, stack: Stack, name: str | None = None) -> Path:
    """Write a stack, its mask as ``NAME_mask.nii.gz`` if it has one, and the thickness in a sidecar."""
    name = name or stack.name
    path = folder / f"{name}.nii.gz"
    write_volume(path, stack.data, stack.affine)
    if stack.mask is not None:
        write_volume(folder / f"{name}_mask.nii.gz", stack.mask, stack.affine)
    (folder / f"{name}.json").write_text(json.dumps({"SliceThickness": stack.thickness}))
    return path


def write_simulation(folder: Path, simulation: Simulation) -> list[Path]:
    """Write stacks and the truth under the names that ``gsvr simulate`` gives them; the paths of the stacks."""
    volume = simulation.volume
    write_volume(folder / "truth.nii.gz", volume.data, volume.affine)
    write_volume(folder / "truth_mask.nii.gz", np.asarray(volume.mask), volume.affine)
    records = [
        SlicePose(stack.name, k, pose)
        for stack, poses in zip(simulation.stacks, simulation.poses, strict=True)
        for k, pose in enumerate(poses)
    ]
    write_poses_json(folder / "truth_poses.json", records)
    return [write_stack(folder, stack) for stack in simulation.stacks]


def masks_of(stacks: Sequence[Path]) -> list[Path]:
    """Where `write_stack` put the masks."""
    return [path.with_name(path.name.replace(".nii.gz", "_mask.nii.gz")) for path in stacks]
