r"""Super-resolution without motion: three volumes of thick slices of a brain at rest become one isotropic volume.

The volumes are axial, coronal and sagittal, 1 x 1 x 5 mm, as routine examinations have them. What one would do
otherwise is to interpolate and average them. By command:

    gsvr reconstruct --motion none --input-stacks axial.nii.gz coronal.nii.gz sagittal.nii.gz \
        --output-volume brain.nii.gz

Takes half a minute; run it with ``python examples/super_resolution.py``. The picture is written to
super-resolution-output/.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

import gsvr
from gsvr.evaluation import Comparison, compare
from gsvr.model.geometry import transform_points
from gsvr.report.picture import PictureOptions, save_mid_slices
from gsvr.simulation.simulate import SimulationOptions, simulate
from gsvr.workflows.pipeline import Job, prepare_masks, run, slices_of

OUTPUT = Path("super-resolution-output")
AT_REST = SimulationOptions(n_stacks=3, in_plane_spacing=1.0, thickness=5.0, motion="none", gain=0.0, signal_loss=0.0)


def main(folder: Path = OUTPUT, quick: bool = False) -> dict[str, Comparison]:
    """Simulate, average, reconstruct, and compare with the truth.

    Parameters
    ----------
    folder
        Where the picture goes.
    quick
        Coarser pixels: a look at the machinery, not at what it can do.
    """
    truth = gsvr.brain_phantom(spacing=2.0 if quick else 0.8)
    acquisition = replace(AT_REST, in_plane_spacing=2.5, thickness=7.5) if quick else AT_REST
    stacks = simulate(truth, acquisition).stacks

    # nothing moves: a field on a lattice where the headers put the slices, then the final volume
    stages = gsvr.default_stages(motion="none")
    options = gsvr.fitting_options(stacks, gsvr.SolverOptions(stages=stages))
    masks = prepare_masks(stacks, options)
    done = run(Job(stacks, masks, slices_of(stacks, masks), options, {}), output_resolution=2.0 if quick else 0.8)

    volumes = {"interpolated and averaged": averaged(stacks, done.volume), "reconstructed": done.volume}
    scores = {name: compare(volume, truth, align=False) for name, volume in volumes.items()}
    for name, score in scores.items():
        print(f"{name}: {score.quality.psnr:.1f} dB, SSIM {score.quality.ssim:.3f}")
    shown = {name: gsvr.Volume(score.aligned, truth.affine) for name, score in scores.items()}
    rows = [("truth", truth), ("one of the volumes", acquired(stacks[0])), *shown.items()]
    save_mid_slices(folder / "comparison.png", rows, PictureOptions(panel_size=300))
    return scores


def averaged(stacks: list[gsvr.Stack], grid: gsvr.Volume) -> gsvr.Volume:
    """The mean of all stacks, each interpolated by cubic splines, on the grid of another volume."""
    index = np.moveaxis(np.indices(grid.data.shape), 0, -1).reshape(-1, 3).astype(np.float64)
    world = transform_points(grid.affine, index)
    total = np.zeros(len(index))
    for stack in stacks:
        at = transform_points(np.linalg.inv(stack.affine), world)
        total += ndimage.map_coordinates(stack.data, at.T, order=3, mode="nearest")
    return gsvr.Volume((total / len(stacks)).reshape(grid.data.shape).astype(np.float32), grid.affine, grid.mask)


def acquired(stack: gsvr.Stack) -> gsvr.Volume:
    """A stack as a volume, to look at."""
    return gsvr.Volume(stack.data, stack.affine, stack.mask)


if __name__ == "__main__":
    main()
