"""Gradient by the geometry of free Gaussians and by poses, from the moments of every splat, in PyTorch on any device.

Let L be the inverse of a blurred covariance B, d = pixel + offset - mean and z = L d. The gradient of <r, A c> by the
mean is the sum of q G z, with q the residual times the amplitude; by the covariance it is half the sum of
q G (z z^T - L), since a true peak has the determinant of B in it, and half that of q G Sigma^-1, since it has that of
Sigma. With (u, v) the distance from the place of a component, see `gsvr.backends.torch.splats`, it is
z = L (u, v, 0) + (0, 0, d_w / B_ww).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from gsvr.backends.torch.fixed_order import add_rows
from gsvr.backends.torch.splats import Gaussians, Seen, Splats, Views, inverse, seen_by

# Splats at once: bounds the memory of their matrices.
_AT_ONCE = 2**19


def geometry_gradient(
    gaussians: Gaussians, views: Views, splats: Splats, moments: Float32[Tensor, "n m 6"]
) -> tuple[Float[Tensor, "j 3"], Float[Tensor, "j 3 3"], Float[Tensor, "s 6"]]:
    """Gradients by means (per mm), covariances (per mm^2) and poses, see `gsvr.backends.protocol.GeometryGradient`.

    Parameters
    ----------
    moments
        Of every splat, as ``moments`` of the kernels makes them.
    """
    n = len(gaussians.means)
    means, poses = torch.zeros_like(gaussians.means), gaussians.means.new_zeros((len(views.shapes), 6))
    covariances, peaks = torch.zeros_like(gaussians.covariances), gaussians.means.new_zeros(n)
    for start in range(0, len(moments), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        s, j = splats.slices[some], splats.gaussians[some]
        seen = seen_by(gaussians, views, s, j)
        whole, pull, outer = _sums(moments[some].to(means.dtype), seen, views, s)
        lever = seen.place - torch.nn.functional.pad(views.centres[s], (0, 1))
        # what turning a covariance changes: the antisymmetric part of a product
        product = outer @ seen.inside
        turning = torch.stack([product[:, a, b] - product[:, b, a] for a, b in ((1, 2), (2, 0), (0, 1))], 1)
        back = seen.turn.transpose(1, 2)
        add_rows(means, j, (back @ pull[:, :, None])[..., 0])
        add_rows(covariances, j, 0.5 * back @ outer @ seen.turn)
        add_rows(peaks, j, whole)
        add_rows(poses, s, torch.cat([torch.linalg.cross(pull, lever) + turning, -pull], 1))
    if views.exact:
        covariances += 0.5 * peaks[:, None, None] * inverse(gaussians.covariances)[0]
    return means, covariances, poses


def _sums(
    moments: Float[Tensor, "k m 6"], seen: Seen, views: Views, s: Int64[Tensor, " k"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, "k 3"], Float[Tensor, "k 3 3"]]:
    """Sums of q G, of q G z and of q G (z z^T - L), the last without L where peaks are not true."""
    precision, _ = inverse(seen.blurred)
    whole, y, x, yy, yx, xx = moments.unbind(2)
    pu, pv = views.spacing[s][:, None].unbind(2)
    height = (seen.distances / seen.blurred[..., 2, 2])[..., None]
    first = torch.stack([pu * y, pv * x], 2)
    second = torch.stack([pu * pu * yy, pu * pv * yx, pu * pv * yx, pv * pv * xx], 2).unflatten(2, (2, 2))
    in_plane = precision[..., :2]
    along_w = height * torch.tensor([0.0, 0.0, 1.0], dtype=whole.dtype, device=whole.device)
    tilted = (in_plane @ first[..., None])[..., 0]
    pull = tilted + along_w * whole[..., None]
    mixed = tilted[..., :, None] * along_w[..., None, :]
    outer = in_plane @ second @ in_plane.transpose(2, 3) + mixed + mixed.transpose(2, 3)
    outer = outer + (along_w[..., :, None] * along_w[..., None, :]) * whole[..., None, None]
    if views.exact:
        outer = outer - precision * whole[..., None, None]
    return whole.sum(1), pull.sum(1), outer.sum(1)
