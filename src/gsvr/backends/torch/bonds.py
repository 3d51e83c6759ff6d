"""Bonds between neighbouring sites of a lattice on tensors: by Triton kernels, or by their plain PyTorch twins."""

from __future__ import annotations

from functools import cached_property
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float32, Int, Int32
from torch import Tensor

from gsvr.backends.torch.tensors import moved
from gsvr.model.fields import DIRECTIONS, Lattice


class TorchBonds:
    """See `gsvr.backends.protocol.LatticeBonds`.

    Parameters
    ----------
    bonds
        Weight of each bond, at the site where it starts.
    offsets
        Flat distance to the neighbour in each direction.
    kernels
        `gsvr.backends.torch.plain_bonds` or `gsvr.backends.triton.bonds`.
    """

    def __init__(
        self, bonds: Float32[Tensor, "13 nx ny nz"], offsets: Int32[Tensor, " 13"], kernels: ModuleType
    ) -> None:
        self._bonds, self._offsets, self._kernels = bonds, offsets, kernels

    @staticmethod
    def between(
        lattice: Lattice, amplitudes: Float32[Tensor, "nx ny nz"], edge: float, kernels: ModuleType
    ) -> TorchBonds:
        """Bonds weighed at some amplitudes."""
        device = amplitudes.device
        _, ny, nz = lattice.shape
        offsets = moved(DIRECTIONS @ np.array([ny * nz, nz, 1]), torch.int32, device)
        lengths = (DIRECTIONS**2).sum(axis=1)
        # as strong in all as the three axes alone
        factors = moved(1 / (edge**2 * lengths * ((1 / lengths).sum() / 3)), torch.float32, device)
        present = moved(_present(lattice.support).ravel(), torch.int32, device)
        bonds = torch.zeros((len(DIRECTIONS), *lattice.shape), device=device)
        kernels.weigh(present, offsets, factors, amplitudes.reshape(-1), float(edge), bonds.view(len(DIRECTIONS), -1))
        return TorchBonds(bonds, offsets, kernels)

    def apply(
        self,
        values: Float32[Tensor, "nx ny nz"],
        factor: float = 1.0,
        start: Float32[Tensor, "nx ny nz"] | None = None,
    ) -> Float32[Tensor, "nx ny nz"]:
        flat = values.reshape(-1)
        out = torch.zeros_like(flat) if start is None else start.reshape(-1).clone()
        self._kernels.apply(self._flat, self._offsets, flat, float(factor), out)
        return out.view(values.shape)

    def diagonal(self) -> Float32[Tensor, "nx ny nz"]:
        return self._row_sums

    def weights(self) -> Float32[np.ndarray, "13 nx ny nz"]:
        return self._bonds.cpu().numpy()

    @property
    def _flat(self) -> Float32[Tensor, "13 s"]:
        return self._bonds.view(len(self._bonds), -1)

    @cached_property
    def _row_sums(self) -> Float32[Tensor, "nx ny nz"]:
        out = torch.zeros_like(self._bonds[0])
        self._kernels.row_sums(self._flat, self._offsets, out.view(-1))
        return out


def _present(support: np.ndarray) -> Int[np.ndarray, "nx ny nz"]:
    """For every site the directions, as bits, in which the next site carries a Gaussian as well as itself."""
    present = np.zeros(support.shape, np.int32)
    for n, direction in enumerate(DIRECTIONS):
        here = tuple(slice(max(0, -d), size - max(0, d)) for d, size in zip(direction, support.shape, strict=True))
        there = tuple(slice(max(0, d), size + min(0, d)) for d, size in zip(direction, support.shape, strict=True))
        present[here] |= (support[here] & support[there]).astype(np.int32) << n
    return present
