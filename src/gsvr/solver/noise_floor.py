"""The noise floor of magnitude images: dark tissue in noise looks brighter than it is.

The magnitude of a signal A in complex Gaussian noise of standard deviation s a channel has the mean of a Rician
distribution, s sqrt(pi/2) L_1/2(-A^2 / 2 s^2), and the mean square A^2 + 2 s^2 (Gudbjartsson and Patz, Magnetic
Resonance in Medicine 1995). The second gives the signal of a neighbourhood, and the difference of the first from it is
what its pixels are too bright by: hardly anything where the signal is several times the noise, 1.25 s where there is
none.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage
from scipy.special import ive

from gsvr.model.slices import Slices
from gsvr.solver.loss import robust_deviation

# Pixels to a side of the neighbourhood whose signal is taken to be one.
_SIDE = 3
# Signals (in s) between which the excess is looked up; above the last it is below half a percent.
_SIGNALS = np.linspace(0.0, 100.0, 10_001)
# For fewer pixels the noise is unknown.
_LEAST_PIXELS = 200


def noise_floor(slices: Slices) -> Float32[np.ndarray, " p"]:
    """By how much each pixel is too bright, on average over its noise; zero where it shows nothing at all."""
    floor = np.zeros(len(slices.values), np.float32)
    excesses = _mean_magnitude(_SIGNALS) - _SIGNALS
    for stack in np.unique(slices.stack_index):
        members = np.flatnonzero(slices.stack_index == stack)
        noise = noise_of(slices, members)
        if not noise > 0:
            continue
        for s in members.tolist():
            image = slices.image(s)
            shown = (image > 0).astype(np.float32)
            count = np.maximum(ndimage.uniform_filter(shown, _SIDE, mode="constant"), 1e-6)
            square = ndimage.uniform_filter(np.square(image) * shown, _SIDE, mode="constant") / count
            signal = np.sqrt(np.maximum(square / noise**2 - 2, 0))
            floor[slices.pixels_of(s)] = (noise * np.interp(signal, _SIGNALS, excesses) * shown).ravel()
    return floor


def noise_of(slices: Slices, members: np.ndarray) -> float:
    """Standard deviation of the noise of some slices, from the differences of differences of neighbouring pixels.

    In the brighter half of the pixels in use, where the noise of the magnitude is that of a channel. Where neighbours
    have noise in common, as in interpolated images, it comes out too low.
    """
    differences, levels = [], []
    for s in members.tolist():
        image, inside = slices.image(s), slices.image(s, slices.mask) & (slices.image(s) > 0)
        whole = inside[1:, 1:] & inside[:-1, 1:] & inside[1:, :-1] & inside[:-1, :-1]
        corners = image[1:, 1:], image[:-1, 1:], image[1:, :-1], image[:-1, :-1]
        differences.append((corners[0] - corners[1] - corners[2] + corners[3])[whole] / 2)
        levels.append(sum(corner[whole] for corner in corners) / 4)
    difference, level = np.concatenate(differences), np.concatenate(levels)
    if len(level) < _LEAST_PIXELS:
        return 0.0
    return robust_deviation(difference[level >= np.median(level)])


def _mean_magnitude(signal: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Of a signal in noise of standard deviation one a channel."""
    half = signal**2 / 4
    return np.sqrt(np.pi / 2) * ((1 + 2 * half) * ive(0, half) + 2 * half * ive(1, half))
