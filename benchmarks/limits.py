"""Reconstructions without motion estimation: with no correction at all, and with the true poses.

The first is what one would have without slice-to-volume reconstruction, the second what perfect motion estimates would
give. Everything else is as in a reconstruction. Runs as a program so that its cost is its own:
``python -m benchmarks.limits uncorrected|known-poses STACK-FOLDER OUTPUT-VOLUME``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from gsvr.io.nifti import write_volume
from gsvr.io.transforms import read_poses_json
from gsvr.model.slices import Slices
from gsvr.render.volume import render_volume
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import StackInputs, fitting_options, prepare_slices, read_stacks

LIMITS = ("uncorrected", "known-poses")
RESOLUTION = 0.8


def without_motion(options: SolverOptions) -> SolverOptions:
    """A coarse stage and the last two, with poses that stay as they are."""
    coarse = next(stage for stage in options.stages if stage.binning == 2)
    stages = (replace(coarse, rounds=4), *options.stages[-2:])
    return replace(options, stages=tuple(replace(stage, motion="none") for stage in stages))


def true_poses_of(slices: Slices, path: Path) -> np.ndarray:
    """True pose of every slice, in the order of `slices`."""
    true = {(pose.stack, pose.slice_index): pose.matrix for pose in read_poses_json(path)}
    names = [slices.stack_names[number] for number in slices.stack_index]
    return np.stack([true[name, int(index)] for name, index in zip(names, slices.slice_index, strict=True)])


def main() -> None:
    """Reconstruct and write the volume."""
    limit, folder, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    masks = sorted(folder.glob("stack-*_mask.nii.gz"))
    paths = [mask.with_name(mask.name.replace("_mask", "")) for mask in masks]
    stacks = read_stacks(StackInputs(paths, masks, []))
    options = without_motion(fitting_options(stacks, SolverOptions()))
    slices, _ = prepare_slices(stacks, options)
    poses = true_poses_of(slices, folder / "truth_poses.json") if limit == "known-poses" else None
    result = reconstruct(slices, options, poses=poses)
    volume = render_volume(result.field, RESOLUTION, result.mask)
    write_volume(output, volume.data, volume.affine)


if __name__ == "__main__":
    main()
