"""The acquisition of free Gaussians on tensors: by Triton kernels, or by their plain PyTorch twins."""

from __future__ import annotations

import logging
from functools import cached_property
from types import ModuleType

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.backends.protocol import GeometryGradient
from gsvr.backends.torch import plain_gaussians
from gsvr.backends.torch.fixed_order import add_rows, from_whole_numbers, whole_number_scale
from gsvr.backends.torch.gaussian_tiles import GaussianTiles, gaussian_tiles
from gsvr.backends.torch.geometry_gradient import geometry_gradient
from gsvr.backends.torch.splats import Gaussians, find_splats, slopes, views_on
from gsvr.backends.torch.tiles import TILE
from gsvr.backends.views import SliceViews

logger = logging.getLogger(__name__)


class TorchGaussianKernel:
    """See `gsvr.backends.protocol.GaussianKernel`: free Gaussians and one set of poses (float32).

    Parameters
    ----------
    gaussians
        The Gaussians, on a device: all tensors are there.
    kernels
        `gsvr.backends.torch.plain_gaussians` or `gsvr.backends.triton.gaussians`. For nearest neighbours
        (`SliceViews.squared_radii`) always the former, which is logged.
    """

    def __init__(self, gaussians: Gaussians, views: SliceViews, kernels: ModuleType) -> None:
        self._device = gaussians.means.device
        self._nearest = views.squared_radii is not None
        if self._nearest and kernels is not plain_gaussians:
            logger.info("nearest neighbours: plain PyTorch on %s, since the Triton kernels know none", self._device)
            kernels = plain_gaussians
        self._kernels, self._gaussians, self._views = kernels, gaussians, views_on(self._device, views)
        self._n_pixels = int(views.first_pixel[-1])
        self._splats = find_splats(gaussians, self._views)
        self.tiles: GaussianTiles = gaussian_tiles(self._splats, views)

    @property
    def n_splats(self) -> int:
        """Pairs of a Gaussian and a slice that touch."""
        return len(self._splats.slices)

    @cached_property
    def _slopes(self) -> Float32[Tensor, "n m 6"]:
        return slopes(self._gaussians, self._views, self._splats)

    def predict(self, amplitudes: Float32[Tensor, " n"]) -> Float32[Tensor, " p"]:
        out = torch.zeros(self._n_pixels, device=self._device)
        self._kernels.predict(self.tiles, amplitudes, out)
        return out

    def derivatives(self, amplitudes: Float32[Tensor, " n"]) -> Float32[Tensor, "7 p"]:
        if self._nearest:
            raise ValueError("derivative planes are not made for nearest neighbours: use `gradient`")
        out = torch.zeros((7, self._n_pixels), device=self._device)
        self._kernels.differentiate(self.tiles, self._slopes, amplitudes, out)
        return out

    def adjoint(self, pixels: Float32[Tensor, " p"]) -> Float32[Tensor, " n"]:
        return self._adjoint(pixels, 1)

    def squared_adjoint(self, pixels: Float32[Tensor, " p"]) -> Float32[Tensor, " n"]:
        return self._adjoint(pixels, 2)

    def gradient(
        self,
        amplitudes: Float32[Tensor, " n"],
        pixels: Float32[Tensor, " p"],
        density_pixels: Float32[Tensor, " p"] | None = None,
    ) -> GeometryGradient:
        more = torch.zeros_like(pixels) if density_pixels is None else density_pixels
        of_splat = self.tiles.forms.shape[1:]
        entries = torch.empty((len(self.tiles.splats), *of_splat), device=self._device)
        self._kernels.moments(self.tiles, amplitudes, pixels, more, entries)
        moments = torch.zeros((self.n_splats, *of_splat), device=self._device)
        add_rows(moments, self.tiles.splats, entries)
        parts = geometry_gradient(self._gaussians, self._views, self._splats, moments)
        means, covariances, poses = (part.cpu().double().numpy() for part in parts)
        return GeometryGradient(means, covariances, poses)

    def _adjoint(self, pixels: Tensor, power: int) -> Tensor:
        # no pixel sees more than the whole of a Gaussian, and none receives from more pixels than there are in tiles
        scale = whole_number_scale(pixels.abs().max() * (TILE**2 * self.tiles.n_tiles))
        total = torch.zeros(len(self._gaussians.means), dtype=torch.int64, device=self._device)
        self._kernels.adjoint(self.tiles, pixels, power, scale, total)
        return from_whole_numbers(total, scale)
