"""Slices to the pixels of the network and probabilities back, by separable weights."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

NETWORK_SPACING = 2.0  # mm: the pixels the network was trained on


def averaging_weights(n: int, spacing: float) -> Float[np.ndarray, "m n"]:
    """Weights that average ``n`` pixels of ``spacing`` mm over pixels of 2 mm; smaller ones are interpolated."""
    m = max(int(np.ceil(n * spacing / NETWORK_SPACING)), 1)
    centres = (np.arange(n) - (n - 1) / 2) * spacing
    wanted = (np.arange(m) - (m - 1) / 2) * NETWORK_SPACING
    # a triangle as wide as the wider of both pixels: an average going down, linear interpolation going up
    width = max(spacing, NETWORK_SPACING)
    weights = np.clip(1 - np.abs(wanted[:, None] - centres) / width, 0, None)
    # past the last pixel's centre: the nearest pixel
    weights[np.arange(m), np.abs(wanted[:, None] - centres).argmin(axis=1)] += 1e-6
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def interpolating_weights(n: int, spacing: float) -> Float[np.ndarray, "n m"]:
    """Weights that interpolate linearly from pixels of 2 mm back to the ``n`` pixels of ``spacing`` mm."""
    m = max(int(np.ceil(n * spacing / NETWORK_SPACING)), 1)
    position = ((np.arange(n) - (n - 1) / 2) * spacing) / NETWORK_SPACING + (m - 1) / 2
    position = np.clip(position, 0, m - 1)
    first = np.minimum(np.floor(position).astype(int), max(m - 2, 0))
    weights = np.zeros((n, m), np.float32)
    weights[np.arange(n), first] = 1 - (position - first)
    if m > 1:
        weights[np.arange(n), first + 1] = position - first
    return weights
