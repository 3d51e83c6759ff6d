"""All unknowns at once by AdamW, epoch by epoch.

The normalised field of K nearest Gaussians, seeded at pixels with steep gradients; means, scales, rotations,
intensities, the poses of all slices and their gains descend on every pixel at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32
from scipy.special import expit
from threadpoolctl import threadpool_limits

from gsvr.backends import named
from gsvr.backends.views import nearest_radii
from gsvr.masks.consensus import consensus_mask
from gsvr.model.bias_field import N_TERMS
from gsvr.model.fields import GaussianField
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import moved_poses
from gsvr.operators.gaussians import GaussianOperator
from gsvr.solver.adamw import AdamW, LearningRate
from gsvr.solver.gains import intensity_scale
from gsvr.solver.loss import Weights, robust_deviation
from gsvr.solver.pixel_seeding import seed_at_pixels
from gsvr.solver.published.objective import (
    LossGradient,
    absolute_error,
    motion_penalty,
    scale_penalty,
    slice_weights,
)
from gsvr.solver.published.options import PublishedOptions
from gsvr.solver.reconstruct import Progress
from gsvr.solver.stack_alignment import first_poses
from gsvr.solver.state import Result, State, StopReconstruction

# Softplus has no inverse at zero, where the background of a stripped brain lies.
_LEAST_INTENSITY = 1e-6


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
        Settings, with the printed ones as defaults; `gsvr.solver.published.published_code` has those of the code.
    callback
        Called after each epoch; may raise `StopReconstruction` to end here with what there is. The noise of the
        state's weights is the objective.
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
        return _run_epochs(slices, options, callback, first_poses(slices, options.moving) if poses is None else poses)


@dataclass(frozen=True)
class _Unknowns:
    """What the optimiser moves: amplitudes of the field and gains are softplus functions of `raw` and `raw_gains`."""

    field: GaussianField
    raw: Float[np.ndarray, " n"]
    raw_gains: Float[np.ndarray, " slices"]
    poses: Float[np.ndarray, "slices 4 4"]

    @property
    def gains(self) -> Float[np.ndarray, " slices"]:
        """Of the slices, mean one."""
        positive = np.logaddexp(0, self.raw_gains)
        return positive / positive.mean()


def _run_epochs(
    slices: Slices,
    options: PublishedOptions,
    callback: Callable[[Progress], None] | None,
    poses: Float[np.ndarray, "n 4 4"],
) -> Result:
    started, scale, total = time.perf_counter(), intensity_scale(slices), options.epochs
    scaled = replace(slices, values=slices.values / np.float32(scale))
    unknowns, first = _first_unknowns(scaled, options, poses), poses
    optimiser, weights = _optimiser(options), np.ones(slices.n_slices)
    radii = None
    for epoch in range(1, total + 1):
        refreshed = (epoch - 1) % options.refreshed_every == 0
        if refreshed:
            radii = _radii(unknowns, scaled, options)
        operator = _operator(unknowns, scaled, options, radii)
        gradient = absolute_error(operator, unknowns.field, weights)
        objective, unknowns = _step(optimiser, slices, options, unknowns, first, gradient)
        if callback:
            state = _state(operator, gradient, weights, objective)
            seconds, done = time.perf_counter() - started, epoch == total
            try:
                even = np.zeros((len(slices.stack_names), N_TERMS))
                callback(Progress(options.stage, epoch, epoch, total, state, scale, seconds, done, slices.mask, even))
            except StopReconstruction:
                break
        if options.weighted_slices and refreshed and epoch > total // 4:
            weights = slice_weights(slices, gradient.errors)
    radii = _radii(unknowns, scaled, options)
    last = absolute_error(_operator(unknowns, scaled, options, radii), unknowns.field)
    return _result(slices, options, unknowns, weights, last, scale)


def _first_unknowns(slices: Slices, options: PublishedOptions, poses: Float[np.ndarray, "n 4 4"]) -> _Unknowns:
    field = seed_at_pixels(
        slices, poses, options.n_gaussians, options.initial_scale, options.uniform_share, options.seed
    )
    field = replace(field, normalisation=options.normalisation, nearest=options.nearest)
    if options.normalisation is None:
        operator = GaussianOperator(field, slices, poses, None, options.profile, options.backend, options.cutoff)
        summed = operator.backend.host(operator.predict(operator.backend.array(field.amplitudes)))[slices.mask]
        share = float(summed @ slices.values[slices.mask]) / float(summed @ summed)
        field = replace(field, amplitudes=field.amplitudes * np.float32(share))
    raw = np.log(np.expm1(np.maximum(field.amplitudes.astype(np.float64), _LEAST_INTENSITY)))
    return _Unknowns(replace(field, amplitudes=_softplus(raw)), raw, np.zeros(slices.n_slices), poses)


def _radii(unknowns: _Unknowns, slices: Slices, options: PublishedOptions) -> Float32[np.ndarray, " p"] | None:
    """How far each pixel sees; None: as far as Gaussians reach."""
    if options.nearest is None:
        return None
    return nearest_radii(unknowns.field.means, slices, unknowns.poses, options.nearest)


def _softplus(raw: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, raw).astype(np.float32)


def _operator(
    unknowns: _Unknowns, slices: Slices, options: PublishedOptions, radii: np.ndarray | None
) -> GaussianOperator:
    return GaussianOperator(
        unknowns.field, slices, unknowns.poses, unknowns.gains, options.profile, options.backend, options.cutoff, radii
    )


def _optimiser(options: PublishedOptions) -> AdamW:
    rates = {
        "means": LearningRate(options.mean_rate),
        "log_scales": LearningRate(options.scale_rate, options.weight_decay),
        "quaternions": LearningRate(options.quaternion_rate, options.weight_decay),
        "raw": LearningRate(options.amplitude_rate, options.weight_decay),
        "rotations": LearningRate(options.rotation_rate),
        "translations": LearningRate(options.translation_rate),
        "raw_gains": LearningRate(options.gain_rate),
    }
    return AdamW(rates, options.schedule)


def _step(
    optimiser: AdamW,
    slices: Slices,
    options: PublishedOptions,
    unknowns: _Unknowns,
    first: Float[np.ndarray, "n 4 4"],
    gradient: LossGradient,
) -> tuple[float, _Unknowns]:
    """The objective before a step, and the unknowns after it."""
    field = unknowns.field
    of_scales, by_log_scale = scale_penalty(field, options.scale_prior)
    of_motion, by_pose = motion_penalty(slices, first, unknowns.poses, options)
    by_pose += gradient.poses
    # gains are softplus functions divided by their mean
    by_gain = gradient.gains - np.mean(gradient.gains * unknowns.gains)
    slope = expit(unknowns.raw_gains) / np.logaddexp(0, unknowns.raw_gains).mean()
    still = np.zeros((slices.n_slices, 3))
    values = {
        "means": field.means,
        "log_scales": field.log_scales,
        "quaternions": field.quaternions,
        "raw": unknowns.raw,
        "rotations": still,
        "translations": still,
        "raw_gains": unknowns.raw_gains,
    }
    gradients = {
        "means": gradient.means,
        "log_scales": gradient.log_scales + by_log_scale,
        "quaternions": gradient.quaternions,
        "raw": gradient.amplitudes * expit(unknowns.raw),
        "rotations": by_pose[:, :3],
        "translations": by_pose[:, 3:],
        "raw_gains": by_gain * slope,
    }
    moved = optimiser.step(values, gradients)
    steps = np.concatenate([moved["rotations"], moved["translations"]], axis=1)
    field = replace(
        field,
        means=moved["means"],
        log_scales=np.clip(moved["log_scales"], -options.scale_limit, options.scale_limit),
        quaternions=moved["quaternions"],
        amplitudes=_softplus(moved["raw"]),
    )
    poses = moved_poses(slices, unknowns.poses, steps) if options.moving else unknowns.poses
    return gradient.loss + of_scales + of_motion, _Unknowns(field, moved["raw"], moved["raw_gains"], poses)


def _state(operator: GaussianOperator, gradient: LossGradient, weights: np.ndarray, objective: float) -> State:
    """The reconstruction before a step, for a callback; there is no prior on amplitudes."""
    pixels = operator.pixels.coverage * operator.pixels.per_pixel(weights)
    amplitudes = operator.backend.array(operator.primitives.amplitudes)
    return State(
        amplitudes, operator, None, Weights(pixels, weights, objective, objective, gradient.errors), gradient.prediction
    )


def _result(
    slices: Slices,
    options: PublishedOptions,
    unknowns: _Unknowns,
    weights: Float[np.ndarray, " n"],
    last: LossGradient,
    scale: float,
) -> Result:
    prediction = named(options.backend).host(last.prediction) * np.float32(scale)
    residual = (slices.values - prediction) * slices.mask
    count = np.maximum(slices.sum_per_slice(slices.mask), 1)
    field = unknowns.field
    return Result(
        field=replace(field, amplitudes=field.amplitudes * np.float32(scale)),
        slices=slices,
        mask=consensus_mask(slices, slices.mask, unknowns.poses, options.masks, options.profile),
        poses=unknowns.poses,
        pose_deviations=np.full((slices.n_slices, 2), np.nan),
        gains=unknowns.gains,
        slice_weights=weights * (slices.sum_per_slice(slices.mask) > 0),
        noise=robust_deviation(residual[slices.mask]),
        residuals=np.sqrt(slices.sum_per_slice(residual**2) / count),
        prediction=prediction,
        profile=options.profile,
    )
