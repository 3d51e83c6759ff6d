"""What the Triton kernels of tiles share."""

# Triton compiles functions whose arguments have no types.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from gsvr.backends.torch.tiles import TILE

LINES = tl.constexpr(TILE)


@triton.jit
def tile_pixels(pixels):
    """Flat index of the places of a tile (see `gsvr.backends.torch.tiles.Tiles`), and which of them are pixels."""
    start, rows, columns = tl.load(pixels), tl.load(pixels + 1), tl.load(pixels + 2)
    lines = tl.arange(0, LINES)
    index = start + lines[:, None] * tl.load(pixels + 3) + lines[None, :]
    return index, (lines[:, None] < rows) & (lines[None, :] < columns)


@triton.jit
def store_planes(out, n_pixels, pixels, value, by_u, by_v, by_w, about_u, about_v, about_w):
    """The seven derivative planes of a tile."""
    index, inside = tile_pixels(pixels)
    tl.store(out + index, value, mask=inside)
    tl.store(out + n_pixels + index, by_u, mask=inside)
    tl.store(out + 2 * n_pixels + index, by_v, mask=inside)
    tl.store(out + 3 * n_pixels + index, by_w, mask=inside)
    tl.store(out + 4 * n_pixels + index, about_u, mask=inside)
    tl.store(out + 5 * n_pixels + index, about_v, mask=inside)
    tl.store(out + 6 * n_pixels + index, about_w, mask=inside)
