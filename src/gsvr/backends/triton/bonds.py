"""Triton kernels for bonds between neighbouring sites; `plain_prior` has the same functions in plain PyTorch."""

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
def bonds_kernel(present, offsets, factors, values, edge, bonds, n, DIRECTIONS: tl.constexpr, SITES: tl.constexpr):
    """One block of sites, all directions."""
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


@triton.jit(do_not_specialize=["n"])
def apply_kernel(
    bonds, offsets, values, strength, out, n,
    DIRECTIONS: tl.constexpr, DIAGONAL: tl.constexpr, SITES: tl.constexpr,
):  # fmt: skip
    """Row sums of the weighted graph Laplacian, or its diagonal, for one block of sites."""
    site = tl.program_id(0) * SITES + tl.arange(0, SITES)
    inside = site < n
    total = tl.zeros((SITES,), tl.float32)
    here = tl.zeros((SITES,), tl.float32)
    if not DIAGONAL:
        here = tl.load(values + site, mask=inside, other=0.0)
    for direction in tl.static_range(DIRECTIONS):
        offset = tl.load(offsets + direction)
        after, before = site + offset, site - offset
        # a bond is kept at its first end
        own = tl.load(bonds + direction * n + site, mask=inside, other=0.0)
        other = tl.load(bonds + direction * n + before, mask=inside & (before >= 0), other=0.0)
        if DIAGONAL:
            total += own + other
        else:
            total += own * (here - tl.load(values + after, mask=inside & (after < n), other=0.0))
            total += other * (here - tl.load(values + before, mask=inside & (before >= 0), other=0.0))
    sum_so_far = tl.load(out + site, mask=inside, other=0.0)
    tl.store(out + site, sum_so_far + total * tl.load(strength), mask=inside)


def fill_bonds(
    present: Int32[Tensor, " s"],
    offsets: Int32[Tensor, " d"],
    factors: Float32[Tensor, " d"],
    values: Float32[Tensor, " s"],
    edge: float,
    bonds: Float32[Tensor, "d s"],
) -> None:
    """Factor / sqrt(1 + (difference / edge)^2) for every bond that is there."""
    n = len(values)
    bonds_kernel[(triton.cdiv(n, BLOCK),)](
        present, offsets, factors, values, edge, bonds, n, DIRECTIONS=len(offsets), SITES=BLOCK
    )


def apply(
    bonds: Float32[Tensor, "d s"],
    offsets: Int32[Tensor, " d"],
    values: Float32[Tensor, " s"],
    strength: Float32[Tensor, ""],
    out: Float32[Tensor, " s"],
) -> None:
    """Add strength L values to `out`."""
    n = len(values)
    apply_kernel[(triton.cdiv(n, BLOCK),)](
        bonds, offsets, values, strength, out, n, DIRECTIONS=len(offsets), DIAGONAL=False, SITES=BLOCK
    )


def add_diagonal(
    bonds: Float32[Tensor, "d s"],
    offsets: Int32[Tensor, " d"],
    strength: Float32[Tensor, ""],
    out: Float32[Tensor, " s"],
) -> None:
    """Add the diagonal of strength L to `out`."""
    n = len(out)
    apply_kernel[(triton.cdiv(n, BLOCK),)](
        bonds, offsets, out, strength, out, n, DIRECTIONS=len(offsets), DIAGONAL=True, SITES=BLOCK
    )
