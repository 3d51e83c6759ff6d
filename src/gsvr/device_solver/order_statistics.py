"""Medians as NumPy defines them (the mean of the two in the middle), of fixed shape and without waiting."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def median(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Median of all values; of none, zero."""
    n = len(values)
    if n == 0:
        return torch.zeros((), dtype=values.dtype, device=values.device)
    ordered = values.sort().values
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def masked_median(values: Float[Tensor, "k n"], kept: Bool[Tensor, "k n"]) -> Float[Tensor, " k"]:
    """Median of the values kept in each row; zero for a row without any."""
    ordered = values.masked_fill(~kept, torch.inf).sort(dim=1).values
    count = kept.sum(1, keepdim=True)
    lower, upper = (ordered.gather(1, ((count - shift) // 2).clamp(min=0)) for shift in (1, 0))
    middle = ((lower + upper) / 2)[:, 0]
    return middle.masked_fill(count[:, 0] == 0, 0)


def robust_deviation(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Standard deviation of a normal distribution with the same median absolute value."""
    return 1.4826 * median(values.abs())
