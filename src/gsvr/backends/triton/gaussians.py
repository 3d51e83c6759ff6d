"""Triton kernels of free Gaussians: one program a tile, its splats in chunks, sums in registers.

The exponent of a Gaussian at a pixel is a part of the row, a part of the column, and a product of both distances: two
multiply-adds beside an exponential, which is what binds. So it is not written as an inner product of monomials for the
tensor cores: that would spare nothing that binds, and lose digits where large terms cancel. The exponent of the slice
profile's second component is that of the first and something linear. Its exponential could be had as the first times a
factor of the row and a factor of the column; but where one warp holds a tile every thread has a row of its own for each
of its eight pixels, so that would be nine exponentials in place of eight.

`plain_gaussians` does the same in plain PyTorch; `gaussian_tiles.GaussianTiles` says what the columns are for. Without
a card the kernels run in Triton's interpreter, if TRITON_INTERPRET=1 is set before this module is imported.
"""

# Triton compiles functions whose arguments have no types.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl
from jaxtyping import Float32
from torch import Tensor

from gsvr.backends.torch.gaussian_tiles import GaussianTiles
from gsvr.backends.torch.lattice_tiles import TILE
from gsvr.backends.torch.splats import ONE_COMPONENT
from gsvr.backends.triton.lattice_tiles import tile_pixels

# Splats a chunk, and warps a tile.
CHUNK, WARPS = 4, 1
DERIVATIVE_WARPS = 2

_TILE, _ONE_COMPONENT = tl.constexpr(TILE), tl.constexpr(ONE_COMPONENT)
_LOG_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _distances(corners, starts, forms, splat, seen, WIDTH: tl.constexpr):
    """Distance (pixels) of the tile's rows and columns from the means of a chunk: splats x rows x columns."""
    lines = tl.arange(0, _TILE)
    row, column = tl.load(starts + 2 * splat, mask=seen, other=0), tl.load(starts + 2 * splat + 1, mask=seen, other=0)
    away_y = (tl.load(corners) - row).to(tl.float32) - tl.load(forms + WIDTH * splat + 6, mask=seen, other=0.0)
    away_x = (tl.load(corners + 1) - column).to(tl.float32) - tl.load(forms + WIDTH * splat + 7, mask=seen, other=0.0)
    y = (away_y[:, None] + lines[None, :].to(tl.float32))[:, :, None]
    x = (away_x[:, None] + lines[None, :].to(tl.float32))[:, None, :]
    return y, x


@triton.jit
def _coefficient(forms, splat, seen, COLUMN: tl.constexpr, WIDTH: tl.constexpr):
    return tl.load(forms + WIDTH * splat + COLUMN, mask=seen, other=0.0)[:, None, None]


@triton.jit
def _components(forms, splat, seen, y, x, WIDTH: tl.constexpr):
    """Both components of the slice profile; where there is one, that and zeros."""
    rows = _coefficient(forms, splat, seen, 3, WIDTH) * y + _coefficient(forms, splat, seen, 1, WIDTH)
    rows = rows * y + _coefficient(forms, splat, seen, 0, WIDTH)
    columns = (_coefficient(forms, splat, seen, 5, WIDTH) * x + _coefficient(forms, splat, seen, 2, WIDTH)) * x
    exponent = rows + columns + (_coefficient(forms, splat, seen, 4, WIDTH) * y) * x
    second = tl.zeros_like(exponent)
    if WIDTH > _ONE_COMPONENT:
        rows = _coefficient(forms, splat, seen, 8, WIDTH) + _coefficient(forms, splat, seen, 9, WIDTH) * y
        second = tl.exp2(exponent + (rows + _coefficient(forms, splat, seen, 10, WIDTH) * x))
    return tl.exp2(exponent), second


@triton.jit
def _responses(forms, splat, seen, y, x, WIDTH: tl.constexpr):
    """How every pixel of the tile sees a chunk of Gaussians at amplitude one."""
    first, second = _components(forms, splat, seen, y, x, WIDTH)
    return first + second


@triton.jit
def predict_kernel(
    pixels, corners, first, splats, gaussians, starts, forms, amplitudes, out, WIDTH: tl.constexpr, CHUNK: tl.constexpr
):
    """The pixels of one tile."""
    tile = tl.program_id(0)
    start, end = tl.load(first + tile), tl.load(first + tile + 1)
    image = tl.zeros((_TILE, _TILE), tl.float32)
    for at in range(start, end, CHUNK):
        step = at + tl.arange(0, CHUNK)
        seen = step < end
        splat = tl.load(splats + step, mask=seen, other=0).to(tl.int64)
        gaussian = tl.load(gaussians + splat, mask=seen, other=0)
        factor = tl.load(amplitudes + gaussian, mask=seen, other=0.0)
        y, x = _distances(corners + 2 * tile, starts, forms, splat, seen, WIDTH)
        image += tl.sum(factor[:, None, None] * _responses(forms, splat, seen, y, x, WIDTH), 0)
    index, inside = tile_pixels(pixels + 4 * tile)
    tl.store(out + index, image, mask=inside)


@triton.jit
def adjoint_kernel(
    pixels, corners, first, splats, gaussians, starts, forms, values, weights, scale, out,
    POWER: tl.constexpr, EXACT: tl.constexpr, WEIGHTED: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """What the Gaussians of one tile receive from its pixels."""
    tile = tl.program_id(0)
    start, end = tl.load(first + tile), tl.load(first + tile + 1)
    index, inside = tile_pixels(pixels + 4 * tile)
    image = tl.load(values + index, mask=inside, other=0.0)
    if WEIGHTED:
        image *= tl.load(weights + index, mask=inside, other=0.0)
    for at in range(start, end, CHUNK):
        step = at + tl.arange(0, CHUNK)
        seen = step < end
        splat = tl.load(splats + step, mask=seen, other=0).to(tl.int64)
        gaussian = tl.load(gaussians + splat, mask=seen, other=0)
        y, x = _distances(corners + 2 * tile, starts, forms, splat, seen, WIDTH)
        value = _responses(forms, splat, seen, y, x, WIDTH)
        if POWER == 2:
            value *= value
        # first over rows, which lie in the same thread
        received = tl.sum(tl.sum(value * image[None, :, :], 1), 1)
        if EXACT:
            tl.atomic_add(out + gaussian, (received * tl.load(scale)).to(tl.int64), mask=seen, sem="relaxed")
        else:
            tl.atomic_add(out + gaussian, received, mask=seen, sem="relaxed")


@triton.jit(do_not_specialize=["n_pixels"])
def differentiate_kernel(
    pixels, corners, first, splats, gaussians, starts, forms, depths, constants, amplitudes, out, n_pixels,
    PEAKS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Planes as in `plain_gaussians.differentiate`, one splat after the other."""
    tile = tl.program_id(0)
    constants += 7 * tile
    mm_u, mm_v = tl.load(constants), tl.load(constants + 1)
    spread_u, spread_v, spread_w = tl.load(constants + 2), tl.load(constants + 3), tl.load(constants + 4)
    value = tl.zeros((_TILE, _TILE), tl.float32)
    by_u, by_v, by_w = tl.zeros_like(value), tl.zeros_like(value), tl.zeros_like(value)
    about_u, about_v, about_w = tl.zeros_like(value), tl.zeros_like(value), tl.zeros_like(value)
    start, end = tl.load(first + tile), tl.load(first + tile + 1)
    for at in range(start, end):
        one = at + tl.arange(0, 1)
        splat = tl.load(splats + one).to(tl.int64)
        y, x = _distances(corners + 2 * tile, starts, forms, splat, one >= 0, WIDTH)
        first_part, second_part = _components(forms, splat, one >= 0, y, x, WIDTH)
        u, v = mm_u * tl.sum(y, 0), mm_v * tl.sum(x, 0)
        splat = tl.load(splats + at).to(tl.int64)
        form, depth = forms + WIDTH * splat, depths + 4 * splat
        uu, vv = -2 * _LOG_2 * tl.load(form + 3) / (mm_u * mm_u), -2 * _LOG_2 * tl.load(form + 5) / (mm_v * mm_v)
        uv = -_LOG_2 * tl.load(form + 4) / (mm_u * mm_v)
        uw, vw, ww, w = tl.load(depth), tl.load(depth + 1), tl.load(depth + 2), tl.load(depth + 3)
        factor = tl.load(amplitudes + tl.load(gaussians + splat))
        for component in tl.static_range(2 if WIDTH > _ONE_COMPONENT else 1):
            offset = tl.load(constants + 5 + component)
            g = factor * tl.sum(first_part if component == 0 else second_part, 0)
            if component == 1:
                w += offset - tl.load(constants + 5)
            along_u, along_v = uu * u + uv * v + uw * w, uv * u + vv * v + vw * w
            along_w = uw * u + vw * v + ww * w
            turned_u, turned_v, turned_w = along_v * along_w, along_u * along_w, along_u * along_v
            if PEAKS:
                turned_u, turned_v, turned_w = turned_u - vw, turned_v - uw, turned_w - uv
            value += g
            by_u -= g * along_u
            by_v -= g * along_v
            by_w -= g * along_w
            about_u += g * ((spread_w - spread_v) * turned_u - offset * along_v)
            about_v += g * ((spread_u - spread_w) * turned_v + offset * along_u)
            about_w += g * (spread_v - spread_u) * turned_w
    index, inside = tile_pixels(pixels + 4 * tile)
    tl.store(out + index, value, mask=inside)
    tl.store(out + n_pixels + index, by_u, mask=inside)
    tl.store(out + 2 * n_pixels + index, by_v, mask=inside)
    tl.store(out + 3 * n_pixels + index, by_w, mask=inside)
    tl.store(out + 4 * n_pixels + index, about_u, mask=inside)
    tl.store(out + 5 * n_pixels + index, about_v, mask=inside)
    tl.store(out + 6 * n_pixels + index, about_w, mask=inside)


@triton.jit
def moments_kernel(
    pixels, corners, first, splats, gaussians, starts, forms, amplitudes, values, density, out,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Moments as in `plain_gaussians.moments`: sums over rows first, which lie in the same thread."""
    tile = tl.program_id(0)
    start, end = tl.load(first + tile), tl.load(first + tile + 1)
    index, inside = tile_pixels(pixels + 4 * tile)
    image = tl.load(values + index, mask=inside, other=0.0)
    more = tl.load(density + index, mask=inside, other=0.0)
    for at in range(start, end, CHUNK):
        step = at + tl.arange(0, CHUNK)
        seen = step < end
        splat = tl.load(splats + step, mask=seen, other=0).to(tl.int64)
        factor = tl.load(amplitudes + tl.load(gaussians + splat, mask=seen, other=0), mask=seen, other=0.0)
        y, x = _distances(corners + 2 * tile, starts, forms, splat, seen, WIDTH)
        both, second = _components(forms, splat, seen, y, x, WIDTH)
        pull = factor[:, None, None] * image[None, :, :] + more[None, :, :]
        second *= pull
        both = both * pull + second
        x = tl.sum(x, 1)
        whole, along, along_2 = tl.sum(both, 1), tl.sum(both * y, 1), tl.sum(both * y * y, 1)
        other, other_along = tl.sum(second, 1), tl.sum(second * y, 1)
        to = out + 9 * step
        tl.store(to, tl.sum(whole, 1), mask=seen)
        tl.store(to + 1, tl.sum(along, 1), mask=seen)
        tl.store(to + 2, tl.sum(whole * x, 1), mask=seen)
        tl.store(to + 3, tl.sum(along_2, 1), mask=seen)
        tl.store(to + 4, tl.sum(along * x, 1), mask=seen)
        tl.store(to + 5, tl.sum(whole * x * x, 1), mask=seen)
        tl.store(to + 6, tl.sum(other, 1), mask=seen)
        tl.store(to + 7, tl.sum(other_along, 1), mask=seen)
        tl.store(to + 8, tl.sum(other * x, 1), mask=seen)


def _arrays(lists: GaussianTiles) -> tuple[Tensor, ...]:
    return lists.pixels, lists.corners, lists.first, lists.splats, lists.gaussians, lists.starts, lists.forms


def predict(lists: GaussianTiles, amplitudes: Float32[Tensor, " n"], out: Float32[Tensor, " p"]) -> None:
    """A c into `out`, for the pixels of all tiles."""
    predict_kernel[(lists.n_tiles,)](
        *_arrays(lists), amplitudes.contiguous(), out, WIDTH=lists.forms.shape[1], CHUNK=CHUNK, num_warps=WARPS
    )


def adjoint(
    lists: GaussianTiles,
    pixels: Float32[Tensor, " p"],
    weights: Float32[Tensor, " p"] | None,
    out: Tensor,
    power: int = 1,
    scale: Float32[Tensor, ""] | None = None,
) -> None:
    """Add A^T (weights pixels) to `out`; for `power` 2 with squared factors; with a `scale` as whole numbers."""
    values = pixels.contiguous()
    adjoint_kernel[(lists.n_tiles,)](
        *_arrays(lists), values, values if weights is None else weights, values if scale is None else scale, out,
        POWER=power, EXACT=scale is not None, WEIGHTED=weights is not None, WIDTH=lists.forms.shape[1], CHUNK=CHUNK,
        num_warps=WARPS,
    )  # fmt: skip


def differentiate(lists: GaussianTiles, amplitudes: Float32[Tensor, " n"], out: Float32[Tensor, "7 p"]) -> None:
    """Pixels, derivative by d = pixel - Gaussian (mm), and torques, in the slice frame."""
    differentiate_kernel[(lists.n_tiles,)](
        *_arrays(lists), lists.depths, lists.constants, amplitudes.contiguous(), out, out.shape[1],
        PEAKS=lists.exact, WIDTH=lists.forms.shape[1], num_warps=DERIVATIVE_WARPS,
    )  # fmt: skip


def moments(
    lists: GaussianTiles,
    amplitudes: Float32[Tensor, " n"],
    pixels: Float32[Tensor, " p"],
    density_pixels: Float32[Tensor, " p"],
    out: Float32[Tensor, "l 9"],
) -> None:
    """Moments of every entry of the lists, see `plain_gaussians.moments`."""
    moments_kernel[(lists.n_tiles,)](
        *_arrays(lists), amplitudes.contiguous(), pixels.contiguous(), density_pixels.contiguous(), out,
        WIDTH=lists.forms.shape[1], CHUNK=CHUNK, num_warps=WARPS,
    )  # fmt: skip
