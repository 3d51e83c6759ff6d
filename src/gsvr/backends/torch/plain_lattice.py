"""The kernels of `gsvr.backends.triton.lattice` in plain PyTorch: their twins in tests, and what other devices run.

Lists are worked through in blocks of `_BLOCK` sites of one tile, and as many blocks at once as memory allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from gsvr.backends.torch.fixed_order import add_rows
from gsvr.backends.torch.lattice_tiles import COMPONENT, FIRST_COMPONENT, LatticeTiles
from gsvr.backends.torch.tiles import TILE, cut_into_tiles, join_tiles

_BLOCK = 64
# Blocks at once: on a CPU what fits its caches, elsewhere some 100 MB of factors.
_BLOCKS_ON_CPU, _BLOCKS = 512, 4096
_TILES = 256
# Lattice rows (almost) parallel to a slice's plane are not crossed by it.
_LEAST_SLOPE = 1e-6
_FAR = 4096.0
_LOG_2 = 0.6931471805599453


def fill(tiles: LatticeTiles) -> None:
    """Find the sites of every tile."""
    for start in range(0, tiles.n_tiles, _TILES):
        _fill_some(tiles, slice(start, min(start + _TILES, tiles.n_tiles)))


def _fill_some(tiles: LatticeTiles, some: slice) -> None:
    boxes, frames, extents = tiles.boxes[some].long(), tiles.frames[some], tiles.extents[some]
    number = torch.arange(max(int((boxes[:, 5] * boxes[:, 6]).max()), 1), device=boxes.device)
    x = boxes[:, 3:4] + number // boxes[:, 6:7].clamp(min=1)
    y = boxes[:, 4:5] + number % boxes[:, 6:7].clamp(min=1)
    inside = number < boxes[:, 5:6] * boxes[:, 6:7]
    ends = tiles.row_ends[x.clamp(max=tiles.shape[0] - 1), y.clamp(max=tiles.shape[1] - 1)]
    low, high = torch.full_like(x, -_FAR, dtype=torch.float32), torch.full_like(x, _FAR, dtype=torch.float32)
    for axis in range(3):
        slope = frames[:, 3 * axis + 2, None]
        slope = torch.where(slope.abs() < _LEAST_SLOPE, _LEAST_SLOPE, slope)
        base = frames[:, 3 * axis, None] * (x - boxes[:, :1]) + frames[:, 3 * axis + 1, None] * (y - boxes[:, 1:2])
        base = base + frames[:, 9 + axis, None]
        crossings = [(extents[:, 2 * axis + side, None] - base) / slope for side in (0, 1)]
        low = torch.maximum(low, torch.minimum(*crossings))
        high = torch.minimum(high, torch.maximum(*crossings))
    z = boxes[:, 2:3]
    first = torch.maximum(low.clamp(-_FAR, _FAR).ceil().long() + z, ends[..., 0].long())
    last = torch.minimum(high.clamp(-_FAR, _FAR).floor().long() + z + 1, ends[..., 1].long())
    counts = torch.where(inside, (last - first).clamp(min=0), 0)
    tiles.count[some] = counts.sum(1).to(torch.int32)
    before = counts.cumsum(1) - counts + tiles.first[some, None]
    counts, row = counts.reshape(-1), torch.arange(counts.numel(), device=counts.device)
    row = torch.repeat_interleave(row, counts)
    step = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    x, y, first, before = (part.reshape(-1)[row] for part in (x, y, first, before))
    tiles.sites[before + step] = (x << 20 | y << 10 | (first + step)).to(torch.int32)


@dataclass(frozen=True)
class _Block:
    """Some blocks of sites: their tiles, flat sites, amplitude zero where the list has ended, and distances.

    `du`, `dv` (blocks, TILE, sites) are pixel minus site in pixels, `dw` (blocks, sites) minus the site's w in mm.
    """

    tile: Tensor
    site: Tensor
    seen: Tensor
    du: Tensor
    dv: Tensor
    dw: Tensor
    constants: Tensor

    def along(self, axis: int, power: int = 1) -> Tensor:
        distance = (self.du, self.dv)[axis]
        return torch.exp2(-power * self.constants[:, axis, None, None] * distance**2)

    def through(self) -> tuple[Tensor, Tensor]:
        """Profile at each site, zero where the list has ended, and its slope by w (1/mm)."""
        value, slope = torch.zeros_like(self.dw), torch.zeros_like(self.dw)
        for column in range(FIRST_COMPONENT, self.constants.shape[1], COMPONENT):
            peak, offset, sharpness = self.constants[:, column : column + COMPONENT, None].unbind(1)
            distance = self.dw + offset
            part = peak * torch.exp2(-sharpness * distance**2)
            value = value + part
            slope = slope - 2 * sharpness * _LOG_2 * distance * part
        return value * self.seen, slope * self.seen


def _blocks(tiles: LatticeTiles) -> Iterator[_Block]:
    per_tile = -(-tiles.count.long() // _BLOCK)
    owner = torch.repeat_interleave(torch.arange(tiles.n_tiles, device=per_tile.device), per_tile)
    number = torch.arange(len(owner), device=owner.device) - (per_tile.cumsum(0) - per_tile)[owner]
    steps = torch.arange(_BLOCK, device=owner.device)
    lines = torch.arange(TILE, device=owner.device, dtype=torch.float32)
    _, ny, nz = tiles.shape
    at_once = _BLOCKS_ON_CPU if owner.device.type == "cpu" else _BLOCKS
    for start in range(0, len(owner), at_once):
        tile = owner[start : start + at_once]
        step = number[start : start + at_once, None] * _BLOCK + steps
        seen = step < tiles.count[tile, None]
        packed = tiles.sites[torch.where(seen, tiles.first[tile, None] + step, 0)].long()
        x, y, z = packed >> 20, packed >> 10 & 1023, packed & 1023
        frame, boxes = tiles.frames[tile], tiles.boxes[tile]
        away = [(part - boxes[:, axis, None]).to(torch.float32) for axis, part in enumerate((x, y, z))]
        u, v, w = (
            sum(frame[:, 3 * axis + i, None] * away[i] for i in range(3)) + frame[:, 9 + axis, None]
            for axis in range(3)
        )
        du, dv = (lines[:, None] - part[:, None, :] for part in (u, v))
        yield _Block(tile, (x * ny + y) * nz + z, seen, du, dv, -w, tiles.constants[tile])


def predict(tiles: LatticeTiles, amplitudes: Float32[Tensor, "nx ny nz"], out: Float32[Tensor, " p"]) -> None:
    """A c into `out`, for the pixels of all tiles."""
    flat = amplitudes.reshape(-1)
    images = torch.zeros((tiles.n_tiles, TILE, TILE), device=out.device)
    for block in _blocks(tiles):
        scale = flat[block.site] * block.through()[0]
        part = (block.along(0) * scale[:, None, :]) @ block.along(1).transpose(1, 2)
        add_rows(images, block.tile, part)
    join_tiles(images[None], tiles.pixels, out[None])


def differentiate(tiles: LatticeTiles, amplitudes: Float32[Tensor, "nx ny nz"], out: Float32[Tensor, "7 p"]) -> None:
    """Pixels, derivative by d = pixel - Gaussian (mm), and d x derivative, in the slice frame."""
    flat = amplitudes.reshape(-1)
    images = torch.zeros((tiles.n_tiles, 7, TILE, TILE), device=out.device)
    for block in _blocks(tiles):
        through, slope = block.through()
        c, dw = flat[block.site], block.dw
        spacing = block.constants[:, 2:4]
        # 1 / sigma^2 in mm^-2
        qu, qv = (2 * _LOG_2 * block.constants[:, :2] / spacing**2)[:, :, None].unbind(1)
        u, v = block.along(0), block.along(1).transpose(1, 2)
        u1 = block.du * spacing[:, 0, None, None] * u
        v1 = (block.dv * spacing[:, 1, None, None] * block.along(1)).transpose(1, 2)
        planes = (
            (u, c * through, v),
            (u1, -qu * c * through, v),
            (u, -qv * c * through, v1),
            (u, c * slope, v),
            (u, c * (slope + qv * dw * through), v1),
            (u1, -c * (slope + qu * dw * through), v),
            (u1, (qu - qv) * c * through, v1),
        )
        part = torch.stack([(left * scale[:, None, :]) @ right for left, scale, right in planes], 1)
        add_rows(images, block.tile, part)
    join_tiles(images.transpose(0, 1), tiles.pixels, out)


def adjoint(
    tiles: LatticeTiles,
    pixels: Float32[Tensor, " p"],
    power: int,
    scale: Float32[Tensor, ""],
    out: Int64[Tensor, "nx ny nz"],
) -> None:
    """Add A^T pixels, with factors to the `power`, to `out` as whole numbers of 1 / `scale`."""
    images, total = cut_into_tiles(pixels, tiles.pixels), out.view(-1)
    for block in _blocks(tiles):
        rows = block.along(0, power).transpose(1, 2) @ images[block.tile]
        received = (rows * block.along(1, power).transpose(1, 2)).sum(2) * block.through()[0] ** power
        total.index_add_(0, block.site.reshape(-1), (received * scale).to(torch.int64).reshape(-1))
