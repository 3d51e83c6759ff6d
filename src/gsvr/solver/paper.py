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
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from gsvr.backends import on_device
from gsvr.backends.windows import CUTOFF
from gsvr.masks.consensus import MaskOptions, agreed_mask
from gsvr.model.fields import GaussianField
from gsvr.model.point_spread import ProfileName
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import moved_poses
from gsvr.solver.adamw import AdamW, LearningRate
from gsvr.solver.initialise import first_poses
from gsvr.solver.paper_loss import LossGradient, PaperLoss, SplatLoss, TorchLoss
from gsvr.solver.pixel_seeding import seed_at_pixels
from gsvr.solver.reconstruct import intensity_scale
from gsvr.solver.state import Result
from gsvr.solver.weights import robust_deviation


@dataclass(frozen=True)
class PaperOptions:
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
    backend, device
        ``"cpu"``: compiled kernels; ``"torch"``: plain PyTorch on a `device` it knows.
    cutoff
        Of the compiled kernels (standard deviations), on top of the nearest neighbours.
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
    profile: ProfileName = "gaussian"
    masks: MaskOptions = MaskOptions()
    backend: str = "cpu"
    device: str = "cpu"
    cutoff: float = CUTOFF
    seed: int = 0

    @property
    def rendered_on(self) -> str:
        """Backend for pictures of the field: where it is fitted, if that is a device with kernels."""
        return self.device if self.backend == "torch" and on_device(self.device) else "cpu"


@dataclass(frozen=True)
class PaperProgress:
    """What a callback is told after each epoch.

    Attributes
    ----------
    done, total
        Epochs so far and in all.
    loss
        Objective before the step of this epoch, as a share of bright tissue.
    field, poses
        The reconstruction as it stands, in units of the input.
    seconds
        Wall time since the start.
    """

    done: int
    total: int
    loss: float
    field: GaussianField
    poses: Float[np.ndarray, "n 4 4"]
    seconds: float


def reconstruct_as_published(
    slices: Slices,
    options: PaperOptions | None = None,
    callback: Callable[[PaperProgress], None] | None = None,
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
        Called after each epoch; may raise to stop.
    poses
        First guess, acquired world -> volume world; default: `gsvr.solver.initialise.first_poses`.

    Raises
    ------
    ValueError
        If no pixel carries any signal.
    InputError
        If PyTorch or the device asked for is missing.
    """
    options = options or PaperOptions()
    with threadpool_limits(1, "blas"):
        return _run_epochs(slices, options, callback, first_poses(slices) if poses is None else poses)


def _run_epochs(
    slices: Slices,
    options: PaperOptions,
    callback: Callable[[PaperProgress], None] | None,
    poses: Float[np.ndarray, "n 4 4"],
) -> Result:
    started, scale = time.perf_counter(), intensity_scale(slices)
    scaled = replace(slices, values=slices.values / np.float32(scale))
    field = seed_at_pixels(
        scaled, poses, options.n_gaussians, options.preferred_scale, options.uniform_share, options.seed
    )
    field = replace(field, normalisation=options.normalisation, nearest=options.nearest)
    objective, optimiser = _objective(scaled, options), _optimiser(options)
    for epoch in range(options.epochs):
        if epoch % options.refreshed_every == 0:
            objective.refresh(field, poses)
        gradient = objective.evaluate(field, poses)
        prior, by_log_scale = scale_prior(field, options.preferred_scale, options.scale_weight)
        field, steps = _step(optimiser, field, gradient, by_log_scale)
        poses = moved_poses(slices, poses, steps)
        if callback:
            seconds = time.perf_counter() - started
            shown = _in_units(field, scale)
            callback(PaperProgress(epoch + 1, options.epochs, gradient.loss + prior, shown, poses, seconds))
    objective.refresh(field, poses)
    return _result(slices, options, field, poses, objective.evaluate(field, poses), scale)


def _objective(slices: Slices, options: PaperOptions) -> PaperLoss:
    if options.backend == "torch":
        return TorchLoss(slices, options.profile, options.device)
    return SplatLoss(slices, options.profile, options.cutoff)


def _optimiser(options: PaperOptions) -> AdamW:
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


def _in_units(field: GaussianField, scale: float) -> GaussianField:
    return replace(field, amplitudes=field.amplitudes * np.float32(scale))


def _result(
    slices: Slices, options: PaperOptions, field: GaussianField, poses: np.ndarray, last: LossGradient, scale: float
) -> Result:
    prediction = last.prediction * np.float32(scale)
    residual = (slices.values - prediction) * slices.mask
    count = np.maximum(slices.sum_per_slice(slices.mask), 1)
    return Result(
        field=_in_units(field, scale),
        slices=slices,
        mask=agreed_mask(slices, slices.mask, poses, options.masks, options.profile),
        poses=poses,
        gains=np.ones(slices.n_slices),
        slice_weights=np.ones(slices.n_slices),
        noise=robust_deviation(residual[slices.mask]),
        residuals=np.sqrt(slices.sum_per_slice(residual**2) / count),
        prediction=prediction,
    )
