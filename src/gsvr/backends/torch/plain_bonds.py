"""Bonds between neighbouring sites of a lattice in plain PyTorch: the twin of `triton_prior`.

Grids are flat here: the neighbour in a direction is so many sites further on, and bonds that would leave the grid are
zero.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int32
from torch import Tensor


def fill_bonds(
    present: Int32[Tensor, " s"],
    offsets: Int32[Tensor, " d"],
    factors: Float32[Tensor, " d"],
    values: Float32[Tensor, " s"],
    edge: float,
    bonds: Float32[Tensor, "d s"],
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
        torch.mul(there * factors[n], torch.rsqrt(1 + difference * difference), out=bonds[n])


def apply(
    bonds: Float32[Tensor, "d s"],
    offsets: Int32[Tensor, " d"],
    values: Float32[Tensor, " s"],
    strength: Float32[Tensor, ""],
    out: Float32[Tensor, " s"],
) -> None:
    """Add strength L values to `out`."""
    total = torch.zeros_like(values)
    for bond, offset in zip(bonds, offsets.tolist(), strict=True):
        flow = bond * (values - values.roll(-offset))
        total += flow - flow.roll(offset)
    out += strength * total


def add_diagonal(
    bonds: Float32[Tensor, "d s"],
    offsets: Int32[Tensor, " d"],
    strength: Float32[Tensor, ""],
    out: Float32[Tensor, " s"],
) -> None:
    """Add the diagonal of strength L to `out`."""
    total = bonds.sum(0)
    for bond, offset in zip(bonds, offsets.tolist(), strict=True):
        total += bond.roll(offset)
    out += strength * total
