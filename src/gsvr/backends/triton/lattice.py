"""Triton kernels of the lattice operator: one program a tile, its sites in chunks, sums in registers.

A chunk of S sites is two small matrices of exponentials and one matrix product, 16 x S x 16 (seven for derivatives),
in float32. `gsvr.backends.torch.plain_lattice` has the same functions in plain PyTorch, and
`gsvr.backends.torch.lattice_tiles.LatticeTiles` says what the columns of the arrays are for.
"""

# Triton compiles functions whose arguments have no types.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl
from jaxtyping import Float32, Int64
from torch import Tensor

from gsvr.backends.torch.lattice_tiles import COMPONENT, FIRST_COMPONENT, LatticeTiles
from gsvr.backends.triton.tiles import LINES, store_planes, tile_pixels

# Sites a chunk, and warps a tile; seven sums in registers are too many for one warp.
SITES, WARPS, DERIVATIVE_WARPS = 32, 1, 4
# Lattice rows looked at together when lists are filled.
ROWS = 128

_FIRST_COMPONENT, _COMPONENT = tl.constexpr(FIRST_COMPONENT), tl.constexpr(COMPONENT)
_TWICE_LOG_2 = tl.constexpr(2 * 0.6931471805599453)
# Lattice rows (almost) parallel to a slice's plane are not crossed by it.
_LEAST_SLOPE, _FAR = tl.constexpr(1e-6), tl.constexpr(4096.0)
# So far away (pixels) that every Gaussian has vanished.
_BEYOND = tl.constexpr(1e5)


@triton.jit
def _load_frame(frames):
    """Matrix by rows and shift of a tile."""
    return (
        (tl.load(frames), tl.load(frames + 1), tl.load(frames + 2), tl.load(frames + 9)),
        (tl.load(frames + 3), tl.load(frames + 4), tl.load(frames + 5), tl.load(frames + 10)),
        (tl.load(frames + 6), tl.load(frames + 7), tl.load(frames + 8), tl.load(frames + 11)),
    )


@triton.jit
def _load_origin(boxes):
    """Site from which a tile's distances are counted."""
    return tl.load(boxes), tl.load(boxes + 1), tl.load(boxes + 2)


@triton.jit
def _crossing(axis, x, y, extents, low, high):
    """Cut an interval along z down to where the sites of rows (x, y) are within the extent of one axis."""
    slope = tl.where(tl.abs(axis[2]) < _LEAST_SLOPE, _LEAST_SLOPE, axis[2])
    base = axis[0] * x + axis[1] * y + axis[3]
    one = (tl.load(extents) - base) / slope
    other = (tl.load(extents + 1) - base) / slope
    return tl.maximum(low, tl.minimum(one, other)), tl.minimum(high, tl.maximum(one, other))


# sizes differ from lattice to lattice: nothing is compiled anew for those that 16 divides
@triton.jit(do_not_specialize=["ny"])
def fill_kernel(frames, boxes, extents, row_ends, first, count, sites, ny, ROWS: tl.constexpr):
    """Sites of one tile, row by row of the lattice."""
    tile = tl.program_id(0)
    origin_x, origin_y, origin_z = _load_origin(boxes + 7 * tile)
    along_u, along_v, along_w = _load_frame(frames + 12 * tile)
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
def _load_chunk(sites, at, seen, frame, origin, ny, nz):
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
def _through(w, constants, MIXTURE: tl.constexpr):
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
def _columns_of(positions, sharpness):
    """1-D Gaussians, lines of the tile x sites."""
    distance = tl.arange(0, LINES).to(tl.float32)[:, None] - positions[None, :]
    return distance, tl.exp2(-sharpness * distance * distance)


@triton.jit
def _rows_of(positions, sharpness):
    """1-D Gaussians, sites x lines of the tile."""
    distance = tl.arange(0, LINES).to(tl.float32)[None, :] - positions[:, None]
    return distance, tl.exp2(-sharpness * distance * distance)


@triton.jit(do_not_specialize=["ny", "nz", "width"])
def predict_kernel(
    frames, boxes, constants, pixels, first, counts, sites, amplitudes, out, ny, nz, width,
    MIXTURE: tl.constexpr, SITES: tl.constexpr,
):  # fmt: skip
    """The pixels of one tile."""
    tile = tl.program_id(0)
    start, count = tl.load(first + tile), tl.load(counts + tile)
    frame, origin, constants = _load_frame(frames + 12 * tile), _load_origin(boxes + 7 * tile), constants + width * tile
    sharp_u, sharp_v = tl.load(constants), tl.load(constants + 1)
    image = tl.zeros((LINES, LINES), tl.float32)
    for offset in range(0, count, SITES):
        step = offset + tl.arange(0, SITES)
        seen = step < count
        site, u, v, w = _load_chunk(sites, start + step, seen, frame, origin, ny, nz)
        value, _ = _through(w, constants, MIXTURE)
        scale = value * tl.load(amplitudes + site, mask=seen, other=0.0)
        _, columns = _columns_of(u, sharp_u)
        _, rows = _rows_of(v, sharp_v)
        image = tl.dot(columns * scale[None, :], rows, image, input_precision="ieee")
    index, inside = tile_pixels(pixels + 4 * tile)
    tl.store(out + index, image, mask=inside)


@triton.jit(do_not_specialize=["ny", "nz", "width"])
def adjoint_kernel(
    frames, boxes, constants, pixels, first, counts, sites, values, scale, out, ny, nz, width,
    POWER: tl.constexpr, MIXTURE: tl.constexpr, SITES: tl.constexpr,
):  # fmt: skip
    """What the sites of one tile receive from its pixels."""
    tile = tl.program_id(0)
    start, count = tl.load(first + tile), tl.load(counts + tile)
    frame, origin, constants = _load_frame(frames + 12 * tile), _load_origin(boxes + 7 * tile), constants + width * tile
    sharp_u, sharp_v = tl.load(constants) * POWER, tl.load(constants + 1) * POWER
    index, inside = tile_pixels(pixels + 4 * tile)
    image = tl.load(values + index, mask=inside, other=0.0)
    for offset in range(0, count, SITES):
        step = offset + tl.arange(0, SITES)
        seen = step < count
        site, u, v, w = _load_chunk(sites, start + step, seen, frame, origin, ny, nz)
        value, _ = _through(w, constants, MIXTURE)
        if POWER == 2:
            value = value * value
        _, along_u = _rows_of(u, sharp_u)
        _, along_v = _rows_of(v, sharp_v)
        received = tl.dot(along_u, image, input_precision="ieee")
        received = tl.sum(received * along_v, 1) * value
        tl.atomic_add(out + site, (received * tl.load(scale)).to(tl.int64), mask=seen, sem="relaxed")


@triton.jit(do_not_specialize=["n_pixels", "ny", "nz", "width"])
def differentiate_kernel(
    frames, boxes, constants, pixels, first, counts, sites, amplitudes, out, n_pixels, ny, nz, width,
    MIXTURE: tl.constexpr, SITES: tl.constexpr,
):  # fmt: skip
    """Planes as in `gsvr.backends.torch.plain_lattice.differentiate`."""
    tile = tl.program_id(0)
    start, count = tl.load(first + tile), tl.load(counts + tile)
    frame, origin, constants = _load_frame(frames + 12 * tile), _load_origin(boxes + 7 * tile), constants + width * tile
    sharp_u, sharp_v = tl.load(constants), tl.load(constants + 1)
    mm_u, mm_v = tl.load(constants + 2), tl.load(constants + 3)
    qu, qv = sharp_u * _TWICE_LOG_2 / (mm_u * mm_u), sharp_v * _TWICE_LOG_2 / (mm_v * mm_v)
    value = tl.zeros((LINES, LINES), tl.float32)
    by_u, by_v, by_w = tl.zeros_like(value), tl.zeros_like(value), tl.zeros_like(value)
    about_u, about_v, about_w = tl.zeros_like(value), tl.zeros_like(value), tl.zeros_like(value)
    for offset in range(0, count, SITES):
        step = offset + tl.arange(0, SITES)
        seen = step < count
        site, u, v, w = _load_chunk(sites, start + step, seen, frame, origin, ny, nz)
        f, slope = _through(w, constants, MIXTURE)
        c = tl.load(amplitudes + site, mask=seen, other=0.0)
        f, slope = c * f, c * slope
        du, columns = _columns_of(u, sharp_u)
        dv, rows = _rows_of(v, sharp_v)
        # beyond the list's end the Gaussians are zero and the distances large but finite
        columns_1, rows_1 = mm_u * du * columns, mm_v * dv * rows
        value = tl.dot(columns * f[None, :], rows, value, input_precision="ieee")
        by_u = tl.dot(columns_1 * (-qu * f)[None, :], rows, by_u, input_precision="ieee")
        by_v = tl.dot(columns * (-qv * f)[None, :], rows_1, by_v, input_precision="ieee")
        by_w = tl.dot(columns * slope[None, :], rows, by_w, input_precision="ieee")
        turned_u, turned_v = slope - qv * w * f, -slope + qu * w * f
        about_u = tl.dot(columns * turned_u[None, :], rows_1, about_u, input_precision="ieee")
        about_v = tl.dot(columns_1 * turned_v[None, :], rows, about_v, input_precision="ieee")
        about_w = tl.dot(columns_1 * ((qu - qv) * f)[None, :], rows_1, about_w, input_precision="ieee")
    store_planes(out, n_pixels, pixels + 4 * tile, value, by_u, by_v, by_w, about_u, about_v, about_w)


def _arrays(tiles: LatticeTiles) -> tuple[Tensor, ...]:
    return tiles.frames, tiles.boxes, tiles.constants, tiles.pixels, tiles.first, tiles.count, tiles.sites


def _sizes(tiles: LatticeTiles) -> tuple[int, int, int]:
    return tiles.shape[1], tiles.shape[2], tiles.constants.shape[1]


def fill(tiles: LatticeTiles) -> None:
    """Find the sites of every tile."""
    fill_kernel[(tiles.n_tiles,)](
        tiles.frames, tiles.boxes, tiles.extents, tiles.row_ends, tiles.first, tiles.count, tiles.sites,
        tiles.shape[1], ROWS=ROWS,
    )  # fmt: skip


def predict(tiles: LatticeTiles, amplitudes: Float32[Tensor, "nx ny nz"], out: Float32[Tensor, " p"]) -> None:
    """A c into `out`."""
    predict_kernel[(tiles.n_tiles,)](
        *_arrays(tiles), amplitudes.contiguous(), out, *_sizes(tiles), MIXTURE=tiles.n_components, SITES=SITES,
        num_warps=WARPS,
    )  # fmt: skip


def differentiate(tiles: LatticeTiles, amplitudes: Float32[Tensor, "nx ny nz"], out: Float32[Tensor, "7 p"]) -> None:
    """Pixels, derivative by d = pixel - Gaussian (mm), and d x derivative, in the slice frame."""
    differentiate_kernel[(tiles.n_tiles,)](
        *_arrays(tiles), amplitudes.contiguous(), out, out.shape[1], *_sizes(tiles), MIXTURE=tiles.n_components,
        SITES=SITES, num_warps=DERIVATIVE_WARPS,
    )  # fmt: skip


def adjoint(
    tiles: LatticeTiles,
    pixels: Float32[Tensor, " p"],
    power: int,
    scale: Float32[Tensor, ""],
    out: Int64[Tensor, "nx ny nz"],
) -> None:
    """Add A^T pixels, with factors to the `power`, to `out` as whole numbers of 1 / `scale`."""
    adjoint_kernel[(tiles.n_tiles,)](
        *_arrays(tiles), pixels.contiguous(), scale, out, *_sizes(tiles), POWER=power, MIXTURE=tiles.n_components,
        SITES=SITES, num_warps=WARPS,
    )  # fmt: skip
