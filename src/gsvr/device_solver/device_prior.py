"""The edge-preserving prior of `gsvr.solver.priors.lattice` on a device."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.backends.torch import plain_bonds as plain_prior
from gsvr.model.fields import Lattice
from gsvr.solver.priors.lattice import DIRECTIONS


class DevicePrior:
    """The quadratic that touches the energy at the amplitudes given last to `reweight`: 1/2 c^T L c.

    Parameters
    ----------
    edge
        Difference (intensity) above which neighbours count as lying across an edge.
    kernels
        `gsvr.backends.triton.bonds` or its twin; default: Triton on CUDA devices.
    """

    def __init__(self, lattice: Lattice, edge: float, device: torch.device, kernels: ModuleType | None = None) -> None:
        _, ny, nz = lattice.shape
        self.edge = edge
        self.kernels = kernels or _kernels_of(device)
        lengths = (DIRECTIONS**2).sum(axis=1)
        factors = 1 / (edge**2 * lengths * ((1 / lengths).sum() / 3))
        self._offsets = torch.as_tensor(DIRECTIONS @ np.array([ny * nz, nz, 1]), dtype=torch.int32).to(device)
        self._factors = torch.as_tensor(factors, dtype=torch.float32).to(device)
        self._present = torch.as_tensor(_present(lattice.support).ravel()).to(device)
        self._bonds = torch.zeros((len(DIRECTIONS), lattice.support.size), device=device)

    def reweight(self, amplitudes: Float32[Tensor, "nx ny nz"]) -> None:
        """Touch the energy at other amplitudes."""
        flat = amplitudes.reshape(-1)
        self.kernels.fill_bonds(self._present, self._offsets, self._factors, flat, self.edge, self._bonds)

    def add(
        self, values: Float32[Tensor, "nx ny nz"], strength: Float32[Tensor, ""], out: Float32[Tensor, "nx ny nz"]
    ) -> None:
        """Add strength L values to `out`."""
        self.kernels.apply(self._bonds, self._offsets, values.reshape(-1), strength, out.view(-1))

    def add_diagonal(self, strength: Float32[Tensor, ""], out: Float32[Tensor, "nx ny nz"]) -> None:
        """Add the diagonal of strength L to `out`."""
        self.kernels.add_diagonal(self._bonds, self._offsets, strength, out.view(-1))


def _kernels_of(device: torch.device) -> ModuleType:
    if device.type != "cuda":
        return plain_prior
    from gsvr.backends.triton import bonds as triton_prior

    return triton_prior


def _present(support: np.ndarray) -> np.ndarray:
    """For every site the directions, as bits, in which the next site carries a Gaussian as well as itself."""
    present = np.zeros(support.shape, np.int32)
    for n, direction in enumerate(DIRECTIONS):
        here = tuple(slice(max(0, -d), size - max(0, d)) for d, size in zip(direction, support.shape, strict=True))
        there = tuple(slice(max(0, d), size + min(0, d)) for d, size in zip(direction, support.shape, strict=True))
        present[here] |= (support[here] & support[there]).astype(np.int32) << n
    return present
