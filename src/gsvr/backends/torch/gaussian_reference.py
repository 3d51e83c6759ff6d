"""Plain PyTorch definition of the acquisition of free Gaussians, differentiable by everything.

What the fast kernels are tested against: every Gaussian at every pixel, nothing cut off unless K nearest neighbours are
asked for. Use float64 to check derivatives.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rotation_from_quaternion(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z) of any length, differentiable."""
    w, x, y, z = (quaternions / quaternions.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    )
    return torch.stack(rows, -2)


def covariances(log_scales: Float[Tensor, "n 3"], quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Sigma_j = R(q_j) diag(exp(2 s_j)) R(q_j)^T (mm^2)."""
    rotation = rotation_from_quaternion(quaternions)
    return rotation @ torch.diag_embed(torch.exp(2 * log_scales)) @ rotation.transpose(-1, -2)


def responses(
    means: Float[Tensor, "n 3"],
    sigma: Float[Tensor, "n 3 3"],
    points: Float[Tensor, "p 3"],
    axes: Float[Tensor, "3 3"],
    in_plane_variances: Float[Tensor, " 2"],
    weights: Float[Tensor, " m"],
    offsets: Float[Tensor, " m"],
    variances: Float[Tensor, " m"],
    exact: bool = True,
    nearest: int | None = None,
) -> Float[Tensor, "p n"]:
    """How each pixel of one slice sees each Gaussian of amplitude one: the matrix A of the slice.

    Parameters
    ----------
    means, sigma
        The Gaussians, in volume world (mm, mm^2).
    points
        Pixel centres in volume world (mm).
    axes
        Columns: the slice's u, v, w axes in volume world.
    in_plane_variances, weights, offsets, variances
        Point spread function of the slice, see `gsvr.model.point_spread.PointSpread`.
    exact
        With the factor a_ij that makes it the convolution with the point spread function; without, every blurred
        Gaussian has height one, as in Dannecker et al. (MIDL 2026, eq. 5).
    nearest
        Only the so many Gaussians whose means are nearest to a pixel.
    """
    total = torch.zeros(points.shape[0], means.shape[0], dtype=points.dtype)
    for weight, offset, variance in zip(weights, offsets, variances, strict=True):
        spread = axes @ torch.diag(torch.stack([*in_plane_variances, variance])) @ axes.T
        blurred = sigma + spread
        d = points[:, None] + offset * axes[:, 2] - means
        exponent = -0.5 * torch.einsum("pni,nij,pnj->pn", d, torch.linalg.inv(blurred), d)
        peak = torch.sqrt(torch.linalg.det(sigma) / torch.linalg.det(blurred)) if exact else torch.ones(len(means))
        total = total + weight * torch.exp(exponent) * peak
    if nearest is not None:
        distance = torch.cdist(points, means)
        total = total * (distance <= distance.kthvalue(nearest, dim=1, keepdim=True).values)
    return total


def normalised(numerator: Float[Tensor, " p"], density: Float[Tensor, " p"], delta: float) -> Float[Tensor, " p"]:
    """Pixels of the normalised field: sum_j c_j G_j / (delta + sum_j G_j) (Dannecker et al., MIDL 2026, eq. 5)."""
    return numerator / (density + delta)
