"""Multi-resolution grid of learned features (Müller et al., ACM TOG 2022), in plain PyTorch.

At the resolutions of slices all nodes fit into memory, so there is no hashing: `grid_sample` is the fastest
interpolation that PyTorch has on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_INITIAL = 1e-4


class Level(nn.Module):
    """Features at every node of a regular grid, interpolated trilinearly."""

    def __init__(self, shape: Sequence[int], n_features: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.empty(1, n_features, *shape).uniform_(-_INITIAL, _INITIAL))

    def forward(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "f n"]:
        """Features at places between -1 and 1, last axis first."""
        found = functional.grid_sample(self.values, places[None, :, None, None], align_corners=True)
        return found[0, :, :, 0, 0]


class FeatureGrid(nn.Module):
    """Features of all levels side by side, coarse ones first.

    Parameters
    ----------
    low, high
        Corners of the box that holds all points (mm).
    spacings
        Node spacing of each level (mm); made a little smaller so that whole numbers of them fit into the box.
    n_features
        Features a node holds.
    """

    middle: Tensor
    half_extent: Tensor

    def __init__(self, low: np.ndarray, high: np.ndarray, spacings: Sequence[float], n_features: int) -> None:
        super().__init__()
        shapes = [[int(np.ceil(length / spacing)) + 1 for length in high - low] for spacing in spacings]
        levels = [Level(shape, n_features) for shape in shapes]
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
