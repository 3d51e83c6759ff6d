"""Bonds between neighbouring sites of a lattice in plain PyTorch: the twin of `gsvr.backends.triton.bonds`.

Grids are flat here: the neighbour in a direction is so many sites further on, and bonds that would leave the grid are
zero.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int32
from torch import Tensor


def weigh(
    present: Int32[Tensor, " s"],
    offsets: Int32[Tensor, " d"],
    factors: Float32[Tensor, " d"],
    values: Float32[Tensor, " s"],
    edge: float,
    out: Float32[Tensor, "d s"],
) -> None:
    """Factor / sqrt(1 + (difference / edge)^2) for every bond that is there.

    Parameters
    ----------
    present
        Bit n is set where both ends of the bond in direction n carry a Gaussian.
    offsets, factors
        Flat distance to the neighbour in each direction, and weight of its bonds at difference zero.
    """
    for n, offset in enumerate(offsets.tolist()):
        difference = (values - values.roll(-offset)) / edge
        there = (present >> n & 1).to(torch.float32)
        torch.mul(there * factors[n], torch.rsqrt(1 + difference * difference), out=out[n])


def apply(
    bonds: Float32[Tensor, "d s"],
    offsets: Int32[Tensor, " d"],
    values: Float32[Tensor, " s"],
    factor: float,
    out: Float32[Tensor, " s"],
) -> None:
    """Add `factor` L values to `out`."""
    total = torch.zeros_like(values)
    for bond, offset in zip(bonds, offsets.tolist(), strict=True):
        flow = bond * (values - values.roll(-offset))
        total += flow - flow.roll(offset)
    out += factor * total


def row_sums(bonds: Float32[Tensor, "d s"], offsets: Int32[Tensor, " d"], out: Float32[Tensor, " s"]) -> None:
    """Sum of the bonds of each site."""
    torch.sum(bonds, 0, out=out)
    for bond, offset in zip(bonds, offsets.tolist(), strict=True):
        out += bond.roll(offset)
