"""Slices from arrays in memory, and a reconstruction: no files. Run it with ``python examples/from_arrays.py``."""

from __future__ import annotations

import gsvr
from gsvr.simulation.simulate import SimulationOptions, simulate


def main() -> gsvr.Volume:
    """Reconstruct three stacks of a phantom that moved."""
    acquisition = SimulationOptions(n_stacks=3, in_plane_spacing=2.5, thickness=5.0)
    stacks = simulate(gsvr.brain_phantom(spacing=2.0), acquisition).stacks

    # what is in memory, whoever read it: arrays whose last axis runs through the slices, and affines voxel -> world
    slices = gsvr.slices_from_arrays(
        images=[stack.data for stack in stacks],
        affines=[stack.affine for stack in stacks],
        thicknesses=5.0,
        masks=[stack.mask for stack in stacks],
    )
    print(slices)

    # three stages instead of seven, for a phantom this coarse
    stages = (
        gsvr.Stage("stacks", spacing=5.0, binning=2, outer_iterations=5, inner_iterations=5, motion="stacks"),
        gsvr.Stage("slices", spacing=4.0, binning=1, outer_iterations=6, inner_iterations=5),
        gsvr.Stage("volume", spacing=2.5, binning=1, outer_iterations=3, inner_iterations=5, motion="none"),
    )
    options = gsvr.SolverOptions(stages=stages)
    result = gsvr.reconstruct(slices, options)
    # or, with all the files that the command writes: gsvr.write_result("brain.nii.gz", result, options)
    volume = gsvr.render_volume(result.field, 1.5, result.mask)
    print(result, volume, sep="\n")
    return volume


if __name__ == "__main__":
    main()
