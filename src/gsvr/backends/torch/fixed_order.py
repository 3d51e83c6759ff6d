"""Sums over rows that share a target, on request in an order that does not change from run to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor


def add_rows(
    total: Float[Tensor, "n ..."], targets: Int[Tensor, " m"], rows: Float[Tensor, "m ..."], fixed_order: bool
) -> None:
    """Add every row to the row of `total` that it belongs to.

    Parameters
    ----------
    fixed_order
        CUDA devices add by atomic operations, in any order; with this they sort first, which takes longer.
    """
    if not fixed_order:
        total.index_add_(0, targets, rows)
        return
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
