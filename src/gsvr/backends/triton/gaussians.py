"""Triton kernels of free Gaussians: one program a tile, its splats in chunks, sums in registers.

The exponent of a component at a pixel is a part of the row, a part of the column, and a product of both distances: two
multiply-adds beside an exponential, which is what binds. So it is not written as an inner product of monomials for the
tensor cores: that would spare nothing that binds, and lose digits where large terms cancel.

`gsvr.backends.torch.plain_gaussians` does the same in plain PyTorch, and
`gsvr.backends.torch.gaussian_tiles.GaussianTiles` says what the columns of the arrays are for.
"""

# Triton compiles functions whose arguments have no types.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl
from jaxtyping import Float32, Int64
from torch import Tensor

from gsvr.backends.torch.gaussian_tiles import GaussianTiles
from gsvr.backends.triton.tiles import LINES, store_planes, tile_pixels

# Splats a chunk, and warps a tile.
CHUNK, WARPS = 4, 1
DERIVATIVE_WARPS = 2

_LOG_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _component(corners, starts, form, splat, seen):
    """A component of a chunk of splats at every pixel of the tile, and the distances of rows and columns (pixels).

    `form` points at the component's six numbers of each splat: splats x rows x columns.
    """
    lines = tl.arange(0, LINES).to(tl.float32)
    row, column = tl.load(starts + 2 * splat, mask=seen, other=0), tl.load(starts + 2 * splat + 1, mask=seen, other=0)
    away_y = (tl.load(corners) - row).to(tl.float32) - tl.load(form + 4, mask=seen, other=0.0)
    away_x = (tl.load(corners + 1) - column).to(tl.float32) - tl.load(form + 5, mask=seen, other=0.0)
    y = (away_y[:, None] + lines[None, :])[:, :, None]
    x = (away_x[:, None] + lines[None, :])[:, None, :]
    peak, yy = _spread(tl.load(form, mask=seen, other=0.0)), _spread(tl.load(form + 1, mask=seen, other=0.0))
    yx, xx = _spread(tl.load(form + 2, mask=seen, other=0.0)), _spread(tl.load(form + 3, mask=seen, other=0.0))
    exponent = (peak + yy * y * y) + xx * x * x + (yx * y) * x
    return tl.exp2(exponent), y, x


@triton.jit
def _spread(of_splats):
    return of_splats[:, None, None]


@triton.jit
def _responses(corners, starts, forms, splat, seen, MIXTURE: tl.constexpr):
    """How every pixel of the tile sees a chunk of Gaussians at amplitude one."""
    total, _, _ = _component(corners, starts, forms + 6 * MIXTURE * splat, splat, seen)
    for m in tl.static_range(1, MIXTURE):
        part, _, _ = _component(corners, starts, forms + 6 * (MIXTURE * splat + m), splat, seen)
        total += part
    return total


@triton.jit
def predict_kernel(
    pixels, corners, first, splats, gaussians, starts, forms, amplitudes, out,
    MIXTURE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The pixels of one tile."""
    tile = tl.program_id(0)
    start, end = tl.load(first + tile), tl.load(first + tile + 1)
    image = tl.zeros((LINES, LINES), tl.float32)
    for at in range(start, end, CHUNK):
        step = at + tl.arange(0, CHUNK)
        seen = step < end
        splat = tl.load(splats + step, mask=seen, other=0).to(tl.int64)
        gaussian = tl.load(gaussians + splat, mask=seen, other=0)
        factor = tl.load(amplitudes + gaussian, mask=seen, other=0.0)
        image += tl.sum(_spread(factor) * _responses(corners + 2 * tile, starts, forms, splat, seen, MIXTURE), 0)
    index, inside = tile_pixels(pixels + 4 * tile)
    tl.store(out + index, image, mask=inside)


@triton.jit
def adjoint_kernel(
    pixels, corners, first, splats, gaussians, starts, forms, values, scale, out,
    POWER: tl.constexpr, MIXTURE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """What the Gaussians of one tile receive from its pixels."""
    tile = tl.program_id(0)
    start, end = tl.load(first + tile), tl.load(first + tile + 1)
    index, inside = tile_pixels(pixels + 4 * tile)
    image = tl.load(values + index, mask=inside, other=0.0)
    for at in range(start, end, CHUNK):
        step = at + tl.arange(0, CHUNK)
        seen = step < end
        splat = tl.load(splats + step, mask=seen, other=0).to(tl.int64)
        gaussian = tl.load(gaussians + splat, mask=seen, other=0)
        value = _responses(corners + 2 * tile, starts, forms, splat, seen, MIXTURE)
        if POWER == 2:
            value *= value
        # first over rows, which lie in the same thread
        received = tl.sum(tl.sum(value * image[None, :, :], 1), 1)
        tl.atomic_add(out + gaussian, (received * tl.load(scale)).to(tl.int64), mask=seen, sem="relaxed")


@triton.jit(do_not_specialize=["n_pixels"])
def differentiate_kernel(
    pixels, corners, first, splats, gaussians, starts, forms, slopes, constants, amplitudes, out, n_pixels,
    MIXTURE: tl.constexpr,
):  # fmt: skip
    """Planes as in `gsvr.backends.torch.plain_gaussians.differentiate`, one splat after the other."""
    tile = tl.program_id(0)
    constants += (2 + 9 * MIXTURE) * tile
    mm_u, mm_v = tl.load(constants), tl.load(constants + 1)
    value = tl.zeros((LINES, LINES), tl.float32)
    by_u, by_v, by_w = tl.zeros_like(value), tl.zeros_like(value), tl.zeros_like(value)
    about_u, about_v, about_w = tl.zeros_like(value), tl.zeros_like(value), tl.zeros_like(value)
    start, end = tl.load(first + tile), tl.load(first + tile + 1)
    for at in range(start, end):
        one = at + tl.arange(0, 1)
        splat, splats_of_one = tl.load(splats + at).to(tl.int64), tl.load(splats + one).to(tl.int64)
        factor = tl.load(amplitudes + tl.load(gaussians + splat))
        for m in tl.static_range(MIXTURE):
            form, slope, of = forms + 6 * (MIXTURE * splat + m), slopes + 6 * (MIXTURE * splat + m), constants + 9 * m
            part, y, x = _component(
                corners + 2 * tile, starts, forms + 6 * (MIXTURE * splats_of_one + m), splats_of_one, one >= 0
            )
            g, u, v = factor * tl.sum(part, 0), mm_u * tl.sum(y, 0), mm_v * tl.sum(x, 0)
            uu = -2 * _LOG_2 * tl.load(form + 1) / (mm_u * mm_u)
            uv = -_LOG_2 * tl.load(form + 2) / (mm_u * mm_v)
            vv = -2 * _LOG_2 * tl.load(form + 3) / (mm_v * mm_v)
            z_u, z_v = uu * u + uv * v, uv * u + vv * v
            z_w = tl.load(slope) * u + tl.load(slope + 1) * v + tl.load(slope + 2)
            s_uv, s_uw, s_vw = tl.load(of + 6), tl.load(of + 7), tl.load(of + 9)
            arm_u = tl.load(of + 5) * z_u + s_uv * z_v + s_uw * z_w - tl.load(of + 2)
            arm_v = s_uv * z_u + tl.load(of + 8) * z_v + s_vw * z_w - tl.load(of + 3)
            arm_w = s_uw * z_u + s_vw * z_v + tl.load(of + 10) * z_w - tl.load(of + 4)
            value += g
            by_u -= g * z_u
            by_v -= g * z_v
            by_w -= g * z_w
            about_u += g * (z_v * arm_w - z_w * arm_v + tl.load(slope + 3))
            about_v += g * (z_w * arm_u - z_u * arm_w + tl.load(slope + 4))
            about_w += g * (z_u * arm_v - z_v * arm_u + tl.load(slope + 5))
    store_planes(out, n_pixels, pixels + 4 * tile, value, by_u, by_v, by_w, about_u, about_v, about_w)


@triton.jit
def moments_kernel(
    pixels, corners, first, splats, gaussians, starts, forms, amplitudes, values, density, out,
    MIXTURE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Moments as in `gsvr.backends.torch.plain_gaussians.moments`: first over rows, which lie in the same thread."""
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
        image_of_splat = _spread(factor) * image[None, :, :] + more[None, :, :]
        for m in tl.static_range(MIXTURE):
            part, y, x = _component(corners + 2 * tile, starts, forms + 6 * (MIXTURE * splat + m), splat, seen)
            pull = image_of_splat * part
            x = tl.sum(x, 1)
            whole, along, along_2 = tl.sum(pull, 1), tl.sum(pull * y, 1), tl.sum(pull * y * y, 1)
            to = out + 6 * (MIXTURE * step + m)
            tl.store(to, tl.sum(whole, 1), mask=seen)
            tl.store(to + 1, tl.sum(along, 1), mask=seen)
            tl.store(to + 2, tl.sum(whole * x, 1), mask=seen)
            tl.store(to + 3, tl.sum(along_2, 1), mask=seen)
            tl.store(to + 4, tl.sum(along * x, 1), mask=seen)
            tl.store(to + 5, tl.sum(whole * x * x, 1), mask=seen)


def _arrays(tiles: GaussianTiles) -> tuple[Tensor, ...]:
    return tiles.pixels, tiles.corners, tiles.first, tiles.splats, tiles.gaussians, tiles.starts, tiles.forms


def predict(tiles: GaussianTiles, amplitudes: Float32[Tensor, " n"], out: Float32[Tensor, " p"]) -> None:
    """A c into `out`."""
    predict_kernel[(tiles.n_tiles,)](
        *_arrays(tiles), amplitudes.contiguous(), out, MIXTURE=tiles.forms.shape[1], CHUNK=CHUNK, num_warps=WARPS
    )


def adjoint(
    tiles: GaussianTiles,
    pixels: Float32[Tensor, " p"],
    power: int,
    scale: Float32[Tensor, ""],
    out: Int64[Tensor, " n"],
) -> None:
    """Add A^T pixels, with factors to the `power`, to `out` as whole numbers of 1 / `scale`."""
    adjoint_kernel[(tiles.n_tiles,)](
        *_arrays(tiles), pixels.contiguous(), scale, out, POWER=power, MIXTURE=tiles.forms.shape[1], CHUNK=CHUNK,
        num_warps=WARPS,
    )  # fmt: skip


def differentiate(
    tiles: GaussianTiles,
    slopes: Float32[Tensor, "k m 6"],
    amplitudes: Float32[Tensor, " n"],
    out: Float32[Tensor, "7 p"],
) -> None:
    """Pixels, derivative by d = pixel - Gaussian (mm), and torques, in the slice frame."""
    differentiate_kernel[(tiles.n_tiles,)](
        *_arrays(tiles), slopes, tiles.constants, amplitudes.contiguous(), out, out.shape[1],
        MIXTURE=tiles.forms.shape[1], num_warps=DERIVATIVE_WARPS,
    )  # fmt: skip


def moments(
    tiles: GaussianTiles,
    amplitudes: Float32[Tensor, " n"],
    pixels: Float32[Tensor, " p"],
    density_pixels: Float32[Tensor, " p"],
    out: Float32[Tensor, "l m 6"],
) -> None:
    """Moments of every entry of the lists, see `gsvr.backends.torch.plain_gaussians.moments`."""
    moments_kernel[(tiles.n_tiles,)](
        *_arrays(tiles), amplitudes.contiguous(), pixels.contiguous(), density_pixels.contiguous(), out,
        MIXTURE=tiles.forms.shape[1], CHUNK=CHUNK, num_warps=WARPS,
    )  # fmt: skip
