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

    def __init__(self, low: Tensor, shape: Sequence[int], spacing: float, n_features: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.empty(1, n_features, *shape).uniform_(-_INITIAL, _INITIAL))
        self.register_buffer("low", low)
        self.register_buffer("extent", torch.tensor([(n - 1) * spacing for n in shape]))

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n f"]:
        """Features at points (mm)."""
        unit = (points - self.low) / self.extent * 2 - 1
        # grid_sample wants (last axis, ..., first axis)
        found = functional.grid_sample(self.values, unit.flip(1)[None, :, None, None], align_corners=True)
        return found[0, :, :, 0, 0].T


class HashedLevel(nn.Module):
    """Features in a table smaller than the grid: nodes share entries."""

    def __init__(self, low: Tensor, table_size: int, spacing: float, n_features: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(table_size, n_features).uniform_(-_INITIAL, _INITIAL))
        self.register_buffer("low", low)
        self.spacing = spacing

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n f"]:
        """Features at points (mm)."""
        scaled = (points - self.low) / self.spacing
        base = scaled.detach().floor()
        part = scaled - base
        node = base.long()
        # for each axis the two nodes around a point: their weight and their share of the hash
        weights = [torch.stack([1 - part[:, axis], part[:, axis]], dim=1) for axis in range(3)]
        keys = [torch.stack([node[:, axis], node[:, axis] + 1], dim=1) * _PRIMES[axis] for axis in range(3)]
        weight = weights[0][:, :, None, None] * weights[1][:, None, :, None] * weights[2][:, None, None, :]
        key = keys[0][:, :, None, None] ^ keys[1][:, None, :, None] ^ keys[2][:, None, None, :]
        corners = functional.embedding(key.reshape(len(points), 8) % len(self.table), self.table)
        return torch.einsum("nk,nkf->nf", weight.reshape(-1, 8), corners)


class HashGrid(nn.Module):
    """Features of all levels side by side, coarse ones first.

    Parameters
    ----------
    low, high
        Corners of the box that holds all points (mm).
    spacings
        Node spacing of each level (mm).
    table_size
        Most nodes of a level.
    n_features
        Features a node holds.
    """

    def __init__(
        self, low: np.ndarray, high: np.ndarray, spacings: Sequence[float], table_size: int, n_features: int
    ) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        origin = torch.tensor(low, dtype=torch.float32)
        for spacing in spacings:
            shape = [int(np.ceil(length / spacing)) + 1 for length in high - low]
            if int(np.prod(shape)) <= table_size:
                levels.append(DenseLevel(origin, shape, spacing, n_features))
            else:
                levels.append(HashedLevel(origin, table_size, spacing, n_features))
        self.levels = nn.ModuleList(levels)
        self.n_features = n_features
        self.open_levels = float(len(levels))

    @property
    def width(self) -> int:
        """Features of a point."""
        return len(self.levels) * self.n_features

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Features at points (mm); levels beyond `open_levels` are zero, the one at its edge is faded in."""
        parts = []
        for number, level in enumerate(self.levels):
            share = min(max(self.open_levels - number, 0.0), 1.0)
            if share > 0:
                parts.append(share * level(points))
            else:
                parts.append(points.new_zeros(len(points), self.n_features))
        return torch.cat(parts, dim=1)
