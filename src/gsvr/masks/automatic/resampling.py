"""Slices to the pixels of the network and probabilities back, by separable weights, nearly all of them zero."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Shaped
from scipy import sparse

NETWORK_SPACING = 2.0  # mm: the pixels the network was trained on


def averaging_weights(n: int, spacing: float) -> sparse.csr_array:
    """Weights (m, n) that average ``n`` pixels of ``spacing`` mm over pixels of 2 mm; larger ones are interpolated."""
    m = max(int(np.ceil(n * spacing / NETWORK_SPACING)), 1)
    centres = (np.arange(n) - (n - 1) / 2) * spacing
    wanted = (np.arange(m) - (m - 1) / 2) * NETWORK_SPACING
    # a triangle as wide as the wider of both pixels: an average going down, linear interpolation going up
    width = max(spacing, NETWORK_SPACING)
    weights = np.clip(1 - np.abs(wanted[:, None] - centres) / width, 0, None)
    # past the last pixel's centre: the nearest pixel
    weights[np.arange(m), np.abs(wanted[:, None] - centres).argmin(axis=1)] += 1e-6
    return sparse.csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def interpolating_weights(n: int, spacing: float) -> sparse.csr_array:
    """Weights (n, m) that interpolate linearly from pixels of 2 mm back to the ``n`` pixels of ``spacing`` mm."""
    m = max(int(np.ceil(n * spacing / NETWORK_SPACING)), 1)
    position = ((np.arange(n) - (n - 1) / 2) * spacing) / NETWORK_SPACING + (m - 1) / 2
    position = np.clip(position, 0, m - 1)
    first = np.minimum(np.floor(position).astype(int), max(m - 2, 0))
    weights = np.zeros((n, m), np.float32)
    weights[np.arange(n), first] = 1 - (position - first)
    if m > 1:
        weights[np.arange(n), first + 1] = position - first
    return sparse.csr_array(weights)


def resampled(
    values: Shaped[np.ndarray, "columns rows slices"], across: sparse.csr_array, down: sparse.csr_array
) -> Float32[np.ndarray, "_c _r slices"]:
    """``values`` with weights applied along the columns' axis and along the rows' axis."""
    columns, rows, slices = values.shape
    wide = across @ np.asarray(values, np.float32).reshape(columns, rows * slices)
    turned = np.ascontiguousarray(wide.reshape(-1, rows, slices).transpose(1, 0, 2))
    tall = down @ turned.reshape(rows, -1)
    return np.ascontiguousarray(tall.reshape(-1, len(wide), slices).transpose(1, 0, 2))
