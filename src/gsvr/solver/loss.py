"""What to believe: robust weights of pixels and slices.

Nothing ever gets the weight zero: a slice without weight could not recover once its pose has been found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from gsvr.backends import Backend
from gsvr.backends.protocol import Array
from gsvr.operators.acquisition import AcquisitionOperator

# Pixels that the noise is measured in: enough for half a percent.
_ENOUGH = 100_000


@dataclass(frozen=True, repr=False)
class Weights:
    """Weights of one outer iteration.

    Attributes
    ----------
    pixels
        Coverage x robust pixel weight x slice weight; zero outside the mask.
    slices
        Robust weight of each slice.
    noise
        Robust standard deviation of the residuals (intensity).
    white_noise
        The same from differences of neighbouring pixels: noise without what the model cannot explain smoothly.
    residuals
        Root mean square residual of each slice (intensity).
    """

    pixels: Array
    slices: Float[np.ndarray, " n"]
    noise: float
    white_noise: float
    residuals: Float[np.ndarray, " n"]

    def __repr__(self) -> str:
        return f"Weights({len(self.slices)} slices, noise={self.noise:.4g}, white_noise={self.white_noise:.4g})"

    def noise_sample(self, rng: np.random.Generator, backend: Backend) -> Float32[np.ndarray, " p"]:
        """Noise of every pixel: of variance white_noise^2 / W, as a pixel of weight W has."""
        root = np.sqrt(np.maximum(backend.host(self.pixels), 1e-6)).astype(np.float32)
        return np.float32(self.white_noise) * rng.standard_normal(len(root), np.float32) / root


@runtime_checkable
class Loss(Protocol):
    """Turns residuals into weights: iteratively reweighted least squares for any robust loss."""

    def weights(self, operator: AcquisitionOperator, prediction: Array) -> Weights:
        """Weights for the recorded values of the operator's slices and a prediction of them."""
        ...


@dataclass(frozen=True)
class RobustLoss:
    """Cauchy weights for pixels, one-sided Welsch weights for slices.

    Attributes
    ----------
    pixel_cauchy
        Residual, in robust standard deviations, at which a pixel's weight is one half.
    slice_welsch
        Excess of a slice's residual over the median, in robust deviations, at which its weight is 0.6.
    slice_floor
        Least weight of a slice.
    """

    pixel_cauchy: float = 4.0
    slice_welsch: float = 3.0
    slice_floor: float = 0.02

    def weights(self, operator: AcquisitionOperator, prediction: Array) -> Weights:
        """See `Loss`."""
        slices, pixels = operator.slices, operator.pixels
        residual = pixels.values - prediction
        noise, white_noise = _noise(operator, residual)
        scaled = residual / (self.pixel_cauchy * noise)
        robust = pixels.coverage / (1 + scaled * scaled)
        count = slices.sum_per_slice(slices.mask)
        squares = pixels.sum_per_slice(residual * residual * (pixels.coverage > 0))
        residuals = np.sqrt(squares / np.maximum(count, 1))
        seen = residuals[count > 0]
        centre = float(np.median(seen))
        spread = max(robust_deviation(seen - centre), 0.05 * centre, 1e-9)
        excess = np.maximum(residuals - centre, 0) / spread
        per_slice = np.maximum(np.exp(-0.5 * (excess / self.slice_welsch) ** 2), self.slice_floor)
        return Weights(robust * pixels.per_pixel(per_slice), per_slice, noise, white_noise, residuals)


def _noise(operator: AcquisitionOperator, residual: Array) -> tuple[float, float]:
    """Robust deviations of residuals, and of what neighbouring residuals differ by, from a sample of the pixels."""
    slices, host = operator.slices, operator.backend.host
    apart = max(slices.n_pixels // _ENOUGH, 1)
    here, there = host(residual[:-1:apart]), host(residual[1::apart])
    inside = slices.mask[:-1:apart]
    noise = max(robust_deviation(here[inside]), 1e-6)
    # neighbours in the flat array are neighbours along v, except for the few pairs at the ends of rows
    both = inside & slices.mask[1::apart]
    return noise, min(noise, robust_deviation((there - here)[both]) / 2**0.5)


def robust_deviation(values: np.ndarray) -> float:
    """Standard deviation of a normal distribution with the same median absolute value."""
    return 1.4826 * float(np.median(np.abs(values))) if values.size else 0.0
