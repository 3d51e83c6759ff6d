"""The lattice operator on tensors of a device: by Triton kernels, or by their plain PyTorch twins.

In the default mode sites add up what they receive by atomic additions, whose order differs from run to run; with
`deterministic` the same sums are made of whole numbers, whose order does not matter: every part is scaled by a power
of two that is chosen so that no sum can overflow 63 bits, and cut to a whole number. What is cut is 2^-40 of the
largest part or less, so this mode is at least as exact as the other.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from gsvr.backends.torch import plain_lattice as plain_tiles
from gsvr.backends.torch.host_kernel import HostKernel
from gsvr.backends.torch.lattice_tiles import TILE, TileLists, tile_lists
from gsvr.backends.windows import SliceWindows
from gsvr.model.fields import Lattice


def triton_kernels() -> ModuleType:
    """The module of Triton kernels, which needs Triton."""
    from gsvr.backends.triton import lattice as triton_launch

    return triton_launch


def whole_number_scale(largest: Float[Tensor, ""]) -> Float32[Tensor, ""]:
    """The largest power of two that leaves 63 bits room for a sum of this size, and a finite one for no sum at all."""
    return torch.exp2(torch.floor(62 - torch.log2(largest)).clamp(max=120)).to(torch.float32)


class TiledKernel:
    """Prediction, derivatives and adjoint for one lattice, with tensors in and out (float32).

    Parameters
    ----------
    device
        Where the tensors are.
    kernels
        `triton_kernels` or `plain_tiles`; default: Triton on CUDA devices, plain PyTorch elsewhere.
    deterministic
        Whether equal input gives equal bits (on one card).
    needed
        Pixels that are asked for; others may be predicted as zero and count as zero in the adjoint. Default: all.
    """

    def __init__(
        self,
        lattice: Lattice,
        windows: SliceWindows,
        device: torch.device,
        kernels: ModuleType | None = None,
        deterministic: bool = False,
        needed: Bool[np.ndarray, " p"] | None = None,
    ) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # Triton launches on the current one
        self.lattice = lattice
        self.device = device
        self.kernels = kernels or (triton_kernels() if device.type == "cuda" else plain_tiles)
        self.deterministic = deterministic
        self.lists: TileLists = tile_lists(lattice, windows, device, needed)
        self.n_pixels = int(windows.first_pixel[-1])
        self.support = torch.as_tensor(lattice.support).to(device)
        # no pixel sees a larger share of a Gaussian, and no site receives from more pixels than there are in tiles
        self._peak = float(windows.peaks.sum(axis=1).max())
        self._most_pixels = TILE**2 * max(self.lists.n_tiles, 1)
        self.move(torch.as_tensor(windows.from_lattice).to(self.lists.corners.dtype).to(device))

    def move(self, from_lattice: Float[Tensor, "n 3 4"]) -> None:
        """Go to other poses, given by `SliceWindows.from_lattice`; nothing waits for the device."""
        self.lists.place(from_lattice)
        self.kernels.fill(self.lists)

    def predict(self, amplitudes: Float32[Tensor, "nx ny nz"]) -> Float32[Tensor, " p"]:
        """Pixels A c."""
        out = torch.zeros(self.n_pixels, device=self.device)
        self.kernels.predict(self.lists, amplitudes, out)
        return out

    def derivatives(self, amplitudes: Float32[Tensor, "nx ny nz"]) -> Float32[Tensor, "7 p"]:
        """Pixels, derivative by d = pixel - Gaussian (3), and d x derivative (3), in the slice frame."""
        out = torch.zeros((7, self.n_pixels), device=self.device)
        self.kernels.differentiate(self.lists, amplitudes, out)
        return out

    def adjoint(
        self, pixels: Float32[Tensor, " p"], weights: Float32[Tensor, " p"] | None = None
    ) -> Float32[Tensor, "nx ny nz"]:
        """A^T (weights r) on the lattice's support."""
        return self._adjoint(pixels, weights, 1)

    def squared_adjoint(self, pixels: Float32[Tensor, " p"]) -> Float32[Tensor, "nx ny nz"]:
        """(A * A)^T r: with pixel weights for r, the diagonal of A^T W A."""
        return self._adjoint(pixels, None, 2)

    def normal(
        self, amplitudes: Float32[Tensor, "nx ny nz"], weights: Float32[Tensor, " p"], along: Float32[Tensor, " p"]
    ) -> Float32[Tensor, "nx ny nz"]:
        """A^T W A c; A c is written into `along`.

        Sites without a Gaussian may get a value, too: whoever iterates has a preconditioner that is zero there.
        """
        if self.deterministic:
            self.kernels.predict(self.lists, amplitudes, along)
            return self.adjoint(along, weights)
        out = torch.zeros(self.lattice.shape, device=self.device)
        self.kernels.normal(self.lists, amplitudes, weights, along, out)
        return out

    def _adjoint(self, pixels: Tensor, weights: Tensor | None, power: int) -> Tensor:
        if not self.deterministic:
            out = torch.zeros(self.lattice.shape, device=self.device)
            self.kernels.adjoint(self.lists, pixels, weights, out, power)
            return out.mul_(self.support)
        largest = (pixels if weights is None else weights * pixels).abs().max() * (
            self._peak**power * self._most_pixels
        )
        scale = whole_number_scale(largest)
        total = torch.zeros(self.lattice.shape, dtype=torch.int64, device=self.device)
        self.kernels.adjoint(self.lists, pixels, weights, total, power, scale)
        return (total.to(self.lists.corners.dtype) / scale).to(torch.float32).mul_(self.support)


class HostTiledKernel(HostKernel[TiledKernel]):
    """A `TiledKernel` with arrays in and out: a backend of `gsvr.operators.acquisition.AcquisitionOperator`.

    It is deterministic, always: masks and searches depend on it, and these are few applications.
    """

    def __init__(self, lattice: Lattice, windows: SliceWindows, name: str) -> None:
        super().__init__(name, lambda: TiledKernel(lattice, windows, torch.device(name), deterministic=True))
