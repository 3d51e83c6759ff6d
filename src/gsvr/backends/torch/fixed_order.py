"""Sums that have the same bits in every run, in whatever order a device adds.

Rows are sorted by target before they are added; or parts are scaled by a power of two, chosen so that no sum can
overflow 63 bits, and added as whole numbers, whose order does not matter. What is cut off then is below 2^-40 of
the largest part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from gsvr.backends.torch.tensors import exact_type


def add_rows(total: Float[Tensor, "n ..."], targets: Int[Tensor, " m"], rows: Float[Tensor, "m ..."]) -> None:
    """Add every row to the row of `total` that it belongs to."""
    with _deterministic_algorithms():
        total.index_add_(0, targets, rows)


@contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    """PyTorch's switch, for as long as it is needed only: matrix products would ask for settings of the environment."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def whole_number_scale(largest: Float[Tensor, ""]) -> Float32[Tensor, ""]:
    """The largest power of two that leaves 63 bits room for a sum of this size, and a finite one for no sum at all."""
    return torch.exp2(torch.floor(62 - torch.log2(largest)).clamp(max=120)).to(torch.float32)


def from_whole_numbers(total: Int64[Tensor, "*n"], scale: Float32[Tensor, ""]) -> Float32[Tensor, "*n"]:
    """The sums that were added as whole numbers."""
    return (total.to(exact_type(total.device)) / scale).to(torch.float32)
