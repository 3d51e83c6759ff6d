"""The acquisition by its definition: float64, every Gaussian at every pixel, nothing cut off.

All fast kernels are compared with it. It shares nothing with the package but the containers of numbers.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from gsvr.model.fields import GaussianField
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices


def covariances(field: GaussianField) -> np.ndarray:
    """Sigma_j = R(q_j) diag(exp(2 s_j)) R(q_j)^T (mm^2)."""
    axes = Rotation.from_quat(np.asarray(field.quaternions, np.float64)[:, (1, 2, 3, 0)]).as_matrix()
    return np.einsum("nij,nj,nkj->nik", axes, np.exp(2 * np.asarray(field.log_scales, np.float64)), axes)


def matrix(
    means: np.ndarray,
    sigma: np.ndarray,
    slices: Slices,
    poses: np.ndarray,
    spread: PointSpread,
    exact: bool = True,
) -> np.ndarray:
    """A (pixels x Gaussians), without gains: see `gsvr.operators.acquisition`.

    Without `exact` every blurred Gaussian has height one, as in the normalised field.
    """
    return np.concatenate(
        [
            sum(
                weight * _blurred(means, sigma, points + offset @ turn.T, turn @ covariance @ turn.T, exact)
                for weight, offset, covariance in zip(
                    spread.weights, spread.offsets[s], spread.covariances[s], strict=True
                )
            )
            for s, (points, turn) in enumerate(_placed(slices, poses))
        ]
    )


def _placed(slices: Slices, poses: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every slice its pixels in volume world (mm), and its axes there, in columns."""
    placed = []
    for s in range(slices.n_slices):
        to_world, grid = poses[s] @ slices.frames[s], np.indices(slices.shapes[s]).reshape(2, -1).T
        local = np.column_stack([grid * slices.pixel_spacings[s], np.zeros(len(grid)), np.ones(len(grid))])
        placed.append(((local @ to_world.T)[:, :3], to_world[:3, :3]))
    return placed


def _blurred(means: np.ndarray, sigma: np.ndarray, points: np.ndarray, spread: np.ndarray, exact: bool) -> np.ndarray:
    """Gaussians at points, after a convolution with a normal distribution of covariance `spread`."""
    blurred = sigma + spread
    values = np.exp(-0.5 * squared_distances(means, blurred, points))
    return values * np.sqrt(np.linalg.det(sigma) / np.linalg.det(blurred)) if exact else values


def squared_distances(means: np.ndarray, sigma: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance of points (rows) from Gaussians (columns)."""
    roots = np.linalg.cholesky(np.linalg.inv(sigma))
    whitened = (points[None] - means[:, None]) @ roots
    return (whitened**2).sum(axis=2).T


def peaks(sigma: np.ndarray, slices: Slices, poses: np.ndarray, spread: PointSpread, exact: bool) -> np.ndarray:
    """Sum of the heights of a Gaussian's components as each pixel's slice sees it (pixels x Gaussians)."""
    rows = []
    for s, (points, turn) in enumerate(_placed(slices, poses)):
        height = np.zeros(len(sigma))
        for weight, covariance in zip(spread.weights, spread.covariances[s], strict=True):
            ratio = np.linalg.det(sigma) / np.linalg.det(sigma + turn @ covariance @ turn.T)
            height += weight * (np.sqrt(ratio) if exact else 1)
        rows.append(np.tile(height, (len(points), 1)))
    return np.concatenate(rows)


def nearest(means: np.ndarray, slices: Slices, poses: np.ndarray, count: int) -> np.ndarray:
    """Which Gaussians are among the `count` nearest of a pixel (pixels x Gaussians); none outside the mask."""
    points = np.concatenate([points for points, _ in _placed(slices, poses)])
    distances = np.linalg.norm(points[:, None] - means, axis=2)
    order = distances.argsort(axis=1).argsort(axis=1)
    return (order < count) & slices.mask[:, None]


def moved(slices: Slices, poses: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Poses after a turn (rotation vector, rad) about the slice's centre and a shift (mm), both in the slice frame."""
    out = []
    for s, (pose, frame) in enumerate(zip(poses, slices.frames, strict=True)):
        centre = np.append((slices.shapes[s] - 1) / 2 * slices.pixel_spacings[s], 0)
        step = np.eye(4)
        step[:3, :3] = Rotation.from_rotvec(steps[s, :3]).as_matrix()
        step[:3, 3] = centre - step[:3, :3] @ centre + steps[s, 3:]
        out.append(pose @ frame @ step @ np.linalg.inv(frame))
    return np.stack(out)


def field_values(field: GaussianField, points: np.ndarray) -> np.ndarray:
    """The field itself at points (mm)."""
    flat = points.reshape(-1, 3)
    weights = np.exp(-0.5 * squared_distances(np.asarray(field.means, np.float64), covariances(field), flat))
    values = weights @ field.amplitudes
    if field.normalisation is not None:
        values = values / (weights.sum(axis=1) + field.normalisation)
    return values.reshape(points.shape[:-1])


def average(field: GaussianField, slices: Slices, poses: np.ndarray, spread: PointSpread, pixel: int) -> float:
    """The field times the point spread function around a pixel, integrated by quadrature: no formula of convolutions.

    The grid is 0.3 mm fine and reaches 6 mm far.
    """
    s = int(np.searchsorted(slices.offsets, pixel, side="right")) - 1
    points, turn = _placed(slices, poses)[s]
    step = 0.3 * np.arange(-20, 21)
    grid = np.stack(np.meshgrid(step, step, step, indexing="ij"), axis=-1).reshape(-1, 3)
    density = np.zeros(len(grid))
    for weight, offset, covariance in zip(spread.weights, spread.offsets[s], spread.covariances[s], strict=True):
        away = squared_distances(offset[None], covariance[None], grid)[:, 0]
        density += weight * np.exp(-0.5 * away) / np.sqrt((2 * np.pi) ** 3 * np.linalg.det(covariance)) * 0.3**3
    around = points[pixel - int(slices.offsets[s])] + grid @ turn.T
    return float(density @ field_values(field, around))
