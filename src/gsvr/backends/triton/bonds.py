"""Triton kernels for bonds between neighbouring sites: one program for a block of sites, all directions.

`gsvr.backends.torch.plain_bonds` has the same functions in plain PyTorch.
"""

# Triton compiles functions whose arguments have no types.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl
from jaxtyping import Float32, Int32
from torch import Tensor

# Sites of one program; with more the compiler runs out of registers.
BLOCK = 256


@triton.jit(do_not_specialize=["n"])
def weigh_kernel(present, offsets, factors, values, edge, bonds, n, DIRECTIONS: tl.constexpr, SITES: tl.constexpr):
    """Bonds that start in one block of sites."""
    site = tl.program_id(0) * SITES + tl.arange(0, SITES)
    inside = site < n
    bits = tl.load(present + site, mask=inside, other=0)
    here = tl.load(values + site, mask=inside, other=0.0)
    for direction in tl.static_range(DIRECTIONS):
        other = site + tl.load(offsets + direction)
        there = tl.load(values + other, mask=inside & (other < n), other=0.0)
        difference = (here - there) / edge
        factor = tl.where(((bits >> direction) & 1) == 1, tl.load(factors + direction), 0.0)
        bond = factor / tl.sqrt(difference * difference + 1)
        tl.store(bonds + direction * n + site, bond, mask=inside)


@triton.jit(do_not_specialize=["n", "factor"])
def apply_kernel(bonds, offsets, values, factor, out, n, DIRECTIONS: tl.constexpr, SITES: tl.constexpr):
    """Rows of the weighted graph Laplacian times values, for one block of sites."""
    site = tl.program_id(0) * SITES + tl.arange(0, SITES)
    inside = site < n
    total = tl.zeros((SITES,), tl.float32)
    here = tl.load(values + site, mask=inside, other=0.0)
    for direction in tl.static_range(DIRECTIONS):
        offset = tl.load(offsets + direction)
        after, before = site + offset, site - offset
        # a bond is kept at its first end
        own = tl.load(bonds + direction * n + site, mask=inside, other=0.0)
        other = tl.load(bonds + direction * n + before, mask=inside & (before >= 0), other=0.0)
        total += own * (here - tl.load(values + after, mask=inside & (after < n), other=0.0))
        total += other * (here - tl.load(values + before, mask=inside & (before >= 0), other=0.0))
    sum_so_far = tl.load(out + site, mask=inside, other=0.0)
    tl.store(out + site, sum_so_far + factor * total, mask=inside)


@triton.jit(do_not_specialize=["n"])
def row_sums_kernel(bonds, offsets, out, n, DIRECTIONS: tl.constexpr, SITES: tl.constexpr):
    """Sum of the bonds that start or end at each of one block of sites."""
    site = tl.program_id(0) * SITES + tl.arange(0, SITES)
    inside = site < n
    total = tl.zeros((SITES,), tl.float32)
    for direction in tl.static_range(DIRECTIONS):
        before = site - tl.load(offsets + direction)
        total += tl.load(bonds + direction * n + site, mask=inside, other=0.0)
        total += tl.load(bonds + direction * n + before, mask=inside & (before >= 0), other=0.0)
    tl.store(out + site, total, mask=inside)


def weigh(
    present: Int32[Tensor, " s"],
    offsets: Int32[Tensor, " d"],
    factors: Float32[Tensor, " d"],
    values: Float32[Tensor, " s"],
    edge: float,
    out: Float32[Tensor, "d s"],
) -> None:
    """Factor / sqrt(1 + (difference / edge)^2) for every bond that is there."""
    n = len(values)
    weigh_kernel[(triton.cdiv(n, BLOCK),)](
        present, offsets, factors, values, edge, out, n, DIRECTIONS=len(offsets), SITES=BLOCK
    )


def apply(
    bonds: Float32[Tensor, "d s"],
    offsets: Int32[Tensor, " d"],
    values: Float32[Tensor, " s"],
    factor: float,
    out: Float32[Tensor, " s"],
) -> None:
    """Add `factor` L values to `out`."""
    n = len(values)
    apply_kernel[(triton.cdiv(n, BLOCK),)](bonds, offsets, values, factor, out, n, DIRECTIONS=len(offsets), SITES=BLOCK)


def row_sums(bonds: Float32[Tensor, "d s"], offsets: Int32[Tensor, " d"], out: Float32[Tensor, " s"]) -> None:
    """Sum of the bonds of each site."""
    n = len(out)
    row_sums_kernel[(triton.cdiv(n, BLOCK),)](bonds, offsets, out, n, DIRECTIONS=len(offsets), SITES=BLOCK)
