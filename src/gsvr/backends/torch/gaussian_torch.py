"""The normalised field of Dannecker et al. (MIDL 2026) in plain PyTorch: gather, per pixel, its K nearest Gaussians.

As the published method does it: a list of neighbours for every pixel, kept until it is made anew, the covariance of
each pair of pixel and Gaussian, and derivatives by autograd. Runs on every device that PyTorch knows. Slow beside
kernels that share work between pixels, and what those are compared with.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from gsvr.backends.torch.gaussian_reference import covariances
from gsvr.model.fields import GaussianField
from gsvr.model.geometry import transform_points
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices

# Upper triangle of a symmetric 3 x 3 matrix.
_ROWS, _COLUMNS = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)


class NearestGaussians:
    """Pixels inside the mask, with their nearest Gaussians.

    Parameters
    ----------
    slices
        Geometry and mask of the pixels.
    spread
        Point spread function of every slice.
    device, dtype
        Where and how precisely to compute.
    pixels_at_once
        Pixels whose pairs are in memory together: a pair takes some 200 bytes until its derivatives are known.
    """

    def __init__(
        self,
        slices: Slices,
        spread: PointSpread,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        pixels_at_once: int = 1 << 14,
    ) -> None:
        self._slices, self._at_once = slices, pixels_at_once
        self._device, self._dtype = torch.device(device), dtype
        self._owner = slices.per_pixel(np.arange(slices.n_slices))[slices.mask]
        self._acquired = slices.pixel_positions(pixels=slices.mask)
        self._values = self._tensor(slices.values[slices.mask])
        self._slice_of = torch.as_tensor(self._owner, device=self._device)
        self._from_centre = self._tensor(_from_centre(slices)[slices.mask])
        self._weights = self._tensor(spread.weights)
        self._offsets = self._tensor(spread.offsets)
        in_plane = np.repeat(spread.in_plane_variances[:, None], len(spread.weights), axis=1)
        self._variances = self._tensor(np.concatenate([in_plane, spread.variances[..., None]], axis=2))
        self._neighbours = torch.empty((0, 0), dtype=torch.int64)

    def _tensor(self, array: np.ndarray, gradient: bool = False) -> Tensor:
        return torch.tensor(array, dtype=self._dtype, device=self._device, requires_grad=gradient)

    def find_neighbours(self, means: Float[np.ndarray, "n 3"], poses: Float[np.ndarray, "s 4 4"], count: int) -> None:
        """For every pixel the `count` Gaussians whose means are nearest."""
        from scipy.spatial import KDTree  # slow to import

        placed = transform_points(poses[self._owner], self._acquired)
        _, nearest = KDTree(means).query(placed, k=min(count, len(means)), workers=-1)
        neighbours: Int[np.ndarray, "p k"] = np.reshape(nearest, (len(placed), -1))
        self._neighbours = torch.as_tensor(neighbours, device=self._device)

    def l1_gradient(
        self, field: GaussianField, poses: Float[np.ndarray, "s 4 4"]
    ) -> tuple[float, Float32[np.ndarray, " p"], dict[str, np.ndarray]]:
        """Mean absolute difference from the pixels' values, the prediction, and the gradient of the former.

        Returns
        -------
        float
            Mean over the pixels inside the mask.
        ndarray
            Predicted pixels, flat as `Slices.values`; zero outside the mask.
        dict
            Gradient by means, log_scales, quaternions, amplitudes, and poses: rotation vector about the slice's centre
            (per rad) and translation (per mm) in the slice frame, as in `gsvr.operators.acquisition.moved_poses`.
        """
        names = ("means", "log_scales", "quaternions", "amplitudes")
        leaves = {name: self._tensor(getattr(field, name), gradient=True) for name in names}
        leaves["poses"] = self._tensor(np.zeros((self._slices.n_slices, 6)), gradient=True)
        sigma = covariances(leaves["log_scales"], leaves["quaternions"])[:, _ROWS, _COLUMNS]
        shared = sigma.detach().requires_grad_()  # its own derivatives are taken once, not for every part of the pixels
        turns = self._tensor((poses @ self._slices.frames)[:, :3, :3])
        placed = self._tensor(transform_points(poses[self._owner], self._acquired))
        delta = 0.0 if field.normalisation is None else field.normalisation
        total, predicted = torch.zeros((), dtype=self._dtype, device=self._device), []
        for first in range(0, len(self._values), self._at_once):
            some = slice(first, first + self._at_once)
            pixels = self._predict(leaves, shared, turns, placed[some], some, delta)
            loss = (pixels - self._values[some]).abs().sum() / len(self._values)
            loss.backward()
            total += loss.detach()
            predicted.append(pixels.detach())
        sigma.backward(shared.grad)
        prediction = np.zeros(len(self._slices.values), np.float32)
        prediction[self._slices.mask] = torch.cat(predicted).cpu().numpy()
        gradient = {name: _gradient_of(leaf).cpu().numpy() for name, leaf in leaves.items()}
        return float(total), prediction, gradient

    def _predict(
        self, leaves: dict[str, Tensor], sigma: Tensor, turns: Tensor, placed: Tensor, some: slice, delta: float
    ) -> Float[Tensor, " p"]:
        """Some pixels, sum_j c_j G_j / (delta + sum_j G_j) over their neighbours (Dannecker et al., eq. 5)."""
        own, neighbours = self._slice_of[some], self._neighbours[some]
        rotation, translation = leaves["poses"][:, :3], leaves["poses"][:, 3:]
        # a step of length zero: what it changes to first order is all that its derivative needs
        moved = torch.linalg.cross(rotation[own], self._from_centre[some]) + translation[own]
        points = placed + torch.einsum("pij,pj->pi", turns[own], moved)
        axes = turns + turns @ _cross_matrices(rotation)
        numerator, density = torch.zeros_like(points[:, 0]), torch.zeros_like(points[:, 0])
        for m in range(len(self._weights)):
            blur = ((axes * self._variances[:, None, m]) @ axes.transpose(1, 2))[:, _ROWS, _COLUMNS]
            at = points + self._offsets[own, m, None] * axes[own][:, :, 2]
            d = at[:, None] - leaves["means"][neighbours]
            heights = self._weights[m] * torch.exp(-0.5 * _squared_distance(d, sigma[neighbours] + blur[own][:, None]))
            numerator = numerator + (heights * leaves["amplitudes"][neighbours]).sum(1)
            density = density + heights.sum(1)
        return numerator / (density + delta)


def _gradient_of(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def _squared_distance(d: Float[Tensor, "p k 3"], matrix: Float[Tensor, "p k 6"]) -> Float[Tensor, "p k"]:
    """d^T B^-1 d by the adjugate of B, given by its upper triangle."""
    x, y, z = d.unbind(-1)
    xx, xy, xz, yy, yz, zz = matrix.unbind(-1)
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    determinant = xx * a + xy * b + xz * c
    across = (xx * zz - xz * xz) * y * y + (xx * yy - xy * xy) * z * z + 2 * (xy * xz - xx * yz) * y * z
    return (a * x * x + 2 * (b * y + c * z) * x + across) / determinant


def _cross_matrices(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Matrices that take a cross product with the vectors from the left."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    rows = ((zero, -z, y), (z, zero, -x), (-y, x, zero))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _from_centre(slices: Slices) -> Float[np.ndarray, "p 3"]:
    """Every pixel from its slice's centre, in the slice frame (mm)."""
    frames = slices.per_pixel(np.arange(slices.n_slices))
    away = slices.pixel_positions() - slices.centres[frames]
    return np.einsum("pji,pj->pi", slices.frames[frames][:, :3, :3], away)
