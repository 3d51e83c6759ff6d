"""Gradient by the geometry of free Gaussians and by poses, from the moments of every splat, in PyTorch on any device.

With M the moments of r G d d^T and L the inverse of the blurred covariance, the gradient by that covariance is
L M L / 2 - L sum(r G) / 2, and the gradient by the mean is L times the moments of r G d; see `gaussian_gradient.c`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from gsvr.backends.torch.fixed_order import add_rows
from gsvr.backends.torch.gaussian_tiles import GaussianTiles
from gsvr.backends.torch.splats import Geometry, inverse

# Splats at once: bounds the memory of their matrices.
_AT_ONCE = 2**19


def geometry_gradient(
    lists: GaussianTiles,
    geometry: Geometry,
    centres: Float[Tensor, "s 2"],
    moments: Float32[Tensor, "n 9"],
    fixed_order: bool = False,
) -> tuple[Float[Tensor, "j 3"], Float[Tensor, "j 3 3"], Float[Tensor, "s 6"]]:
    """Gradients by means (per mm), covariances (per mm^2) and poses, see `gsvr.backends.GeometryGradient`.

    Parameters
    ----------
    centres
        Middle of each slice in its own frame (mm): what poses turn about.
    moments
        Of every splat, as `plain_gaussians.moments` fills them.
    fixed_order
        Whether sums over splats are to be the same in every run, see `fixed_order.add_rows`.
    """
    n = len(geometry.means)
    means, poses = torch.zeros_like(geometry.means), geometry.means.new_zeros((len(centres), 6))
    covariances, peaks = torch.zeros_like(geometry.covariances), geometry.means.new_zeros(n)
    for start in range(0, len(moments), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        s, j = lists.slices[some].long(), lists.gaussians[some].long()
        turn = geometry.to_slice[s, :, :3]
        place = (turn @ geometry.means[j, :, None])[..., 0] + geometry.to_slice[s, :, 3]
        inside = turn @ geometry.covariances[j] @ turn.transpose(1, 2)
        precision, _ = inverse(inside + geometry.blur(s))
        whole, first, second = _moments_in_mm(
            moments[some].to(place.dtype), geometry.offsets[s] - place[:, 2:], geometry.spacing[s]
        )
        outer = precision @ second @ precision
        if lists.exact:  # the peak has the determinant of the blurred covariance in it
            outer = outer - whole[:, None, None] * precision
        pull = (precision @ first[:, :, None])[..., 0]
        lever = place - torch.nn.functional.pad(centres[s], (0, 1))
        # what turning a covariance changes: the antisymmetric part of a product
        product = outer @ inside
        turning = torch.stack([product[:, a, b] - product[:, b, a] for a, b in ((1, 2), (2, 0), (0, 1))], 1)
        add_rows(means, j, (turn.transpose(1, 2) @ pull[:, :, None])[..., 0], fixed_order)
        add_rows(covariances, j, 0.5 * turn.transpose(1, 2) @ outer @ turn, fixed_order)
        add_rows(peaks, j, whole, fixed_order)
        add_rows(poses, s, torch.cat([torch.linalg.cross(pull, lever) + turning, -pull], 1), fixed_order)
    if lists.exact:  # and it grows with sqrt(det Sigma)
        covariances += 0.5 * peaks[:, None, None] * inverse(geometry.covariances)[0]
    return means, covariances, poses


def _moments_in_mm(
    sums: Float[Tensor, "n 9"], distances: Float[Tensor, "n m"], spacing: Float[Tensor, "n 2"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"], Float[Tensor, "n 3 3"]]:
    """Sums of r G, of r G d and of r G d d^T, where d_w is one distance for each component of the profile."""
    whole, y, x, yy, yx, xx, other, other_y, other_x = sums.unbind(1)
    first, second = distances[:, 0], distances[:, -1]
    step = second - first
    pu, pv = spacing.unbind(1)
    u, v, w = pu * y, pv * x, first * whole + step * other
    uw, vw = first * u + step * pu * other_y, first * v + step * pv * other_x
    uv, ww = pu * pv * yx, first * first * whole + (second * second - first * first) * other
    rows = [torch.stack(row, 1) for row in ((pu * pu * yy, uv, uw), (uv, pv * pv * xx, vw), (uw, vw, ww))]
    return whole, torch.stack([u, v, w], 1), torch.stack(rows, 1)
