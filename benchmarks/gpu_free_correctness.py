"""Are the kernels of free Gaussians right on this card? Compared with the reference, the plain twins and the host."""

from __future__ import annotations

import numpy as np
import torch
from gsvr.backends.torch.gaussian_reference import covariances, responses

from gsvr.backends.cpu.planes import ParallelPlanes, splat_on_planes
from gsvr.backends.torch import plain_gaussians
from gsvr.backends.torch.gaussians import DeviceGaussianKernel, triton_gaussian_kernels
from gsvr.backends.torch.rendering import render_on_planes
from gsvr.backends.views import slice_views
from gsvr.model.fields import GaussianField
from gsvr.model.geometry import transform_points
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices

_GAUSSIANS = 24
# Numbers that derivatives give a pixel, and moments a pair
_PLANES, _MOMENTS = 7, 9


def free_errors(
    slices: Slices, poses: np.ndarray, spread: PointSpread, cutoff: float, device: torch.device
) -> dict[str, float]:
    """Largest error of every kernel, as a share of the largest value."""
    field = _random_field(slices, poses)
    matrix = _reference(field, slices, poses, spread)
    rng = np.random.default_rng(2)
    c, r = field.amplitudes, rng.normal(size=len(matrix)).astype(np.float32)
    views, triton = slice_views(slices, poses, spread, cutoff), triton_gaussian_kernels()

    def move(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values).to(device)

    errors: dict[str, float] = {}
    for name, deterministic in (("", False), (", deterministic", True)):
        kernel = DeviceGaussianKernel(field, views, device, triton, deterministic)
        errors["free, predict"] = largest_error(kernel.predict(move(c)), matrix @ c)
        errors["free, adjoint" + name] = largest_error(kernel.adjoint(move(r)), matrix.T @ r)
        errors["free, squared adjoint" + name] = largest_error(kernel.squared_adjoint(move(r)), (matrix**2).T @ r)
    lists, more = kernel.lists, torch.rand(len(r), device=device)
    got, want = (torch.zeros((_PLANES, len(r)), device=device) for _ in range(2))
    triton.differentiate(lists, move(c), got)
    plain_gaussians.differentiate(lists, move(c), want)
    errors["free, derivatives"] = largest_error(got, want.cpu().numpy())
    got, want = (torch.empty((len(lists.splats), _MOMENTS), device=device) for _ in range(2))
    triton.moments(lists, move(c), move(r), more, got)
    plain_gaussians.moments(lists, move(c), move(r), more, want)
    errors["free, moments"] = largest_error(got, want.cpu().numpy())
    planes = ParallelPlanes(np.eye(4)[:3], (2, 12, 12), (1.0, 0.9, 0.8), np.ones(1), np.zeros(1), np.zeros(1))
    rendered = torch.as_tensor(render_on_planes(field, planes, cutoff, device, triton))
    errors["free, rendering"] = largest_error(rendered, splat_on_planes(field, c, planes, cutoff, exact=True))
    return errors


def largest_error(got: torch.Tensor, want: np.ndarray) -> float:
    """Largest difference, as a share of the largest value."""
    return float(np.abs(got.double().cpu().numpy() - want).max() / np.abs(want).max())


def _random_field(slices: Slices, poses: np.ndarray) -> GaussianField:
    rng = np.random.default_rng(1)
    places = transform_points(poses, slices.centres)
    return GaussianField(
        rng.uniform(places.min(axis=0) - 6, places.max(axis=0) + 6, (_GAUSSIANS, 3)).astype(np.float32),
        np.log(rng.uniform(0.6, 2.0, (_GAUSSIANS, 3))).astype(np.float32),
        rng.normal(size=(_GAUSSIANS, 4)).astype(np.float32),
        rng.uniform(-0.5, 1, _GAUSSIANS).astype(np.float32),
    )


def _reference(field: GaussianField, slices: Slices, poses: np.ndarray, spread: PointSpread) -> np.ndarray:
    """The whole matrix in float64."""
    means, log_scales, quaternions = (
        torch.as_tensor(part.astype(np.float64)) for part in (field.means, field.log_scales, field.quaternions)
    )
    sigma, positions, parts = covariances(log_scales, quaternions), slices.pixel_positions(), []
    for s in range(slices.n_slices):
        points = transform_points(poses[s], positions[slices.offsets[s] : slices.offsets[s + 1]])
        axes = (poses[s] @ slices.frames[s])[:3, :3]
        of_slice = (spread.in_plane_variances[s], spread.weights, spread.offsets[s], spread.variances[s])
        points, axes, *of_slice = (torch.as_tensor(part) for part in (points, axes, *of_slice))
        parts.append(responses(means, sigma, points, axes, of_slice[0], of_slice[1], of_slice[2], of_slice[3]))
    return torch.cat(parts).numpy()
