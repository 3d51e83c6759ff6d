"""Train through the acquisition operator with PyTorch: amplitudes and poses by Adam, from slices that moved.

In place of the amplitudes, anything that is differentiable may give them, such as a network. Takes seconds; run it with
``python examples/train_through_the_operator.py``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

import gsvr
from gsvr.model.fields import lattice_covering
from gsvr.model.geometry import identity_poses, transform_points
from gsvr.operators.autograd import acquire

# What one unit of the numbers that are trained moves a slice by: rotations (rad) and translations (mm).
UNITS = (0.05, 0.05, 0.05, 1.0, 1.0, 1.0)


def main(steps: int = 100) -> dict[str, float]:
    """Share of the signal that is not explained, and mean distance (mm) of slices from the truth, before and after."""
    torch.manual_seed(0)
    slices, truth = moved_slices()
    recorded, inside = torch.tensor(slices.values), torch.tensor(slices.mask)

    positions = slices.pixel_positions(pixels=slices.mask)
    lattice = lattice_covering(positions, spacing=4.0, sigma=3.0, margin=8.0)
    operator = gsvr.LatticeOperator(lattice, slices, identity_poses(slices.n_slices))

    amplitudes = torch.zeros(lattice.shape, requires_grad=True)
    motion = torch.zeros((slices.n_slices, 6), requires_grad=True)
    optimiser = torch.optim.Adam([{"params": amplitudes, "lr": 0.05}, {"params": motion, "lr": 0.08}])
    scale = (recorded[inside] ** 2).mean()
    unexplained = []
    for step in range(steps):
        optimiser.zero_grad()
        # slices are only moved once there is something to compare them with
        moving = step > steps // 3
        predicted = acquire(operator, amplitudes, steps=motion * torch.tensor(UNITS) if moving else None)
        loss = ((predicted - recorded)[inside] ** 2).mean() / scale
        loss.backward()
        optimiser.step()
        unexplained.append(loss.item())
    scores = {
        "unexplained without motion": unexplained[steps // 3],
        "unexplained": unexplained[-1],
        "distance before": distance(slices, truth, np.zeros((slices.n_slices, 6))),
        "distance": distance(slices, truth, motion.detach().numpy() * np.array(UNITS)),
    }
    for name, value in scores.items():
        print(f"{name:<28}{value:.4f}")
    return scores


def moved_slices() -> tuple[gsvr.Slices, np.ndarray]:
    """Three orthogonal stacks of a few blobs; every slice a little out of place, by the steps returned."""
    rng = np.random.default_rng(1)
    images, affines = [], []
    for axes in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, axes] * [2.5, 2.5, 5.0]
        affine[:3, 3] = -affine[:3, :3] @ [11.5, 11.5, 5.5]
        images.append(np.zeros((24, 24, 12)))
        affines.append(affine)
    slices = gsvr.slices_from_arrays(images, affines, thicknesses=5.0)
    blobs = gsvr.GaussianField(
        means=rng.uniform(-16, 16, (40, 3)),
        log_scales=np.log(rng.uniform(3.0, 6.0, (40, 3))),
        quaternions=rng.normal(size=(40, 4)),
        amplitudes=rng.uniform(0.3, 1.0, 40),
    )
    steps = rng.normal(size=(slices.n_slices, 6)) * UNITS
    poses = gsvr.moved_poses(slices, identity_poses(slices.n_slices), steps)
    values = gsvr.GaussianOperator(blobs, slices, poses).predict(blobs.amplitudes.astype(np.float32))
    bright = values > 0.05 * values.max()
    return replace(slices.with_mask(bright), values=values), steps


def distance(slices: gsvr.Slices, truth: np.ndarray, steps: np.ndarray) -> float:
    """Mean distance (mm) of the slices' centres; a shift of all slices together shows in no image."""
    still = identity_poses(slices.n_slices)
    there, here = (transform_points(gsvr.moved_poses(slices, still, some), slices.centres) for some in (truth, steps))
    apart = there - here
    return float(np.linalg.norm(apart - apart.mean(axis=0), axis=1).mean())


if __name__ == "__main__":
    main()
