"""What to believe: robust weights of pixels and slices, and the gain of each slice.

Nothing ever gets the weight zero: a slice without weight could not recover once its pose has been found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gsvr.model.slices import Slices

# Pixels that the noise is measured in: enough for half a percent.
_ENOUGH = 100_000


@dataclass(frozen=True)
class WeightOptions:
    """How residuals become weights.

    Attributes
    ----------
    pixel_cauchy
        Residual, in robust standard deviations, at which a pixel's weight is one half.
    slice_welsch
        Excess of a slice's residual over the median, in robust deviations, at which its weight is 0.6.
    slice_floor
        Least weight of a slice.
    gain_limit
        Gains stay between 1 / gain_limit and gain_limit times the level of their stack.
    """

    pixel_cauchy: float = 4.0
    slice_welsch: float = 3.0
    slice_floor: float = 0.02
    gain_limit: float = 3.0


@dataclass(frozen=True)
class Weights:
    """Weights for one round.

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

    pixels: Float32[np.ndarray, " p"]
    slices: Float[np.ndarray, " n"]
    noise: float
    white_noise: float
    residuals: Float[np.ndarray, " n"]

    def noise_sample(self, rng: np.random.Generator) -> Float32[np.ndarray, " p"]:
        """Noise of every pixel: of variance white_noise^2 / W, as a pixel of weight W has."""
        root = np.sqrt(np.maximum(self.pixels, 1e-6)).astype(np.float32)
        return np.float32(self.white_noise) * rng.standard_normal(len(root), np.float32) / root


def robust_deviation(values: np.ndarray) -> float:
    """Standard deviation of a normal distribution with the same median absolute value."""
    return 1.4826 * float(np.median(np.abs(values))) if values.size else 0.0


def robust_weights(slices: Slices, prediction: Float32[np.ndarray, " p"], options: WeightOptions) -> Weights:
    """Cauchy weights for pixels, one-sided Welsch weights for slices."""
    residual = slices.values - prediction
    some = np.arange(0, len(residual) - 1, max(slices.n_pixels // _ENOUGH, 1))
    inside = slices.mask[some]
    noise = max(robust_deviation(residual[some][inside]), 1e-6)
    # Neighbours in the flat array are neighbours along v, except for the few pairs at the ends of rows.
    both = inside & slices.mask[some + 1]
    white_noise = min(noise, robust_deviation((residual[some + 1] - residual[some])[both]) / np.sqrt(2))
    scaled = residual / np.float32(options.pixel_cauchy * noise)
    pixels = slices.coverage * slices.mask / (1 + scaled * scaled)
    count = slices.sum_per_slice(slices.mask)
    residuals = np.sqrt(slices.sum_per_slice(residual**2 * slices.mask) / np.maximum(count, 1))
    seen = residuals[count > 0]
    centre = float(np.median(seen))
    spread = max(robust_deviation(seen - centre), 0.05 * centre, 1e-9)
    excess = np.maximum(residuals - centre, 0) / spread
    per_slice = np.maximum(np.exp(-0.5 * (excess / options.slice_welsch) ** 2), options.slice_floor)
    return Weights(pixels * slices.per_pixel(per_slice.astype(np.float32)), per_slice, noise, white_noise, residuals)


def fit_gains(
    slices: Slices,
    gain_free_prediction: Float32[np.ndarray, " p"],
    weights: Float32[np.ndarray, " p"],
    options: WeightOptions,
    mean_one: bool = True,
) -> Float[np.ndarray, " n"]:
    """Least-squares gain of each slice, scaled to a weighted mean of one (not for slices the field did not see).

    A slice with little signal keeps close to its stack's level: its energy is held against a hundredth of the median.
    """
    energy = slices.sum_per_slice(weights * gain_free_prediction**2)
    match = slices.sum_per_slice(weights * gain_free_prediction * slices.values)
    hold = 0.01 * float(np.median(energy)) + 1e-12
    # stacks may differ in scale by any factor; slices of one stack may not
    level = np.ones(slices.n_slices)
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        level[members] = match[members].sum() / max(float(energy[members].sum()), 1e-12)
    level = np.maximum(level, 1e-6)
    gains = (match + hold * level) / (energy + hold)
    gains = np.clip(gains, level / options.gain_limit, level * options.gain_limit)
    return gains / np.average(gains, weights=energy + hold) if mean_one else gains
