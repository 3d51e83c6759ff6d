"""What is minimised: the mean absolute error, and penalties on scales and on motion; with their gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gsvr.backends.protocol import Array
from gsvr.model.fields import GaussianField
from gsvr.model.geometry import invert, parts_about, transform_points
from gsvr.model.slices import Slices
from gsvr.operators.gaussians import GaussianOperator
from gsvr.solver.loss import robust_deviation
from gsvr.solver.published.options import PublishedOptions, ScalePrior

# Of the published code: its robust weights of slices, for intensities up to one.
_WELSCH, _LEAST_SPREAD = 4.0, 0.02


@dataclass(frozen=True)
class LossGradient:
    """Weighted mean absolute difference between prediction and pixels, and its gradient.

    Attributes
    ----------
    loss
        Mean over the pixels inside the mask (intensity).
    prediction
        Predicted pixels (array of the backend, flat as `Slices.values`); zero outside the mask.
    errors
        Mean absolute difference of each slice, without weights; zero where no pixel is inside the mask.
    means, log_scales, quaternions, amplitudes
        Gradient by the Gaussians.
    gains
        Gradient by each slice's gain.
    poses
        Gradient by each slice's pose, see `gsvr.operators.acquisition.moved_poses`.
    """

    loss: float
    prediction: Array
    errors: Float[np.ndarray, " slices"]
    means: Float[np.ndarray, "n 3"]
    log_scales: Float[np.ndarray, "n 3"]
    quaternions: Float[np.ndarray, "n 4"]
    amplitudes: Float[np.ndarray, " n"]
    gains: Float[np.ndarray, " slices"]
    poses: Float[np.ndarray, "slices 6"]


def absolute_error(
    operator: GaussianOperator, field: GaussianField, slice_weights: Float[np.ndarray, " slices"] | None = None
) -> LossGradient:
    """Mean absolute error of a field, whose Gaussians are the operator's, with its gradient.

    Parameters
    ----------
    slice_weights
        Of the errors; default: one.
    """
    pixels, backend, slices = operator.pixels, operator.backend, operator.slices
    weights = np.ones(slices.n_slices) if slice_weights is None else slice_weights
    amplitudes = backend.array(field.amplitudes)
    inside = pixels.coverage > 0
    prediction = operator.predict(amplitudes) * inside
    difference = (prediction - pixels.values) * inside
    size = abs(difference)
    totals = pixels.sum_per_slice(size)
    residual = difference / (size.clip(min=1e-30) * slices.n_pixels) * pixels.per_pixel(weights)
    geometry = operator.geometry_gradient(amplitudes, residual)
    log_scales, quaternions = field.shape_gradient(geometry.covariances)
    return LossGradient(
        loss=float((weights * totals).sum()) / slices.n_pixels,
        prediction=prediction,
        errors=totals / np.maximum(slices.sum_per_slice(slices.mask), 1),
        means=geometry.means,
        log_scales=log_scales,
        quaternions=quaternions,
        amplitudes=backend.host(operator.adjoint(residual)),
        gains=pixels.sum_per_slice(residual * prediction) / operator.gains,
        poses=geometry.poses,
    )


def scale_penalty(field: GaussianField, prior: ScalePrior) -> tuple[float, Float[np.ndarray, "n 3"]]:
    """The prior on scales, and its gradient by log-scales."""
    away = field.log_scales.astype(np.float64) - np.log(prior.scale)
    if prior.one_sided:
        away = np.minimum(away, 0)
    return prior.weight * float(np.mean(away**2)), 2 * prior.weight / away.size * away


def motion_penalty(
    slices: Slices, first: Float[np.ndarray, "n 4 4"], poses: Float[np.ndarray, "n 4 4"], options: PublishedOptions
) -> tuple[float, Float[np.ndarray, "n 6"]]:
    """The penalties on how far slices have moved from their first poses, and their gradient by the poses.

    With R, t the motion about the slice's centre in its frame and q = (w, v) the quaternion of R, a further step
    (rotation vector r, translation d, see `gsvr.operators.acquisition.moved_poses`) makes v + (w r + v x r) / 2 and
    t + R d of v and t.
    """
    inverse = invert(slices.frames)
    moved = inverse @ invert(first) @ poses @ slices.frames
    rotations, translations = parts_about(moved, transform_points(inverse, slices.centres))
    angles = np.linalg.norm(rotations, axis=1, keepdims=True)
    vectors, scalars = 0.5 * np.sinc(angles / (2 * np.pi)) * rotations, np.cos(angles / 2)
    value = options.rotation_penalty * float(np.mean(vectors**2))
    value += options.translation_penalty * float(np.mean(translations**2))
    by_rotation = options.rotation_penalty / vectors.size * scalars * vectors
    turned_back = np.einsum("nji,nj->ni", moved[:, :3, :3], translations)
    by_translation = 2 * options.translation_penalty / translations.size * turned_back
    return value, np.concatenate([by_rotation, by_translation], axis=1)


def slice_weights(slices: Slices, errors: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """One-sided Welsch weights of slices from their mean absolute errors; zero without pixels inside the mask."""
    used = slices.sum_per_slice(slices.mask) > 0
    middle = float(np.median(errors[used]))
    spread = max(robust_deviation(errors[used] - middle), _LEAST_SPREAD)
    excess = np.maximum(errors - middle, 0) / spread
    return np.where(used, np.exp(-0.5 * (excess / _WELSCH) ** 2), 0.0)
