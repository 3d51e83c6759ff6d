"""What the Triton kernels of tiles share, and the kernel that finds the sites of every tile.

`plain_tiles` does the same in plain PyTorch; `tiles.TileLists` says what the columns of the arrays are for.
"""

# Triton compiles functions whose arguments have no types.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from gsvr.backends.torch.lattice_tiles import COMPONENT, FIRST_COMPONENT, TILE

_TILE = tl.constexpr(TILE)
_FIRST_COMPONENT, _COMPONENT = tl.constexpr(FIRST_COMPONENT), tl.constexpr(COMPONENT)
_TWICE_LOG_2 = tl.constexpr(2 * 0.6931471805599453)
# Lattice rows (almost) parallel to a slice's plane are not crossed by it.
_LEAST_SLOPE, _FAR = tl.constexpr(1e-6), tl.constexpr(4096.0)
# So far away (pixels) that every Gaussian has vanished.
_BEYOND = tl.constexpr(1e5)


@triton.jit
def load_frame(frames):
    """Matrix by rows and shift of a tile."""
    return (
        (tl.load(frames), tl.load(frames + 1), tl.load(frames + 2), tl.load(frames + 9)),
        (tl.load(frames + 3), tl.load(frames + 4), tl.load(frames + 5), tl.load(frames + 10)),
        (tl.load(frames + 6), tl.load(frames + 7), tl.load(frames + 8), tl.load(frames + 11)),
    )


@triton.jit
def load_origin(boxes):
    """Site from which a tile's distances are counted."""
    return tl.load(boxes), tl.load(boxes + 1), tl.load(boxes + 2)


@triton.jit
def _crossing(axis, x, y, extents, low, high):
    """Cut an interval along z down to where the sites of rows (x, y) are within the extent of one axis."""
    slope = tl.where(tl.abs(axis[2]) < _LEAST_SLOPE, _LEAST_SLOPE, axis[2])
    base = axis[0] * x + axis[1] * y + axis[3]
    one = (tl.load(extents).to(tl.float32) - base) / slope
    other = (tl.load(extents + 1).to(tl.float32) - base) / slope
    return tl.maximum(low, tl.minimum(one, other)), tl.minimum(high, tl.maximum(one, other))


# sizes differ from lattice to lattice: nothing is compiled anew for those that 16 divides
@triton.jit(do_not_specialize=["ny"])
def fill_kernel(frames, boxes, extents, row_ends, first, count, sites, ny, ROWS: tl.constexpr):
    """Sites of one tile, row by row of the lattice."""
    tile = tl.program_id(0)
    origin_x, origin_y, origin_z = load_origin(boxes + 7 * tile)
    along_u, along_v, along_w = load_frame(frames + 12 * tile)
    first_x, first_y = tl.load(boxes + 7 * tile + 3), tl.load(boxes + 7 * tile + 4)
    n_x, n_y = tl.load(boxes + 7 * tile + 5), tl.load(boxes + 7 * tile + 6)
    start, end = tl.load(first + tile), tl.load(first + tile + 1)
    found = start
    for offset in range(0, n_x * n_y, ROWS):
        number = offset + tl.arange(0, ROWS)
        inside = number < n_x * n_y
        x, y = first_x + number // n_y, first_y + number % n_y
        row = 2 * (x * ny + y)
        row_first = tl.load(row_ends + row, mask=inside, other=0)
        row_end = tl.load(row_ends + row + 1, mask=inside, other=0)
        away_x, away_y = (x - origin_x).to(tl.float32), (y - origin_y).to(tl.float32)
        low, high = tl.zeros((ROWS,), tl.float32) - _FAR, tl.zeros((ROWS,), tl.float32) + _FAR
        low, high = _crossing(along_u, away_x, away_y, extents + 6 * tile, low, high)
        low, high = _crossing(along_v, away_x, away_y, extents + 6 * tile + 2, low, high)
        low, high = _crossing(along_w, away_x, away_y, extents + 6 * tile + 4, low, high)
        low, high = tl.minimum(low, _FAR), tl.maximum(high, -_FAR)
        z = tl.maximum(tl.ceil(low).to(tl.int32) + origin_z, row_first)
        z_end = tl.minimum(tl.floor(high).to(tl.int32) + origin_z + 1, row_end)
        n_z = tl.where(inside, tl.maximum(z_end - z, 0), 0)
        at = found + tl.cumsum(n_z, 0) - n_z
        packed = (x << 20) | (y << 10)
        for step in range(0, tl.max(n_z, 0)):
            tl.store(sites + at + step, packed | (z + step), mask=(step < n_z) & (at + step < end))
        found += tl.sum(n_z, 0)
    tl.store(count + tile, (tl.minimum(found, end) - start).to(tl.int32))


@triton.jit
def load_chunk(sites, at, seen, frame, origin, ny, nz):
    """Flat site, u and v (pixels from the tile's corner) and w (mm) of a chunk; beyond everything past the end."""
    packed = tl.load(sites + at, mask=seen, other=0)
    site_x, site_y, site_z = packed >> 20, (packed >> 10) & 1023, packed & 1023
    x, y = (site_x - origin[0]).to(tl.float32), (site_y - origin[1]).to(tl.float32)
    z = (site_z - origin[2]).to(tl.float32)
    u = frame[0][0] * x + frame[0][1] * y + frame[0][2] * z + frame[0][3]
    v = frame[1][0] * x + frame[1][1] * y + frame[1][2] * z + frame[1][3]
    w = frame[2][0] * x + frame[2][1] * y + frame[2][2] * z + frame[2][3]
    return (site_x * ny + site_y) * nz + site_z, tl.where(seen, u, _BEYOND), tl.where(seen, v, _BEYOND), w


@triton.jit
def through(w, constants, MIXTURE: tl.constexpr):
    """Profile at sites w mm above the slice, and its slope by d = -w (1/mm)."""
    value, slope = tl.zeros_like(w), tl.zeros_like(w)
    for component in tl.static_range(MIXTURE):
        of = constants + _FIRST_COMPONENT + _COMPONENT * component
        distance, sharpness = tl.load(of + 1) - w, tl.load(of + 2)
        part = tl.load(of) * tl.exp2(-sharpness * distance * distance)
        value += part
        slope -= sharpness * _TWICE_LOG_2 * distance * part
    return value, slope


@triton.jit
def columns_of(positions, sharpness):
    """1-D Gaussians, lines of the tile x sites."""
    distance = tl.arange(0, _TILE).to(tl.float32)[:, None] - positions[None, :]
    return distance, tl.exp2(-sharpness * distance * distance)


@triton.jit
def rows_of(positions, sharpness):
    """1-D Gaussians, sites x lines of the tile."""
    distance = tl.arange(0, _TILE).to(tl.float32)[None, :] - positions[:, None]
    return distance, tl.exp2(-sharpness * distance * distance)


@triton.jit
def tile_pixels(pixels):
    """Flat index of the tile's pixels, and which of them are inside the slice."""
    start, rows, columns = tl.load(pixels), tl.load(pixels + 1), tl.load(pixels + 2)
    lines = tl.arange(0, _TILE)
    index = start + lines[:, None] * tl.load(pixels + 3) + lines[None, :]
    return index, (lines[:, None] < rows) & (lines[None, :] < columns)
