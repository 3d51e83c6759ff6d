"""Multi-resolution grid of learned features (Müller et al., ACM TOG 2022), in plain PyTorch.

A level whose nodes fit into the table is stored densely and interpolated by `grid_sample`, the fastest interpolation
that PyTorch has on a CPU; a larger one shares its table entries by spatial hashing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_PRIMES = (1, 2654435761, 805459861)
_INITIAL = 1e-4


class DenseLevel(nn.Module):
    """Features at every node of a regular grid, interpolated trilinearly."""

    def __init__(self, shape: Sequence[int], n_features: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.empty(1, n_features, *shape).uniform_(-_INITIAL, _INITIAL))

    def forward(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "f n"]:
        """Features at places between -1 and 1, last axis first."""
        found = functional.grid_sample(self.values, places[None, :, None, None], align_corners=True)
        return found[0, :, :, 0, 0]


class HashedLevel(nn.Module):
    """Features in a table smaller than the grid: nodes share entries."""

    def __init__(self, shape: Sequence[int], table_size: int, n_features: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(table_size, n_features).uniform_(-_INITIAL, _INITIAL))
        self._half = [(count - 1) / 2 for count in shape]

    def forward(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "f n"]:
        """Features at places between -1 and 1, last axis first."""
        weights, keys = [], []
        for axis in range(3):
            scaled = (places[:, 2 - axis] + 1) * self._half[axis]
            base = scaled.detach().floor()
            part, node = scaled - base, base.long()
            # the two nodes around a place: their weight and their share of the hash
            weights.append(torch.stack([1 - part, part], dim=1))
            keys.append(torch.stack([node, node + 1], dim=1) * _PRIMES[axis])
        weight = weights[0][:, :, None, None] * weights[1][:, None, :, None] * weights[2][:, None, None, :]
        key = keys[0][:, :, None, None] ^ keys[1][:, None, :, None] ^ keys[2][:, None, None, :]
        corners = functional.embedding(key.reshape(len(places), 8) % len(self.table), self.table)
        return torch.einsum("nk,nkf->fn", weight.reshape(-1, 8), corners)


class HashGrid(nn.Module):
    """Features of all levels side by side, coarse ones first.

    Parameters
    ----------
    low, high
        Corners of the box that holds all points (mm).
    spacings
        Node spacing of each level (mm); made a little smaller so that whole numbers of them fit into the box.
    table_size
        Most nodes of a level.
    n_features
        Features a node holds.
    """

    middle: Tensor
    half_extent: Tensor

    def __init__(
        self, low: np.ndarray, high: np.ndarray, spacings: Sequence[float], table_size: int, n_features: int
    ) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        for spacing in spacings:
            shape = [int(np.ceil(length / spacing)) + 1 for length in high - low]
            if int(np.prod(shape)) <= table_size:
                levels.append(DenseLevel(shape, n_features))
            else:
                levels.append(HashedLevel(shape, table_size, n_features))
        self.levels = nn.ModuleList(levels)
        self.register_buffer("middle", torch.tensor((low + high) / 2, dtype=torch.float32))
        self.register_buffer("half_extent", torch.tensor((high - low) / 2, dtype=torch.float32))
        self.n_features = n_features
        self.open_levels = float(len(levels))

    @property
    def width(self) -> int:
        """Features of a point."""
        return len(self.levels) * self.n_features

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "width n"]:
        """Features at points (mm); levels beyond `open_levels` are zero, the one at its edge is faded in.

        Points come last, as `grid_sample` leaves them: to turn each level round would cost as much as to look it up.
        """
        places = ((points - self.middle) / self.half_extent).flip(1)
        parts = []
        for number, level in enumerate(self.levels):
            share = min(max(self.open_levels - number, 0.0), 1.0)
            if share == 0:
                parts.append(points.new_zeros(self.n_features, len(points)))
            else:
                parts.append(level(places) if share == 1 else share * level(places))
        return torch.cat(parts)
