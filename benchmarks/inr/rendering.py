"""A trained network on a voxel grid."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from benchmarks.inr.training import InrResult
from gsvr.masks.consensus import consensus_mask
from gsvr.model.geometry import transform_points
from gsvr.model.morphology import within
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume

_CHUNK = 2**16


def render_network(result: InrResult, slices: Slices, spacing: float, margin: float = 2.0) -> Volume:
    """Sample the network near the brain, as `gsvr.render.volume.render_volume` does for a field of Gaussians.

    Parameters
    ----------
    result
        The network and its poses.
    slices
        The acquisition; its masks decide where the brain is.
    spacing
        Voxel size (mm). The mean of 8 points a voxel is taken.
    margin
        What lies more than this (mm) outside of the brain becomes zero.
    """
    vote = consensus_mask(slices, slices.mask, result.poses)
    brain = np.asarray(vote.mask)
    corners = transform_points(vote.affine, np.argwhere(brain))
    first = np.floor((corners.min(axis=0) - margin - spacing) / spacing).astype(int)
    last = np.ceil((corners.max(axis=0) + margin + spacing) / spacing).astype(int)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = first * spacing
    shape = tuple(int(n) for n in last - first + 1)
    step = np.linalg.inv(vote.affine) @ affine
    smooth = ndimage.gaussian_filter(brain.astype(np.float32), 0.7)
    inside = np.asarray(ndimage.affine_transform(smooth, step[:3], output_shape=shape, order=1)) > 0.5
    near = np.argwhere(within(inside, margin, spacing))
    data = np.zeros(shape, dtype=np.float32)
    data[tuple(near.T)] = _mean_over_voxels(result, transform_points(affine, near), spacing) * result.scale
    return Volume(data, affine, inside)


def _mean_over_voxels(result: InrResult, centres: np.ndarray, spacing: float) -> np.ndarray:
    """Mean of the network over eight points of each voxel."""
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    total = torch.zeros(len(centres))
    with torch.no_grad():
        for offset in signs * spacing / 4:
            points = torch.tensor(centres + offset, dtype=torch.float32)
            total += torch.cat([result.network(chunk)[0] for chunk in points.split(_CHUNK)])
    return (total / len(signs)).numpy()
