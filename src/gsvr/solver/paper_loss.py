"""What the paper's settings minimise, and its gradient, by the package's own kernels or by plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from gsvr.backends.views import nearest_radii
from gsvr.errors import InputError
from gsvr.model.fields import GaussianField
from gsvr.model.point_spread import ProfileName, point_spread
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator

# Pixels whose pairs with Gaussians PyTorch holds in memory together: 0.2 GB on the CPU, some 5 GB on a GPU.
_PIXELS_AT_ONCE = {"cpu": 1 << 14}
_PIXELS_AT_ONCE_ELSEWHERE = 1 << 18


@dataclass(frozen=True)
class LossGradient:
    """Mean absolute difference between prediction and pixels, and its gradient.

    Attributes
    ----------
    loss
        Mean over the pixels inside the mask (intensity).
    prediction
        Predicted pixels (flat, as `Slices.values`); zero outside the mask.
    means, log_scales, quaternions, amplitudes
        Gradient by the Gaussians.
    poses
        Gradient by each slice's pose, see `gsvr.operators.acquisition.moved_poses`.
    """

    loss: float
    prediction: Float32[np.ndarray, " p"]
    means: Float[np.ndarray, "n 3"]
    log_scales: Float[np.ndarray, "n 3"]
    quaternions: Float[np.ndarray, "n 4"]
    amplitudes: Float[np.ndarray, " n"]
    poses: Float[np.ndarray, "slices 6"]


@runtime_checkable
class PaperLoss(Protocol):
    """One way to evaluate it. Neighbours are those of the last refresh."""

    def refresh(self, field: GaussianField, poses: Float[np.ndarray, "n 4 4"]) -> None:
        """Find every pixel's nearest Gaussians anew."""
        ...

    def evaluate(self, field: GaussianField, poses: Float[np.ndarray, "n 4 4"]) -> LossGradient:
        """Loss and gradient."""
        ...


class SplatLoss:
    """By the compiled kernels. A pixel's nearest Gaussians are those within a radius, kept between refreshes."""

    def __init__(self, slices: Slices, profile: ProfileName, cutoff: float) -> None:
        self._slices, self._cutoff = slices, cutoff
        self._profile: ProfileName = profile
        self._radii: Float32[np.ndarray, " p"] | None = None

    def refresh(self, field: GaussianField, poses: Float[np.ndarray, "n 4 4"]) -> None:
        """Radii within which the field's `nearest` Gaussians stand."""
        if field.nearest is not None:
            self._radii = nearest_radii(field.means, self._slices, poses, field.nearest)

    def evaluate(self, field: GaussianField, poses: Float[np.ndarray, "n 4 4"]) -> LossGradient:
        """Loss and gradient."""
        slices = self._slices
        operator = AcquisitionOperator(
            field, slices, poses, profile=self._profile, cutoff=self._cutoff, squared_radii=self._radii
        )
        prediction = operator.predict(field.amplitudes) * slices.mask
        difference = (prediction - slices.values) * slices.mask
        residual = np.sign(difference) / np.float32(slices.n_pixels)
        geometry = operator.geometry_gradient(field.amplitudes, residual)
        log_scales, quaternions = field.shape_gradient(geometry.covariances)
        return LossGradient(
            loss=float(np.abs(difference).sum(dtype=np.float64)) / slices.n_pixels,
            prediction=prediction,
            means=geometry.means,
            log_scales=log_scales,
            quaternions=quaternions,
            amplitudes=operator.adjoint(residual),
            poses=geometry.poses,
        )


class TorchLoss:
    """By `gsvr.backends.torch.gaussian_torch`: the same Gaussians are a pixel's neighbours until the next refresh.

    Raises
    ------
    InputError
        If PyTorch is not installed or does not find the device.
    """

    def __init__(self, slices: Slices, profile: ProfileName, device: str) -> None:
        try:
            import torch

            from gsvr.backends.torch.gaussian_torch import NearestGaussians
        except ImportError as error:
            raise InputError("this needs PyTorch: install it with `pip install gsvr[torch]`") from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(f"PyTorch finds no device {device!r} here: choose cpu")
        spread = point_spread(slices.spacings, slices.thicknesses, profile, slices.binning)
        at_once = _PIXELS_AT_ONCE.get(device, _PIXELS_AT_ONCE_ELSEWHERE)
        self._pixels = NearestGaussians(slices, spread, device, pixels_at_once=at_once)

    def refresh(self, field: GaussianField, poses: Float[np.ndarray, "n 4 4"]) -> None:
        """The field's `nearest` Gaussians of every pixel, or all if it has no such number."""
        self._pixels.find_neighbours(field.means, poses, field.nearest or field.n_gaussians)

    def evaluate(self, field: GaussianField, poses: Float[np.ndarray, "n 4 4"]) -> LossGradient:
        """Loss and gradient."""
        loss, prediction, gradient = self._pixels.l1_gradient(field, poses)
        return LossGradient(loss, prediction, **gradient)
