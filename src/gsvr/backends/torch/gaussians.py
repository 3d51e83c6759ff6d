"""The operator of free Gaussians on tensors of a device: by Triton kernels, or by their plain PyTorch twins."""

from __future__ import annotations

import logging
from copy import copy
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from gsvr.backends import GeometryGradient
from gsvr.backends.torch import plain_gaussians
from gsvr.backends.torch.fixed_order import add_rows
from gsvr.backends.torch.gaussian_tiles import GaussianTiles, gaussian_tiles
from gsvr.backends.torch.geometry_gradient import geometry_gradient
from gsvr.backends.torch.host_kernel import HostKernel
from gsvr.backends.torch.lattice import whole_number_scale
from gsvr.backends.torch.lattice_tiles import TILE, exact_type
from gsvr.backends.torch.splats import Geometry, geometry_of
from gsvr.backends.views import SliceViews
from gsvr.model.fields import GaussianField

logger = logging.getLogger(__name__)


def triton_gaussian_kernels() -> ModuleType:
    """The module of Triton kernels, which needs Triton."""
    from gsvr.backends.triton import gaussians as triton_gaussians

    return triton_gaussians


class DeviceGaussianKernel:
    """Prediction, derivatives and adjoint for free Gaussians and one set of poses, tensors in and out (float32).

    Parameters
    ----------
    device
        Where the tensors are.
    kernels
        `triton_gaussian_kernels` or `plain_gaussians`; default: Triton on CUDA devices, plain PyTorch elsewhere. For
        nearest neighbours (`SliceViews.squared_radii`) always plain PyTorch, which is logged.
    deterministic
        Whether equal input gives equal bits (on one card), see `gsvr.backends.torch.lattice`.
    needed
        Pixels that are asked for; others may be predicted as zero and count as zero in the adjoint. Default: all.

    Raises
    ------
    ValueError
        If these views are for the CPU's kernels only, see `gsvr.backends.torch.splats.geometry_of`.
    """

    def __init__(
        self,
        field: GaussianField,
        views: SliceViews,
        device: torch.device,
        kernels: ModuleType | None = None,
        deterministic: bool = False,
        needed: Bool[np.ndarray, " p"] | None = None,
    ) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # Triton launches on the current one
        self.device = device
        self._nearest = views.squared_radii is not None
        if self._nearest:
            logger.info("nearest neighbours: plain PyTorch on %s, the only kernels there that know them", device)
            kernels = plain_gaussians
        self.kernels = kernels or (triton_gaussian_kernels() if device.type == "cuda" else plain_gaussians)
        self.deterministic = deterministic
        self.views, self._needed = views, needed
        self._centres = torch.as_tensor(views.centres).to(exact_type(device)).to(device)
        self.n_pixels = int(views.first_pixel[-1])
        self._place(geometry_of(field, views, device))

    def _place(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self.lists: GaussianTiles = gaussian_tiles(geometry, self.views, self._needed)
        self.n_gaussians = len(geometry.means)
        # no Gaussian receives from more pixels than there are in tiles
        self._most_pixels = TILE**2 * max(self.lists.n_tiles, 1)

    def with_gaussians(
        self, means: Float[Tensor, "k 3"], log_scales: Float[Tensor, "k 3"], quaternions: Float[Tensor, "k 4"]
    ) -> DeviceGaussianKernel:
        """The same kernel for other Gaussians (see `gsvr.model.fields.GaussianField`), which are on the device.

        Asks the device for lengths of lists.
        """
        other = copy(self)
        other._place(self._geometry.with_gaussians(means, log_scales, quaternions, self.views.cutoff))
        return other

    def predict(self, amplitudes: Float32[Tensor, " n"]) -> Float32[Tensor, " p"]:
        """Pixels A c."""
        out = torch.zeros(self.n_pixels, device=self.device)
        self.kernels.predict(self.lists, amplitudes, out)
        return out

    def derivatives(self, amplitudes: Float32[Tensor, " n"]) -> Float32[Tensor, "7 p"]:
        """Pixels, derivative by d = pixel - Gaussian (3), and torques (3), in the slice frame.

        Raises
        ------
        ValueError
            For nearest neighbours, as on the CPU.
        """
        if self._nearest:
            raise ValueError("derivative planes are not made for nearest neighbours: use `gradient`")
        out = torch.zeros((7, self.n_pixels), device=self.device)
        self.kernels.differentiate(self.lists, amplitudes, out)
        return out

    def adjoint(
        self, pixels: Float32[Tensor, " p"], weights: Float32[Tensor, " p"] | None = None
    ) -> Float32[Tensor, " n"]:
        """A^T (weights r)."""
        return self._adjoint(pixels, weights, 1)

    def squared_adjoint(self, pixels: Float32[Tensor, " p"]) -> Float32[Tensor, " n"]:
        """(A * A)^T r: with pixel weights for r, the diagonal of A^T W A."""
        return self._adjoint(pixels, None, 2)

    def normal(
        self, amplitudes: Float32[Tensor, " n"], weights: Float32[Tensor, " p"], along: Float32[Tensor, " p"]
    ) -> Float32[Tensor, " n"]:
        """A^T W A c; A c is written into `along`."""
        self.kernels.predict(self.lists, amplitudes, along)
        return self.adjoint(along, weights)

    def gradient(
        self,
        amplitudes: Float32[Tensor, " n"],
        pixels: Float32[Tensor, " p"],
        density_pixels: Float32[Tensor, " p"] | None = None,
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3 3"], Float[Tensor, "slices 6"]]:
        """Gradients of <r, A c>, plus <t, A 1> if `density_pixels` t are given, by means, covariances and poses.

        See `gsvr.backends.GeometryGradient`.
        """
        lists, more = self.lists, torch.zeros_like(pixels) if density_pixels is None else density_pixels
        entries = torch.empty((len(lists.splats), 9), device=self.device)
        self.kernels.moments(lists, amplitudes, pixels, more, entries)
        moments = torch.zeros((len(lists.gaussians), 9), device=self.device)
        add_rows(moments, lists.splats, entries, self.deterministic)
        return geometry_gradient(lists, self._geometry, self._centres, moments, self.deterministic)

    def _adjoint(self, pixels: Tensor, weights: Tensor | None, power: int) -> Tensor:
        if not self.deterministic:
            out = torch.zeros(self.n_gaussians, device=self.device)
            self.kernels.adjoint(self.lists, pixels, weights, out, power)
            return out
        # no pixel sees more than the whole of a Gaussian
        largest = (pixels if weights is None else weights * pixels).abs().max() * self._most_pixels
        scale = whole_number_scale(largest)
        total = torch.zeros(self.n_gaussians, dtype=torch.int64, device=self.device)
        self.kernels.adjoint(self.lists, pixels, weights, total, power, scale)
        return (total.to(exact_type(self.device)) / scale).to(torch.float32)


class HostGaussianKernel(HostKernel[DeviceGaussianKernel]):
    """`DeviceGaussianKernel`, deterministic, with arrays: a backend of `gsvr.operators.acquisition.AcquisitionOperator`."""

    def __init__(self, field: GaussianField, views: SliceViews, name: str) -> None:
        super().__init__(name, lambda: DeviceGaussianKernel(field, views, torch.device(name), deterministic=True))

    def gradient(
        self,
        amplitudes: Float32[np.ndarray, " n"],
        pixels: Float32[np.ndarray, " p"],
        density_pixels: Float32[np.ndarray, " p"] | None = None,
    ) -> GeometryGradient:
        """Gradient of <r, A c> by geometry and poses, and of <t, A 1> on top if `density_pixels` t are given."""
        more = None if density_pixels is None else self.tensor(density_pixels)
        parts = self.kernel.gradient(self.tensor(amplitudes), self.tensor(pixels), more)
        means, covariances, poses = (part.cpu().double().numpy() for part in parts)
        return GeometryGradient(means, covariances, poses)
