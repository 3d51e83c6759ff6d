"""Triton kernels of the lattice operator: one program a tile, its sites in chunks, sums in registers.

A chunk of S sites is two small matrices of exponentials and one matrix product, 16 x S x 16; `plain_tiles` does the
same in plain PyTorch. `predict_kernel`, `adjoint_kernel`, and both in one: `normal_kernel`.
"""

# Triton compiles functions whose arguments have no types.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from gsvr.backends.torch.lattice_tiles import TILE
from gsvr.backends.triton.lattice_tiles import (
    columns_of,
    load_chunk,
    load_frame,
    load_origin,
    rows_of,
    through,
    tile_pixels,
)

_TILE = tl.constexpr(TILE)


@triton.jit
def _image(
    sites, start, count, amplitudes, frame, origin, constants, ny, nz,
    MIXTURE: tl.constexpr, SITES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The tile as its sites predict it."""
    sharp_u, sharp_v = tl.load(constants), tl.load(constants + 1)
    image = tl.zeros((_TILE, _TILE), tl.float32)
    for offset in range(0, count, SITES):
        step = offset + tl.arange(0, SITES)
        seen = step < count
        site, u, v, w = load_chunk(sites, start + step, seen, frame, origin, ny, nz)
        value, _ = through(w, constants, MIXTURE)
        scale = value * tl.load(amplitudes + site, mask=seen, other=0.0)
        _, columns = columns_of(u, sharp_u)
        _, rows = rows_of(v, sharp_v)
        image = tl.dot(columns * scale[None, :], rows, image, input_precision=PRECISION)
    return image


@triton.jit
def _transposed(
    image, sites, start, count, out, scale, frame, origin, constants, ny, nz,
    POWER: tl.constexpr, EXACT: tl.constexpr, MIXTURE: tl.constexpr, SITES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add what the tile's sites receive from it."""
    sharp_u, sharp_v = tl.load(constants) * POWER, tl.load(constants + 1) * POWER
    for offset in range(0, count, SITES):
        step = offset + tl.arange(0, SITES)
        seen = step < count
        site, u, v, w = load_chunk(sites, start + step, seen, frame, origin, ny, nz)
        value, _ = through(w, constants, MIXTURE)
        if POWER == 2:
            value = value * value
        _, along_u = rows_of(u, sharp_u)
        _, along_v = rows_of(v, sharp_v)
        received = tl.dot(along_u, image, input_precision=PRECISION)
        received = tl.sum(received * along_v, 1) * value
        if EXACT:
            tl.atomic_add(out + site, (received * scale).to(tl.int64), mask=seen, sem="relaxed")
        else:
            tl.atomic_add(out + site, received, mask=seen, sem="relaxed")


@triton.jit(do_not_specialize=["ny", "nz", "width"])
def predict_kernel(
    frames, boxes, constants, pixels, first, counts, sites, amplitudes, out, ny, nz, width,
    MIXTURE: tl.constexpr, SITES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The pixels of one tile."""
    tile = tl.program_id(0)
    start, count = tl.load(first + tile), tl.load(counts + tile)
    frame, origin, constants = load_frame(frames + 12 * tile), load_origin(boxes + 7 * tile), constants + width * tile
    image = _image(
        sites, start, count, amplitudes, frame, origin, constants, ny, nz, MIXTURE, SITES, PRECISION
    )  # fmt: skip
    index, inside = tile_pixels(pixels + 4 * tile)
    tl.store(out + index, image, mask=inside)


@triton.jit(do_not_specialize=["ny", "nz", "width"])
def adjoint_kernel(
    frames, boxes, constants, pixels, first, counts, sites, values, weights, scale, out, ny, nz, width,
    POWER: tl.constexpr, EXACT: tl.constexpr, WEIGHTED: tl.constexpr,
    MIXTURE: tl.constexpr, SITES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What the sites of one tile receive from its pixels."""
    tile = tl.program_id(0)
    start, count = tl.load(first + tile), tl.load(counts + tile)
    frame, origin, constants = load_frame(frames + 12 * tile), load_origin(boxes + 7 * tile), constants + width * tile
    index, inside = tile_pixels(pixels + 4 * tile)
    image = tl.load(values + index, mask=inside, other=0.0)
    if WEIGHTED:
        image *= tl.load(weights + index, mask=inside, other=0.0)
    _transposed(
        image, sites, start, count, out, tl.load(scale) if EXACT else 1.0, frame, origin, constants, ny, nz,
        POWER, EXACT, MIXTURE, SITES, PRECISION,
    )  # fmt: skip


@triton.jit(do_not_specialize=["ny", "nz", "width"])
def normal_kernel(
    frames, boxes, constants, pixels, first, counts, sites, amplitudes, weights, along, out, ny, nz, width,
    MIXTURE: tl.constexpr, SITES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The pixels of one tile, and what its sites receive from them once they are weighted."""
    tile = tl.program_id(0)
    start, count = tl.load(first + tile), tl.load(counts + tile)
    frame, origin, constants = load_frame(frames + 12 * tile), load_origin(boxes + 7 * tile), constants + width * tile
    image = _image(
        sites, start, count, amplitudes, frame, origin, constants, ny, nz, MIXTURE, SITES, PRECISION
    )  # fmt: skip
    index, inside = tile_pixels(pixels + 4 * tile)
    tl.store(along + index, image, mask=inside)
    image *= tl.load(weights + index, mask=inside, other=0.0)
    _transposed(
        image, sites, start, count, out, 1.0, frame, origin, constants, ny, nz,
        1, False, MIXTURE, SITES, PRECISION,
    )  # fmt: skip
