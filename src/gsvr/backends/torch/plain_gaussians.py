"""The kernels of `triton_gaussians` in plain PyTorch: their twin in tests, and what other devices than CUDA run.

Entries of the tiles' lists are worked through as many at once as memory allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.backends.torch.gaussian_tiles import GaussianTiles
from gsvr.backends.torch.lattice_tiles import TILE

# Entries at once: on a CPU what fits its caches, elsewhere some 100 MB a number of every pixel.
_ON_CPU, _ELSEWHERE = 1024, 2**17
_LOG_2 = 0.6931471805599453


@dataclass(frozen=True)
class _Entries:
    """Some entries of the lists: tile, splat, and the distance (pixels) of each line of the tile from the mean."""

    lists: GaussianTiles
    tile: Tensor
    splat: Tensor
    y: Tensor
    x: Tensor

    def forms(self) -> tuple[Tensor, ...]:
        """Coefficients of each splat, to be spread over a tile."""
        return self.lists.forms[self.splat][:, :, None, None].unbind(1)

    def components(self) -> list[Tensor]:
        """Every component of the slice profile at every pixel of the tile."""
        if self.lists.squared_radii is None:
            return self._whole()
        near = self._near(self.lists.squared_radii)
        return [near * part for part in self._whole()]

    def _near(self, squared_radii: Tensor) -> Tensor:
        """One where the Gaussian's mean is within the pixel's radius, zero elsewhere."""
        # outside of the slice no place is stored or read
        index = _pixel_index(self.lists, self.tile).clamp(min=0)
        mm_u, mm_v, _, _, _, first_offset, _ = self.lists.constants[self.tile][:, :, None, None].unbind(1)
        w = self.lists.depths[self.splat, 3][:, None, None] - first_offset
        u, v = mm_u * self.y[:, :, None], mm_v * self.x[:, None, :]
        return (u * u + v * v + w * w <= squared_radii[index]).to(torch.float32)

    def _whole(self) -> list[Tensor]:
        """The components without regard to radii."""
        peak, by_y, by_x, yy, yx, xx, _, _, *ratio = self.forms()
        y, x = self.y[:, :, None], self.x[:, None, :]
        exponent = (peak + by_y * y + yy * y * y) + (by_x * x + xx * x * x) + yx * y * x
        if not ratio:
            return [torch.exp2(exponent)]
        constant, ratio_y, ratio_x = ratio
        return [torch.exp2(exponent), torch.exp2(exponent + ((constant + ratio_y * y) + ratio_x * x))]

    def responses(self) -> Tensor:
        """How every pixel of the tile sees the Gaussian at amplitude one."""
        return torch.stack(self.components()).sum(0)


def _entries(lists: GaussianTiles) -> Iterator[_Entries]:
    device = lists.splats.device
    lines = torch.arange(TILE, device=device, dtype=torch.float32)
    at_once = _ON_CPU if device.type == "cpu" else _ELSEWHERE
    for start in range(0, len(lists.splats), at_once):
        splat = lists.splats[start : start + at_once].long()
        at = torch.arange(start, start + len(splat), device=device)
        tile = torch.searchsorted(lists.first, at, right=True) - 1
        away = (lists.corners[tile] - lists.starts[splat]).to(torch.float32) - lists.forms[splat, 6:8]
        yield _Entries(lists, tile, splat, lines + away[:, :1], lines + away[:, 1:])


def _pixel_index(lists: GaussianTiles, tiles: Tensor | slice = slice(None)) -> Tensor:
    """Flat pixel of every place in these tiles; one past the last pixel of all where the slice has ended."""
    lines = torch.arange(TILE, device=lists.pixels.device)
    start, rows, columns, stride = lists.pixels[tiles].long()[:, :, None, None].unbind(1)
    inside = (lines[:, None] < rows) & (lines < columns)
    return (start + lines[:, None] * stride + lines).masked_fill(~inside, -1)


def _stored(lists: GaussianTiles, images: Float32[Tensor, "k t i j"], out: Float32[Tensor, "k p"]) -> None:
    index = _pixel_index(lists).reshape(-1)
    padded = torch.zeros((len(out), out.shape[1] + 1), device=out.device)
    padded[:, index] = images.reshape(len(out), -1)  # places outside of the slice fall on the last
    out.copy_(padded[:, :-1])


def predict(lists: GaussianTiles, amplitudes: Float32[Tensor, " n"], out: Float32[Tensor, " p"]) -> None:
    """A c into `out`, for the pixels of all tiles."""
    images = torch.zeros((1, lists.n_tiles, TILE, TILE), device=out.device)
    for entries in _entries(lists):
        factors = amplitudes[lists.gaussians[entries.splat].long()]
        images[0].index_add_(0, entries.tile, factors[:, None, None] * entries.responses())
    _stored(lists, images, out[None])


def adjoint(
    lists: GaussianTiles,
    pixels: Float32[Tensor, " p"],
    weights: Float32[Tensor, " p"] | None,
    out: Tensor,
    power: int = 1,
    scale: Float32[Tensor, ""] | None = None,
) -> None:
    """Add A^T (weights pixels) to `out`; for `power` 2 with squared factors; with a `scale` as whole numbers."""
    weighted = torch.nn.functional.pad(pixels if weights is None else weights * pixels, (0, 1))
    images = weighted[_pixel_index(lists)]
    for entries in _entries(lists):
        received = (entries.responses() ** power * images[entries.tile]).sum((1, 2))
        received = received if scale is None else (received * scale).to(out.dtype)
        out.index_add_(0, lists.gaussians[entries.splat].long(), received)


def differentiate(lists: GaussianTiles, amplitudes: Float32[Tensor, " n"], out: Float32[Tensor, "7 p"]) -> None:
    """Pixels, derivative by d = pixel - Gaussian (mm), and torques, in the slice frame.

    With B the blurred covariance, P the point spread function's and y = B^-1 d, the derivative of a Gaussian G by d is
    -G y. A slice that turns takes P with it, so the torque is not d x derivative but G y x P y, less what B's
    determinant in the peak adds; and the offset of a component turns with the slice, too.
    """
    images = torch.zeros((7, lists.n_tiles, TILE, TILE), device=out.device)
    for entries in _entries(lists):
        _, _, _, yy, yx, xx, *_ = entries.forms()
        uw, vw, ww, distance = lists.depths[entries.splat][:, :, None, None].unbind(1)
        mm_u, mm_v, spread_u, spread_v, spread_w, *offsets = lists.constants[entries.tile][:, :, None, None].unbind(1)
        u, v = mm_u * entries.y[:, :, None], mm_v * entries.x[:, None, :]
        uu, uv, vv = -2 * _LOG_2 * yy / mm_u**2, -_LOG_2 * yx / (mm_u * mm_v), -2 * _LOG_2 * xx / mm_v**2
        factors = amplitudes[lists.gaussians[entries.splat].long()][:, None, None]
        part = torch.zeros((7, len(entries.tile), TILE, TILE), device=out.device)
        for values, offset in zip(entries.components(), offsets, strict=False):
            w, values = distance + offset - offsets[0], factors * values
            along_u, along_v, along_w = uu * u + uv * v + uw * w, uv * u + vv * v + vw * w, uw * u + vw * v + ww * w
            turned_u, turned_v, turned_w = along_v * along_w, along_u * along_w, along_u * along_v
            if lists.exact:
                turned_u, turned_v, turned_w = turned_u - vw, turned_v - uw, turned_w - uv
            part += values * torch.stack(
                [
                    torch.ones_like(along_u), -along_u, -along_v, -along_w,
                    (spread_w - spread_v) * turned_u - offset * along_v,
                    (spread_u - spread_w) * turned_v + offset * along_u,
                    (spread_v - spread_u) * turned_w,
                ]
            )  # fmt: skip
        images.index_add_(1, entries.tile, part)
    _stored(lists, images, out)


def moments(
    lists: GaussianTiles,
    amplitudes: Float32[Tensor, " n"],
    pixels: Float32[Tensor, " p"],
    density_pixels: Float32[Tensor, " p"],
    out: Float32[Tensor, "l 9"],
) -> None:
    """Of every entry of the lists: sums of q G times 1, y, x, y y, y x, x x; of the second component's times 1, y, x.

    (y, x) is the distance from the mean in pixels, and q the amplitude times `pixels`, plus `density_pixels`.
    """
    index, start = _pixel_index(lists), 0
    images, more = (torch.nn.functional.pad(part, (0, 1))[index] for part in (pixels, density_pixels))
    for entries in _entries(lists):
        factors = amplitudes[lists.gaussians[entries.splat].long()][:, None, None]
        image = factors * images[entries.tile] + more[entries.tile]
        first, *others = (image * part for part in entries.components())
        both, second = (first + others[0], others[0]) if others else (first, torch.zeros_like(first))
        y, x = entries.y[:, :, None], entries.x[:, None, :]
        parts = [both, both * y, both * x, both * y * y, both * y * x, both * x * x, second, second * y, second * x]
        out[start : start + len(image)] = torch.stack([part.sum((1, 2)) for part in parts], 1)
        start += len(image)
