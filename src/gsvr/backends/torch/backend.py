"""Any device of PyTorch: tensors, and kernels by Triton on Nvidia's cards or in plain PyTorch elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.backends.devices import choose_device
from gsvr.backends.planes import ParallelPlanes
from gsvr.backends.protocol import Backend, GaussianKernel, Kernel, LatticeBonds, NeighbourLinks, Pixels
from gsvr.backends.torch import plain_bonds, plain_gaussians, plain_lattice
from gsvr.backends.torch.bonds import TorchBonds
from gsvr.backends.torch.gaussians import TorchGaussianKernel
from gsvr.backends.torch.lattice import TorchLatticeKernel
from gsvr.backends.torch.links import NeighbourColumns, TorchLinks
from gsvr.backends.torch.pixels import TorchPixels
from gsvr.backends.torch.rendering import render_lattice, render_planes
from gsvr.backends.torch.splats import gaussians_on
from gsvr.backends.torch.tensors import moved
from gsvr.backends.views import SliceViews
from gsvr.backends.windows import SliceWindows
from gsvr.model.fields import GaussianField, Lattice, LatticeField
from gsvr.model.neighbours import Neighbours
from gsvr.model.slices import Slices


class TorchBackend:
    """See `gsvr.backends.protocol.Backend`.

    Parameters
    ----------
    name
        ``"cuda"`` (the first card), ``"cuda:1"``, ...: Triton kernels on that card. ``"mps"``: plain PyTorch on an
        Apple GPU. ``"torch"``: plain PyTorch on the CPU.
    triton
        Whether the kernels are Triton's. Default: on Nvidia's cards. On the CPU they need Triton's interpreter.

    Raises
    ------
    InputError
        If the device cannot be used.
    """

    def __init__(self, name: str, triton: bool | None = None) -> None:
        self.name = choose_device(name).backend
        self.device = torch.device("cpu" if self.name == "torch" else self.name)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # Triton launches on the current one
        self._lattice_kernels, self._gaussian_kernels, self._bond_kernels = plain_lattice, plain_gaussians, plain_bonds
        if self.device.type == "cuda" if triton is None else triton:
            from gsvr.backends.triton import bonds, gaussians, lattice

            self._lattice_kernels, self._gaussian_kernels, self._bond_kernels = lattice, gaussians, bonds
        self._last_columns: tuple[Neighbours, NeighbourColumns] | None = None

    def array(self, values: np.ndarray) -> Float32[Tensor, "*n"]:
        """A copy on the device."""
        return moved(values, torch.float32, self.device)

    def host(self, values: Tensor) -> np.ndarray:
        """The tensor as an array; on the CPU both share their memory."""
        return values.detach().cpu().numpy()

    def pixels(self, slices: Slices) -> Pixels:
        return TorchPixels(slices, self.device)

    def lattice_kernel(self, lattice: Lattice, windows: SliceWindows) -> Kernel:
        return TorchLatticeKernel(lattice, windows, self.device, self._lattice_kernels)

    def gaussian_kernel(self, field: GaussianField, views: SliceViews) -> GaussianKernel:
        return TorchGaussianKernel(gaussians_on(self.device, field), views, self._gaussian_kernels)

    def lattice_bonds(self, lattice: Lattice, amplitudes: Float32[Tensor, "nx ny nz"], edge: float) -> LatticeBonds:
        return TorchBonds.between(lattice, amplitudes, edge, self._bond_kernels)

    def neighbour_links(
        self, neighbours: Neighbours, amplitudes: Float32[Tensor, " n"], scale: float
    ) -> NeighbourLinks:
        return TorchLinks.between(self._columns_of(neighbours), amplitudes, scale)

    def normalised_laplacian(self, neighbours: Neighbours) -> NeighbourLinks:
        return TorchLinks.normalised(self._columns_of(neighbours))

    def _columns_of(self, neighbours: Neighbours) -> NeighbourColumns:
        """Those of the last neighbours are kept: links are weighed in every round."""
        last = self._last_columns
        if last is None or last[0] is not neighbours:
            last = self._last_columns = neighbours, NeighbourColumns.of(neighbours, self.device)
        return last[1]

    def step(
        self,
        size: float,
        direction: Float32[Tensor, "*sites"],
        curved: Float32[Tensor, "*sites"],
        amplitudes: Float32[Tensor, "*sites"],
        gradient: Float32[Tensor, "*sites"],
    ) -> None:
        amplitudes.add_(direction, alpha=float(size))
        gradient.sub_(curved, alpha=float(size))

    def sample_planes(
        self, field: GaussianField, planes: ParallelPlanes, cutoff: float
    ) -> Float32[np.ndarray, "planes rows columns"]:
        return render_planes(field, planes, cutoff, self.device, self._gaussian_kernels)

    def sample_lattice(
        self, field: LatticeField, axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> Float32[np.ndarray, "nx ny nz"]:
        return render_lattice(field, axes, self.device)


_: type[Backend] = TorchBackend  # the type checker compares it with the protocol
