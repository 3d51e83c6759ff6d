"""The kernels of `gsvr.backends.triton.gaussians` in plain PyTorch: their twins in tests, and what other devices run.

Entries of the tiles' lists are worked through as many at once as memory allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from gsvr.backends.torch.fixed_order import add_rows
from gsvr.backends.torch.gaussian_tiles import GaussianTiles
from gsvr.backends.torch.tiles import TILE, cut_into_tiles, join_tiles, pixel_index

# Entries at once: on a CPU what fits its caches, elsewhere some 100 MB a number of every pixel.
_ON_CPU, _ELSEWHERE = 1024, 2**17
_LOG_2 = 0.6931471805599453


@dataclass(frozen=True)
class _Entries:
    """Some entries of the lists: tile, splat and Gaussian of each."""

    tiles: GaussianTiles
    tile: Int64[Tensor, " k"]
    splat: Int64[Tensor, " k"]
    gaussian: Int64[Tensor, " k"]

    def lines(self, places: Float32[Tensor, "k 2"]) -> tuple[Float32[Tensor, "k i 1"], Float32[Tensor, "k 1 j"]]:
        """Distance (pixels) of the tile's rows and columns from places, which are counted from the window's start."""
        lines = torch.arange(TILE, device=places.device, dtype=torch.float32)
        away = (self.tiles.corners[self.tile] - self.tiles.starts[self.splat]).to(torch.float32) - places
        return (lines + away[:, :1])[:, :, None], (lines + away[:, 1:])[:, None, :]

    def components(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each component its value at every pixel of the tile, and the distances of rows and columns."""
        near = 1.0 if self.tiles.squared_radii is None else self._near(self.tiles.squared_radii)
        for form in self.tiles.forms[self.splat].unbind(1):
            y, x = self.lines(form[:, 4:])
            peak, yy, yx, xx = form[:, :4, None, None].unbind(1)
            yield near * torch.exp2((peak + yy * y * y) + xx * x * x + (yx * y) * x), y, x

    def _near(self, squared_radii: Tensor) -> Tensor:
        """One where the Gaussian's mean is within the pixel's radius, zero elsewhere."""
        # what is not inside the slice is neither stored nor read
        index = pixel_index(self.tiles.pixels[self.tile]).clamp(min=0)
        means = self.tiles.means[self.splat]
        y, x = self.lines(means[:, :2])
        mm_u, mm_v = self.tiles.constants[self.tile, :2, None, None].unbind(1)
        squared = (mm_u * y) ** 2 + (mm_v * x) ** 2 + means[:, 2, None, None] ** 2
        return (squared <= squared_radii[index]).to(torch.float32)

    def responses(self) -> Tensor:
        """How every pixel of the tile sees the Gaussian at amplitude one."""
        return torch.stack([values for values, _, _ in self.components()]).sum(0)


def _entries(tiles: GaussianTiles) -> Iterator[_Entries]:
    device = tiles.splats.device
    at_once = _ON_CPU if device.type == "cpu" else _ELSEWHERE
    for start in range(0, len(tiles.splats), at_once):
        splat = tiles.splats[start : start + at_once].long()
        at = torch.arange(start, start + len(splat), device=device)
        tile = torch.searchsorted(tiles.first, at, right=True) - 1
        yield _Entries(tiles, tile, splat, tiles.gaussians[splat].long())


def predict(tiles: GaussianTiles, amplitudes: Float32[Tensor, " n"], out: Float32[Tensor, " p"]) -> None:
    """A c into `out`."""
    images = torch.zeros((tiles.n_tiles, TILE, TILE), device=out.device)
    for entries in _entries(tiles):
        add_rows(images, entries.tile, amplitudes[entries.gaussian, None, None] * entries.responses())
    join_tiles(images[None], tiles.pixels, out[None])


def adjoint(
    tiles: GaussianTiles,
    pixels: Float32[Tensor, " p"],
    power: int,
    scale: Float32[Tensor, ""],
    out: Int64[Tensor, " n"],
) -> None:
    """Add A^T pixels, with factors to the `power`, to `out` as whole numbers of 1 / `scale`."""
    images = cut_into_tiles(pixels, tiles.pixels)
    for entries in _entries(tiles):
        received = (entries.responses() ** power * images[entries.tile]).sum((1, 2))
        out.index_add_(0, entries.gaussian, (received * scale).to(torch.int64))


def differentiate(
    tiles: GaussianTiles,
    slopes: Float32[Tensor, "k m 6"],
    amplitudes: Float32[Tensor, " n"],
    out: Float32[Tensor, "7 p"],
) -> None:
    """Pixels, derivative by d = pixel - Gaussian (mm), and torques, in the slice frame.

    With B the blurred covariance and z = B^-1 d the derivative of a Gaussian G by d is -G z. A slice that turns takes
    covariance P and offset b of its point spread function with it, so the torque is not d x derivative but
    G (z x (P z - b)), and what the peak adds (`slopes`, see `gsvr.backends.torch.splats.slopes`).
    """
    images = torch.zeros((tiles.n_tiles, 7, TILE, TILE), device=out.device)
    for entries in _entries(tiles):
        factors = amplitudes[entries.gaussian, None, None]
        constants = tiles.constants[entries.tile][:, :, None, None]
        mm_u, mm_v = constants[:, :2].unbind(1)
        part = torch.zeros((len(entries.tile), 7, TILE, TILE), device=out.device)
        for m, (values, y, x) in enumerate(entries.components()):
            _, yy, yx, xx, _, _ = tiles.forms[entries.splat, m, :, None, None].unbind(1)
            uw, vw, height, *peak_torque = slopes[entries.splat, m, :, None, None].unbind(1)
            offset_u, offset_v, offset_w, *spread = constants[:, 2 + 9 * m : 11 + 9 * m].unbind(1)
            s_uu, s_uv, s_uw, s_vv, s_vw, s_ww = spread
            u, v = mm_u * y, mm_v * x
            uu, uv, vv = -2 * _LOG_2 * yy / mm_u**2, -_LOG_2 * yx / (mm_u * mm_v), -2 * _LOG_2 * xx / mm_v**2
            z_u, z_v, z_w = uu * u + uv * v, uv * u + vv * v, uw * u + vw * v + height
            arm_u = s_uu * z_u + s_uv * z_v + s_uw * z_w - offset_u
            arm_v = s_uv * z_u + s_vv * z_v + s_vw * z_w - offset_v
            arm_w = s_uw * z_u + s_vw * z_v + s_ww * z_w - offset_w
            torques = (z_v * arm_w - z_w * arm_v, z_w * arm_u - z_u * arm_w, z_u * arm_v - z_v * arm_u)
            turned = [torque + more for torque, more in zip(torques, peak_torque, strict=True)]
            planes = torch.stack([torch.ones_like(z_u), -z_u, -z_v, -z_w, *turned], 1)
            part += (factors * values)[:, None] * planes
        add_rows(images, entries.tile, part)
    join_tiles(images.transpose(0, 1), tiles.pixels, out)


def moments(
    tiles: GaussianTiles,
    amplitudes: Float32[Tensor, " n"],
    pixels: Float32[Tensor, " p"],
    density_pixels: Float32[Tensor, " p"],
    out: Float32[Tensor, "l m 6"],
) -> None:
    """Of every entry of the lists and every component G: sums over pixels of q G times 1, y, x, y y, y x, x x.

    (y, x) is the distance in pixels from the place of the component, and q the amplitude times `pixels`, plus
    `density_pixels`.
    """
    images, more = (cut_into_tiles(part, tiles.pixels) for part in (pixels, density_pixels))
    start = 0
    for entries in _entries(tiles):
        image = amplitudes[entries.gaussian, None, None] * images[entries.tile] + more[entries.tile]
        for m, (values, y, x) in enumerate(entries.components()):
            pull = image * values
            parts = [pull, pull * y, pull * x, pull * y * y, pull * y * x, pull * x * x]
            out[start : start + len(pull), m] = torch.stack([part.sum((1, 2)) for part in parts], 1)
        start += len(entries.tile)
