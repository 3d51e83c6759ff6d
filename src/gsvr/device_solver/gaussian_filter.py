"""Gaussian filters on a grid of a device: what `scipy.ndimage.gaussian_filter` does on the host, one axis at a time."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

# Standard deviations to which a filter reaches, SciPy's default.
_REACH = 4.0


def gaussian_filter(
    values: Float32[Tensor, "x y z"], sigma: float, orders: tuple[int, int, int] = (0, 0, 0)
) -> Float32[Tensor, "x y z"]:
    """Smoothed values, or their derivatives. The grid goes on as its own reflection about the faces of its outer cells.

    Parameters
    ----------
    sigma
        Standard deviation, in cells.
    orders
        For each axis, zero to smooth along it or one for the first derivative.
    """
    for axis, order in enumerate(orders):
        values = _along(values, axis, filter_weights(sigma, order))
    return values


def filter_weights(sigma: float, order: int) -> Float[np.ndarray, " taps"]:
    """Factors of the cells around one, from the last before it to the last after."""
    offsets = np.arange(-int(_REACH * sigma + 0.5), int(_REACH * sigma + 0.5) + 1)
    smooth = np.exp(-0.5 * (offsets / sigma) ** 2)
    smooth /= smooth.sum()
    return smooth if order == 0 else smooth * offsets / sigma**2


def _along(
    values: Float32[Tensor, "x y z"], axis: int, weights: Float[np.ndarray, " taps"]
) -> Float32[Tensor, "x y z"]:
    """Sum of the cells along one axis."""
    count, reach = values.shape[axis], len(weights) // 2
    there = torch.arange(-reach, count + reach, device=values.device).remainder(2 * count)
    padded = values.index_select(axis, torch.minimum(there, 2 * count - 1 - there))
    total = torch.zeros_like(values)
    for start, weight in enumerate(weights.tolist()):
        total.add_(padded.narrow(axis, start, count), alpha=weight)
    return total
