"""What a stack shows at all: the mask where nobody drew one and no brain was looked for."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from gsvr.errors import InputError
from gsvr.model.morphology import largest_part
from gsvr.model.slices import Stack

# of logarithms of intensities
_SMALLEST_CONTRAST = 1e-3


def foreground(stack: Stack) -> Bool[np.ndarray, "columns rows slices"]:
    """Pixels that show anything: the non-zero ones where the background is zero, else those above a threshold.

    The threshold is Otsu's on the logarithm of smoothed intensities; the largest connected part counts, holes filled.

    Raises
    ------
    InputError
        If no pixel is above zero.
    """
    if not stack.data.max() > 0:
        raise InputError(f"{stack.name} has no positive intensities: give it a mask, or leave it out")
    if (stack.data == 0).mean() > 0.2:
        shown = stack.data != 0
        # closing takes the world beyond the image for background: what was shown there stays
        mask = ndimage.binary_closing(shown, iterations=2) | shown
    else:
        # not the brightest pixel of all, which may be an artefact
        bright = np.quantile(stack.data.max(axis=(0, 1)), 0.75, method="lower") or stack.data.max()
        level = np.log(ndimage.gaussian_filter(np.clip(stack.data, 0, bright), (2, 2, 0)) + 1e-3 * bright)
        mask = level > _otsu(level)
    if not mask.any():
        raise InputError(f"{stack.name} has no foreground: give it a mask, or leave it out")
    return largest_part(np.asarray(mask, dtype=bool))


def _otsu(values: np.ndarray) -> float:
    """Threshold between two classes of logarithms; below all of them where they are as good as equal."""
    if np.ptp(values) < _SMALLEST_CONTRAST:
        return -np.inf
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    mean_below = np.cumsum(counts * centres) / np.maximum(below, 1)
    mean_above = ((counts * centres).sum() - np.cumsum(counts * centres)) / np.maximum(above, 1)
    return float(centres[np.argmax(below * above * (mean_below - mean_above) ** 2)])
