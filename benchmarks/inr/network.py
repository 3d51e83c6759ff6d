"""The network that holds the volume: position (mm) -> intensity, and features for the variance."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.inr.encoding import FeatureGrid
from benchmarks.inr.options import InrOptions

N_HIDDEN_FEATURES = 15


class GridNetwork(nn.Module):
    """A grid of features and a head of one hidden layer; the intensity is positive (softplus)."""

    def __init__(self, low: np.ndarray, high: np.ndarray, options: InrOptions) -> None:
        super().__init__()
        spacings = np.geomspace(options.coarsest, options.finest, options.n_levels)
        self.grid = FeatureGrid(low, high, [float(s) for s in spacings], options.n_features)
        self.first = nn.Linear(self.grid.width, options.hidden)
        self.last = nn.Linear(options.hidden, 1 + N_HIDDEN_FEATURES)

    def forward(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 15"]]:
        """Intensity and features at points (mm)."""
        hidden = torch.relu_(torch.addmm(self.first.bias[:, None], self.first.weight, self.grid(points)))
        out = torch.addmm(self.last.bias[:, None], self.last.weight, hidden)
        return functional.softplus(out[0]), out[1:].T

    def open(self, share: float) -> None:
        """Let so many of the levels take part, coarse ones first; at least three do."""
        levels = len(self.grid.levels)
        self.grid.open_levels = 3 + (levels - 3) * min(share, 1.0)
