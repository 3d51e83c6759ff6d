"""Robust weights and gains of `gsvr.solver.weights` on a device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from gsvr.device_solver.device_slices import DeviceSlices
from gsvr.device_solver.order_statistics import median, robust_deviation
from gsvr.model.slices import Slices
from gsvr.solver.weights import WeightOptions, Weights


@dataclass(frozen=True)
class DeviceWeights:
    """As `gsvr.solver.weights.Weights`, without a number on the host."""

    pixels: Float32[Tensor, " p"]
    slices: Float[Tensor, " n"]
    noise: Float[Tensor, ""]
    white_noise: Float[Tensor, ""]
    residuals: Float[Tensor, " n"]

    @staticmethod
    def of(weights: Weights, host_slices: Slices, slices: DeviceSlices) -> DeviceWeights:
        """Copy weights to the device of the slices."""

        def move(values: np.ndarray | float, dtype: torch.dtype = slices.exact) -> Tensor:
            return torch.as_tensor(values, dtype=dtype).to(slices.values.device)

        # pixels of another stage are no weights of this one's: they are made anew in the first round
        fit = host_slices.values.shape == weights.pixels.shape
        return DeviceWeights(
            move(weights.pixels if fit else host_slices.coverage, torch.float32),
            move(weights.slices),
            move(weights.noise),
            move(weights.white_noise),
            move(weights.residuals),
        )

    def on_host(self) -> Weights:
        """A copy."""
        return Weights(
            pixels=self.pixels.cpu().numpy(),
            slices=self.slices.cpu().double().numpy(),
            noise=float(self.noise),
            white_noise=float(self.white_noise),
            residuals=self.residuals.cpu().double().numpy(),
        )


def robust_weights(slices: DeviceSlices, prediction: Float32[Tensor, " p"], options: WeightOptions) -> DeviceWeights:
    """Cauchy weights for pixels, one-sided Welsch weights for slices."""
    residual = slices.values - prediction
    noise = robust_deviation(residual[slices.inside]).to(slices.exact).clamp(min=1e-6)
    between = residual[slices.neighbours + 1] - residual[slices.neighbours]
    white_noise = torch.minimum(noise, robust_deviation(between).to(slices.exact) / 2**0.5)
    scaled = residual / (options.pixel_cauchy * noise).to(torch.float32)
    pixels = slices.coverage * slices.mask / (1 + scaled * scaled)
    residuals = (slices.sum_per_slice(residual * residual * slices.mask) / slices.counts.clamp(min=1)).sqrt()
    seen = residuals[slices.seen]
    centre = median(seen)
    spread = torch.maximum(robust_deviation(seen - centre), 0.05 * centre).clamp(min=1e-9)
    excess = (residuals - centre).clamp(min=0) / spread
    per_slice = torch.exp(-0.5 * (excess / options.slice_welsch) ** 2).clamp(min=options.slice_floor)
    return DeviceWeights(pixels * slices.per_pixel(per_slice), per_slice, noise, white_noise, residuals)


def fit_gains(
    slices: DeviceSlices,
    gain_free_prediction: Float32[Tensor, " p"],
    weights: Float32[Tensor, " p"],
    options: WeightOptions,
) -> Float[Tensor, " n"]:
    """Least-squares gain of each slice, scaled to a weighted mean of one, see `gsvr.solver.weights.fit_gains`."""
    weighted = weights * gain_free_prediction
    energy = slices.sum_per_slice(weighted * gain_free_prediction)
    match = slices.sum_per_slice(weighted * slices.values)
    hold = 0.01 * median(energy) + 1e-12
    level = (slices.members @ match) / (slices.members @ energy).clamp(min=1e-12)
    level = level[slices.stack_of].clamp(min=1e-6)
    gains = (match + hold * level) / (energy + hold)
    gains = torch.minimum(torch.maximum(gains, level / options.gain_limit), level * options.gain_limit)
    share = energy + hold
    return gains * (share.sum() / (gains * share).sum())
