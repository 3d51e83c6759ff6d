"""Triton kernel for the derivatives of every pixel by the pose of its slice: seven matrix products a chunk of sites."""

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
_TWICE_LOG_2 = tl.constexpr(2 * 0.6931471805599453)


@triton.jit(do_not_specialize=["n_pixels", "ny", "nz", "width"])
def differentiate_kernel(
    frames, boxes, constants, pixels, first, counts, sites, amplitudes, out, n_pixels, ny, nz, width,
    MIXTURE: tl.constexpr, SITES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Planes as in `plain_tiles.differentiate`."""
    tile = tl.program_id(0)
    start, count = tl.load(first + tile), tl.load(counts + tile)
    frame, origin, constants = load_frame(frames + 12 * tile), load_origin(boxes + 7 * tile), constants + width * tile
    sharp_u, sharp_v = tl.load(constants), tl.load(constants + 1)
    mm_u, mm_v = tl.load(constants + 2), tl.load(constants + 3)
    qu, qv = sharp_u * _TWICE_LOG_2 / (mm_u * mm_u), sharp_v * _TWICE_LOG_2 / (mm_v * mm_v)
    value = tl.zeros((_TILE, _TILE), tl.float32)
    by_u, by_v, by_w = tl.zeros_like(value), tl.zeros_like(value), tl.zeros_like(value)
    about_u, about_v, about_w = tl.zeros_like(value), tl.zeros_like(value), tl.zeros_like(value)
    for offset in range(0, count, SITES):
        step = offset + tl.arange(0, SITES)
        seen = step < count
        site, u, v, w = load_chunk(sites, start + step, seen, frame, origin, ny, nz)
        f, slope = through(w, constants, MIXTURE)
        c = tl.load(amplitudes + site, mask=seen, other=0.0)
        f, slope = c * f, c * slope
        du, columns = columns_of(u, sharp_u)
        dv, rows = rows_of(v, sharp_v)
        # beyond the list's end the Gaussians are zero and the distances large but finite
        columns_1, rows_1 = mm_u * du * columns, mm_v * dv * rows
        value = tl.dot(columns * f[None, :], rows, value, input_precision=PRECISION)
        by_u = tl.dot(columns_1 * (-qu * f)[None, :], rows, by_u, input_precision=PRECISION)
        by_v = tl.dot(columns * (-qv * f)[None, :], rows_1, by_v, input_precision=PRECISION)
        by_w = tl.dot(columns * slope[None, :], rows, by_w, input_precision=PRECISION)
        turned_u, turned_v = slope - qv * w * f, -slope + qu * w * f
        about_u = tl.dot(columns * turned_u[None, :], rows_1, about_u, input_precision=PRECISION)
        about_v = tl.dot(columns_1 * turned_v[None, :], rows, about_v, input_precision=PRECISION)
        about_w = tl.dot(columns_1 * ((qu - qv) * f)[None, :], rows_1, about_w, input_precision=PRECISION)
    index, inside = tile_pixels(pixels + 4 * tile)
    tl.store(out + index, value, mask=inside)
    tl.store(out + n_pixels + index, by_u, mask=inside)
    tl.store(out + 2 * n_pixels + index, by_v, mask=inside)
    tl.store(out + 3 * n_pixels + index, by_w, mask=inside)
    tl.store(out + 4 * n_pixels + index, about_u, mask=inside)
    tl.store(out + 5 * n_pixels + index, about_v, mask=inside)
    tl.store(out + 6 * n_pixels + index, about_w, mask=inside)
