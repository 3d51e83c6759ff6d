"""Networks that hold the volume: position (mm) -> intensity, and features for the variance."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.inr.encoding import HashGrid
from benchmarks.inr.options import InrOptions

N_HIDDEN_FEATURES = 15


class GridNetwork(nn.Module):
    """Hash grid and a head of one hidden layer; the intensity is positive (softplus)."""

    def __init__(self, low: np.ndarray, high: np.ndarray, options: InrOptions) -> None:
        super().__init__()
        spacings = np.geomspace(options.coarsest, options.finest, options.n_levels)
        self.grid = HashGrid(low, high, [float(s) for s in spacings], options.table_size, options.n_features)
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


class SirenNetwork(nn.Module):
    """Sine network (Sitzmann et al., NeurIPS 2020)."""

    middle: Tensor

    def __init__(self, low: np.ndarray, high: np.ndarray, options: InrOptions) -> None:
        super().__init__()
        self.register_buffer("middle", torch.tensor((low + high) / 2, dtype=torch.float32))
        self.half_extent = float((high - low).max() / 2)
        self.frequency = options.siren_frequency
        sizes = [3] + [options.hidden] * options.siren_layers
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.last = nn.Linear(options.hidden, 1 + N_HIDDEN_FEATURES)
        with torch.no_grad():
            for number, layer in enumerate([*layers, self.last]):
                fan_in = layer.in_features
                bound = 1 / fan_in if number == 0 else float(np.sqrt(6 / fan_in)) / self.frequency
                layer.weight.uniform_(-bound, bound)

    def forward(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 15"]]:
        """Intensity and features at points (mm)."""
        hidden = (points - self.middle) / self.half_extent
        for layer in self.layers:
            hidden = torch.sin(self.frequency * layer(hidden))
        out = self.last(hidden)
        return functional.softplus(out[:, 0]), out[:, 1:]

    def open(self, share: float) -> None:
        """A sine network has no levels to open."""


def make_network(low: np.ndarray, high: np.ndarray, options: InrOptions) -> GridNetwork | SirenNetwork:
    """The network asked for.

    Raises
    ------
    ValueError
        If it is unknown.
    """
    if options.network == "grid":
        return GridNetwork(low, high, options)
    if options.network == "siren":
        return SirenNetwork(low, high, options)
    raise ValueError(f"unknown network {options.network!r}: choose grid or siren")
