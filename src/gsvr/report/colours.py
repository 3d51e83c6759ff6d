"""From intensities to colours that everybody can tell apart."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from scipy import ndimage

OUTLINE = (255, 150, 40)
# The intensity window, as percentiles.
_PERCENTILES = (0.5, 99.5)
# Percentage of negative values up to which an image counts as one of magnitudes that overshoot here and there.
_OVERSHOOT = 5.0
# Dark blue through grey to yellow, even in lightness, also for those who see no red or no green (after cividis).
_SEQUENTIAL = np.array([(0, 32, 77), (62, 77, 108), (124, 123, 120), (188, 174, 108), (255, 233, 69)], float)


def window(values: Shaped[np.ndarray, " n"]) -> tuple[float, float]:
    """What is black and what is white: nearly the range of `values`, but for what sticks out.

    A few negative values do not make what is zero grey.
    """
    low, few, high = np.percentile(values, (_PERCENTILES[0], _OVERSHOOT, _PERCENTILES[1]))
    low = 0.0 if low < 0 <= few else low
    return float(low), float(high if high > low else low + 1)


def grey(values: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Black at zero, white at one."""
    level = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=-1)


def diverging(values: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Black at zero, through orange to yellow above it, through blue to cyan below; full colour at one."""
    strength = np.clip(np.abs(values), 0, 1)[..., None] ** 0.8
    sides = np.where(values[..., None] > 0, (1.0, 0.55, 0.1), (0.1, 0.5, 1.0))
    return np.round(255 * np.clip(sides * strength + 0.35 * strength**3, 0, 1)).astype(np.uint8)


def sequential(values: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Dark blue at zero, yellow at one."""
    place = np.clip(values, 0, 1) * (len(_SEQUENTIAL) - 1)
    channels = [np.interp(place, np.arange(len(_SEQUENTIAL)), channel) for channel in _SEQUENTIAL.T]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def outlined(
    panel: UInt8[np.ndarray, "height width 3"], where: Shaped[np.ndarray, "height width"], width: int = 2
) -> UInt8[np.ndarray, "height width 3"]:
    """A panel with the inner edge of a mask, `width` pixels wide."""
    inner = np.asarray(ndimage.binary_erosion(where, iterations=width), dtype=bool)
    return np.where((where & ~inner)[..., None], np.array(OUTLINE, np.uint8), panel)
