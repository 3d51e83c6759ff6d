"""The acquisition of a lattice on tensors: by Triton kernels, or by their plain PyTorch twins."""

from __future__ import annotations

from types import ModuleType

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.backends.torch.fixed_order import from_whole_numbers, whole_number_scale
from gsvr.backends.torch.lattice_tiles import LatticeTiles, lattice_tiles
from gsvr.backends.torch.tensors import moved
from gsvr.backends.torch.tiles import TILE
from gsvr.backends.windows import SliceWindows
from gsvr.model.fields import Lattice


class TorchLatticeKernel:
    """See `gsvr.backends.protocol.Kernel`: one lattice and one set of poses (float32).

    Parameters
    ----------
    device
        Where the tensors are.
    kernels
        `gsvr.backends.torch.plain_lattice` or `gsvr.backends.triton.lattice`.
    """

    def __init__(self, lattice: Lattice, windows: SliceWindows, device: torch.device, kernels: ModuleType) -> None:
        self._kernels, self._device = kernels, device
        self._support = moved(lattice.support, torch.bool, device)
        self._n_pixels = int(windows.first_pixel[-1])
        self._peak = float(windows.peaks.sum(axis=1).max())
        self.tiles: LatticeTiles = lattice_tiles(lattice, windows, device)
        kernels.fill(self.tiles)

    def predict(self, amplitudes: Float32[Tensor, "nx ny nz"]) -> Float32[Tensor, " p"]:
        out = torch.zeros(self._n_pixels, device=self._device)
        self._kernels.predict(self.tiles, amplitudes, out)
        return out

    def derivatives(self, amplitudes: Float32[Tensor, "nx ny nz"]) -> Float32[Tensor, "7 p"]:
        out = torch.zeros((7, self._n_pixels), device=self._device)
        self._kernels.differentiate(self.tiles, amplitudes, out)
        return out

    def adjoint(self, pixels: Float32[Tensor, " p"]) -> Float32[Tensor, "nx ny nz"]:
        """A^T r on the lattice's support."""
        return self._adjoint(pixels, 1)

    def squared_adjoint(self, pixels: Float32[Tensor, " p"]) -> Float32[Tensor, "nx ny nz"]:
        return self._adjoint(pixels, 2)

    def _adjoint(self, pixels: Tensor, power: int) -> Tensor:
        # no pixel sees a larger share of a Gaussian, and no site receives from more pixels than there are in tiles
        scale = whole_number_scale(pixels.abs().max() * (self._peak**power * TILE**2 * self.tiles.n_tiles))
        total = torch.zeros(self._support.shape, dtype=torch.int64, device=self._device)
        self._kernels.adjoint(self.tiles, pixels, power, scale, total)
        return from_whole_numbers(total, scale) * self._support
