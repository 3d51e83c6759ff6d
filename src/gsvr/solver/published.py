"""The settings of Dannecker et al., "Fast and Explicit" (MIDL 2026), as printed: to compare with, not to prefer.

The normalised field of K nearest Gaussians, seeded at pixels with steep gradients; means, scales, rotations,
intensities and the poses of all slices by AdamW on every pixel at once; mean absolute error plus a prior on scales.

What the paper does not print is assumed here:

- Intensities are divided by their 99th percentile inside the masks before the start.
- Both parts of the objective are means: over pixels, and over Gaussians and their three axes.
- Rates of means and translations are in mm, of rotations in rad. Rotations and translations are about the centre and
  along the axes of the slice, and each step is composed with the pose so far. The rate of scales is of their logarithm.
- Gaussians start isotropic, with the standard deviation that the prior prefers.
- Weight decay is 0.01, PyTorch's default, for scales, quaternions and intensities. Positions and poses have none: it
  would pull towards the origin of the scanner's coordinates.
- The constant in the denominator (delta) is 1e-6.
- Slices have no gains and no weights; masks stay as they were given.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32
from threadpoolctl import threadpool_limits

from gsvr.backends import named
from gsvr.backends.protocol import Array
from gsvr.backends.views import nearest_radii
from gsvr.backends.windows import CUTOFF
from gsvr.masks.consensus import consensus_mask
from gsvr.masks.options import MaskOptions
from gsvr.model.fields import GaussianField
from gsvr.model.point_spread import Profile
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import moved_poses
from gsvr.operators.gaussians import GaussianOperator
from gsvr.solver.adamw import AdamW, LearningRate
from gsvr.solver.gains import intensity_scale
from gsvr.solver.loss import Weights, robust_deviation
from gsvr.solver.pixel_seeding import seed_at_pixels
from gsvr.solver.reconstruct import Progress
from gsvr.solver.schedule import Stage
from gsvr.solver.stack_alignment import first_poses
from gsvr.solver.state import Result, State


@dataclass(frozen=True)
class PublishedOptions:
    """Everything such a reconstruction depends on besides the slices.

    Attributes
    ----------
    n_gaussians, nearest
        Gaussians of the field, and how many of them a pixel sees.
    epochs, halved_every, refreshed_every
        Steps; after how many of them learning rates are halved, and neighbours found anew.
    mean_rate, scale_rate, quaternion_rate, amplitude_rate, rotation_rate, translation_rate
        Learning rates at the start.
    weight_decay
        Of scales, quaternions and intensities.
    preferred_scale, scale_weight
        Standard deviation (mm) that the prior pulls to, and how strongly (intensity per mm^2).
    uniform_share
        Share of Gaussians that are seeded without regard to gradients (lambda).
    normalisation
        Delta, see `gsvr.model.fields.GaussianField`.
    profile
        Slice profile, see `gsvr.model.point_spread.PROFILES`.
    masks
        How masks are prepared, and where the volume is in the end.
    backend
        Where to compute, see `gsvr.backends.BACKENDS`.
    cutoff
        Of the kernels (standard deviations), on top of the nearest neighbours.
    seed
        Decides which pixels are drawn.
    """

    n_gaussians: int = 50_000
    nearest: int = 50
    epochs: int = 500
    halved_every: int = 200
    refreshed_every: int = 50
    mean_rate: float = 2.5e-2
    scale_rate: float = 2.5e-2
    quaternion_rate: float = 1e-2
    amplitude_rate: float = 1e-2
    rotation_rate: float = 2.5e-3
    translation_rate: float = 1e-1
    weight_decay: float = 1e-2
    preferred_scale: float = 1.6
    scale_weight: float = 2.5e-3
    uniform_share: float = 0.0
    normalisation: float = 1e-6
    profile: Profile = "gaussian"
    masks: MaskOptions = MaskOptions()
    backend: str = "cpu"
    cutoff: float = CUTOFF
    seed: int = 0

    @property
    def stage(self) -> Stage:
        """What progress calls it."""
        return Stage("published settings", self.preferred_scale, 1, self.epochs, 1, "none", sigma_ratio=1.0, free=True)


def reconstruct_as_published(
    slices: Slices,
    options: PublishedOptions | None = None,
    callback: Callable[[Progress], None] | None = None,
    poses: Float[np.ndarray, "n 4 4"] | None = None,
) -> Result:
    """Reconstruct a volume from slices with the published settings.

    Parameters
    ----------
    slices
        The acquisition, see `gsvr.model.slices.slices_from_stacks`.
    options
        Settings, with the published ones as defaults.
    callback
        Called after each epoch; may raise to stop. The noise of the state's weights is the objective.
    poses
        First guess, acquired world -> volume world; default: `gsvr.solver.stack_alignment.first_poses`.

    Raises
    ------
    ValueError
        If no pixel carries any signal.
    InputError
        If PyTorch or the device asked for is missing.
    """
    options = options or PublishedOptions()
    with threadpool_limits(1, "blas"):
        return _run_epochs(slices, options, callback, first_poses(slices) if poses is None else poses)


def _run_epochs(
    slices: Slices,
    options: PublishedOptions,
    callback: Callable[[Progress], None] | None,
    poses: Float[np.ndarray, "n 4 4"],
) -> Result:
    started, scale, total = time.perf_counter(), intensity_scale(slices), options.epochs
    scaled = replace(slices, values=slices.values / np.float32(scale))
    field = seed_at_pixels(
        scaled, poses, options.n_gaussians, options.preferred_scale, options.uniform_share, options.seed
    )
    field = replace(field, normalisation=options.normalisation, nearest=options.nearest)
    optimiser, radii = _optimiser(options), None
    for epoch in range(1, total + 1):
        if (epoch - 1) % options.refreshed_every == 0:
            radii = nearest_radii(field.means, scaled, poses, options.nearest)
        operator = _operator(field, scaled, poses, options, radii)
        gradient = absolute_error(operator, field)
        prior, by_log_scale = scale_prior(field, options.preferred_scale, options.scale_weight)
        field, steps = _step(optimiser, field, gradient, by_log_scale)
        poses = moved_poses(slices, poses, steps)
        if callback:
            state = _state(operator, gradient, gradient.loss + prior)
            seconds, done = time.perf_counter() - started, epoch == total
            callback(Progress(options.stage, epoch, epoch, total, state, scale, seconds, done, slices.mask))
    radii = nearest_radii(field.means, scaled, poses, options.nearest)
    last = absolute_error(_operator(field, scaled, poses, options, radii), field)
    return _result(slices, options, field, poses, last, scale)


def _operator(
    field: GaussianField,
    slices: Slices,
    poses: Float[np.ndarray, "n 4 4"],
    options: PublishedOptions,
    radii: Float32[np.ndarray, " p"] | None,
) -> GaussianOperator:
    return GaussianOperator(
        field, slices, poses, None, options.profile, options.backend, options.cutoff, squared_radii=radii
    )


@dataclass(frozen=True)
class LossGradient:
    """Mean absolute difference between prediction and pixels, and its gradient.

    Attributes
    ----------
    loss
        Mean over the pixels inside the mask (intensity).
    prediction
        Predicted pixels (array of the backend, flat as `Slices.values`); zero outside the mask.
    means, log_scales, quaternions, amplitudes
        Gradient by the Gaussians.
    poses
        Gradient by each slice's pose, see `gsvr.operators.acquisition.moved_poses`.
    """

    loss: float
    prediction: Array
    means: Float[np.ndarray, "n 3"]
    log_scales: Float[np.ndarray, "n 3"]
    quaternions: Float[np.ndarray, "n 4"]
    amplitudes: Float[np.ndarray, " n"]
    poses: Float[np.ndarray, "slices 6"]


def absolute_error(operator: GaussianOperator, field: GaussianField) -> LossGradient:
    """Mean absolute error of a field, whose Gaussians are the operator's, with its gradient."""
    pixels, backend, n_pixels = operator.pixels, operator.backend, operator.slices.n_pixels
    amplitudes = backend.array(field.amplitudes)
    inside = pixels.coverage > 0
    prediction = operator.predict(amplitudes) * inside
    difference = (prediction - pixels.values) * inside
    size = abs(difference)
    residual = difference / (size.clip(min=1e-30) * n_pixels)
    geometry = operator.geometry_gradient(amplitudes, residual)
    log_scales, quaternions = field.shape_gradient(geometry.covariances)
    return LossGradient(
        loss=float(pixels.sum_per_slice(size).sum()) / n_pixels,
        prediction=prediction,
        means=geometry.means,
        log_scales=log_scales,
        quaternions=quaternions,
        amplitudes=backend.host(operator.adjoint(residual)),
        poses=geometry.poses,
    )


def _optimiser(options: PublishedOptions) -> AdamW:
    rates = {
        "means": LearningRate(options.mean_rate),
        "log_scales": LearningRate(options.scale_rate, options.weight_decay),
        "quaternions": LearningRate(options.quaternion_rate, options.weight_decay),
        "amplitudes": LearningRate(options.amplitude_rate, options.weight_decay),
        "rotations": LearningRate(options.rotation_rate),
        "translations": LearningRate(options.translation_rate),
    }
    return AdamW(rates, options.halved_every)


def scale_prior(field: GaussianField, preferred: float, weight: float) -> tuple[float, Float[np.ndarray, "n 3"]]:
    """Weight x mean squared difference (mm^2) of all standard deviations from `preferred`; gradient by log-scales."""
    scales = np.exp(field.log_scales.astype(np.float64))
    away = scales - preferred
    return weight * float(np.mean(away**2)), 2 * weight / away.size * away * scales


def _step(
    optimiser: AdamW, field: GaussianField, gradient: LossGradient, by_log_scale: Float[np.ndarray, "n 3"]
) -> tuple[GaussianField, Float[np.ndarray, "slices 6"]]:
    """The field after a step, and the step of every slice, see `gsvr.operators.acquisition.moved_poses`."""
    still = np.zeros((len(gradient.poses), 3))
    values = {
        "means": field.means,
        "log_scales": field.log_scales,
        "quaternions": field.quaternions,
        "amplitudes": field.amplitudes,
        "rotations": still,
        "translations": still,
    }
    gradients = {
        "means": gradient.means,
        "log_scales": gradient.log_scales + by_log_scale,
        "quaternions": gradient.quaternions,
        "amplitudes": gradient.amplitudes,
        "rotations": gradient.poses[:, :3],
        "translations": gradient.poses[:, 3:],
    }
    moved = optimiser.step(values, gradients)
    steps = np.concatenate([moved.pop("rotations"), moved.pop("translations")], axis=1)
    return replace(field, **moved), steps


def _state(operator: GaussianOperator, gradient: LossGradient, objective: float) -> State:
    """The reconstruction before a step, for a callback; there are no weights, and no prior on amplitudes."""
    n = operator.slices.n_slices
    weights = Weights(operator.pixels.coverage, np.ones(n), objective, objective, np.zeros(n))
    amplitudes = operator.backend.array(operator.primitives.amplitudes)
    return State(amplitudes, operator, None, weights, gradient.prediction)


def _result(
    slices: Slices, options: PublishedOptions, field: GaussianField, poses: np.ndarray, last: LossGradient, scale: float
) -> Result:
    prediction = named(options.backend).host(last.prediction) * np.float32(scale)
    residual = (slices.values - prediction) * slices.mask
    count = np.maximum(slices.sum_per_slice(slices.mask), 1)
    return Result(
        field=replace(field, amplitudes=field.amplitudes * np.float32(scale)),
        slices=slices,
        mask=consensus_mask(slices, slices.mask, poses, options.masks, options.profile),
        poses=poses,
        pose_deviations=np.full((slices.n_slices, 2), np.nan),
        gains=np.ones(slices.n_slices),
        slice_weights=(slices.sum_per_slice(slices.mask) > 0).astype(np.float64),
        noise=robust_deviation(residual[slices.mask]),
        residuals=np.sqrt(slices.sum_per_slice(residual**2) / count),
        prediction=prediction,
    )
