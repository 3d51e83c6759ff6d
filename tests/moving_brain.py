"""A brain of half size that moves: reconstructed in seconds, and detailed enough for its motion to be found."""

from __future__ import annotations

from functools import cache

import numpy as np

from gsvr.evaluation import PoseErrors, pose_errors
from gsvr.model.geometry import identity_poses
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import Simulation, SimulationOptions, simulate
from gsvr.solver.schedule import Stage

# Coarse to fine as by default, but fewer rounds, and less coarse for the smaller brain.
QUICK_STAGES = (
    Stage("stacks", 4.0, 2, 3, 5, "stacks", 0.8),
    Stage("slices, 3 mm", 3.0, 2, 4, 5),
    Stage("slices, 2 mm", 2.0, 1, 4, 5),
    Stage("final", 1.5, 1, 3, 6, "none", 0.6, consensus_mask=True),
)
# Two rounds of everything: enough to see whether two runs are equal.
SHORTEST_STAGES = (
    Stage("stacks", 4.0, 3, 1, 2, "stacks", 0.8),
    Stage("slices", 3.0, 2, 2, 2),
    Stage("final", 2.5, 2, 1, 2, "none", 0.6, consensus_mask=True),
)


@cache
def small_brain() -> Volume:
    """The phantom at half its size: 42 x 52 x 43 mm in voxels of 0.8 mm, not in the middle of the world."""
    phantom = brain_phantom(spacing=1.6)
    affine = phantom.affine.copy()
    affine[:3] *= 0.5
    affine[:3, 3] += [12.0, -7.0, 20.0]
    return Volume(phantom.data, affine, phantom.mask)


@cache
def moving_brain(motion: str = "mild", seed: int = 1, n_stacks: int = 3) -> Simulation:
    """Stacks of 1.5 x 1.5 x 3 mm."""
    options = SimulationOptions(n_stacks=n_stacks, in_plane_spacing=1.5, thickness=3.0, motion=motion, seed=seed)
    return simulate(small_brain(), options)


@cache
def coarse_brain() -> Simulation:
    """The same in stacks of 2.2 x 2.2 x 4.4 mm: reconstructed in a second or two, where quality does not matter."""
    options = SimulationOptions(n_stacks=3, in_plane_spacing=2.2, thickness=4.4, motion="mild", seed=1)
    return simulate(small_brain(), options)


def true_poses(slices: Slices, simulation: Simulation) -> np.ndarray:
    """True pose of every slice."""
    return np.stack(
        [simulation.poses[k][i] for k, i in zip(slices.stack_index, slices.slice_index, strict=True)],
    )


def errors_of_poses(slices: Slices, poses: np.ndarray, simulation: Simulation, least_pixels: int = 20) -> PoseErrors:
    """Displacement of the slices that show the brain at their pixels inside the mask of the stack."""
    positions = slices.pixel_positions()
    shown, points = [], []
    for s in range(slices.n_slices):
        mask = simulation.stacks[slices.stack_index[s]].mask
        assert mask is not None
        pixels = positions[slices.pixels_of(s)][slices.image(s, slices.mask).ravel()]
        if mask[:, :, slices.slice_index[s]].any() and len(pixels) >= least_pixels:
            shown.append(s)
            points.append(pixels)
    return pose_errors(poses[shown], true_poses(slices, simulation)[shown], points)


def errors_before(slices: Slices, simulation: Simulation) -> PoseErrors:
    """The same as if nothing had been corrected."""
    return errors_of_poses(slices, identity_poses(slices.n_slices), simulation)
