"""Fit the network, poses, gains and variances to the slices by Adam."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.inr.network import N_HIDDEN_FEATURES, GridNetwork
from benchmarks.inr.options import InrOptions
from benchmarks.inr.poses import SlicePoses
from benchmarks.inr.sampling import Batch, PixelSampler
from gsvr.model.geometry import identity_poses, transform_points
from gsvr.model.slices import Slices
from gsvr.solver.gains import intensity_scale

_MARGIN = 6.0  # of the box around all pixels (mm): room for motion and for the point spread function
_SLICE_EMBEDDING = 8


class SliceEffects(nn.Module):
    """Gain and variance of each slice, and a variance that depends on place and slice."""

    def __init__(self, n_slices: int) -> None:
        super().__init__()
        self.log_gains = nn.Parameter(torch.zeros(n_slices))
        self.log_variances = nn.Parameter(torch.full((n_slices,), math.log(0.01)))
        self.embedding = nn.Embedding(n_slices, _SLICE_EMBEDDING)
        self.variance_head = nn.Sequential(
            nn.Linear(N_HIDDEN_FEATURES + _SLICE_EMBEDDING, 32), nn.ReLU(), nn.Linear(32, 1)
        )
        with torch.no_grad():
            self.variance_head[2].bias.fill_(-6.0)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]

    def gains(self) -> Float[Tensor, " n"]:
        """Gains with mean one."""
        return functional.softmax(self.log_gains, dim=0) * len(self.log_gains)

    def variances(self, batch: Batch, features: Float[Tensor, "b 15"]) -> Float[Tensor, " b"]:
        """Variance of each pixel of a batch."""
        inputs = torch.cat([features, self.embedding(batch.slices)], dim=1)
        of_place = functional.softplus(self.variance_head(inputs)[:, 0])
        return torch.exp(self.log_variances)[batch.slices] + of_place + 1e-6


@dataclass(frozen=True)
class InrProgress:
    """What a callback is told: the result as it stands, and after which share of the steps."""

    share: float
    result: InrResult


@dataclass(frozen=True)
class InrResult:
    """A trained network.

    Attributes
    ----------
    network
        Position (mm) -> intensity over `scale`.
    scale
        Intensity of one unit of the network.
    poses
        Acquired world -> volume world.
    gains
        Intensity factor of each slice.
    """

    network: GridNetwork
    scale: float
    poses: Float[np.ndarray, "n 4 4"]
    gains: Float[np.ndarray, " n"]


def _keep_memory() -> None:
    """Let the C library keep freed memory: PyTorch would otherwise spend a third of its time in page faults."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap, too
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and the heap keeps its size


def train(
    slices: Slices,
    options: InrOptions | None = None,
    callback: Callable[[InrProgress], None] | None = None,
    start: Float[np.ndarray, "n 4 4"] | None = None,
    callback_shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0),
) -> InrResult:
    """Fit everything at once.

    Parameters
    ----------
    slices
        The acquisition.
    options
        Settings.
    callback
        Called after these shares of the steps.
    start
        First poses; default: nothing has moved.
    """
    options = options or InrOptions()
    _keep_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    scale = intensity_scale(slices)
    scaled = replace(slices, values=slices.values / np.float32(scale))
    start = identity_poses(slices.n_slices) if start is None else start
    low, high = _box(scaled, start)
    network = GridNetwork(low, high, options)
    poses, effects = SlicePoses(scaled, start), SliceEffects(slices.n_slices)
    sampler = PixelSampler(scaled, options.profile, options.samples, torch.Generator().manual_seed(options.seed))
    optimiser = _optimiser(network, poses, effects, options)
    base_rates = [group["lr"] for group in optimiser.param_groups]
    reports = {max(1, round(share * options.iterations)) for share in callback_shares}

    def result() -> InrResult:
        return InrResult(network, scale, poses.matrices(), effects.gains().detach().numpy().astype(np.float64))

    for step in range(1, options.iterations + 1):
        share = step / options.iterations
        decay = options.final_rate + (1 - options.final_rate) * 0.5 * (1 + math.cos(math.pi * share))
        for group, rate in zip(optimiser.param_groups, base_rates, strict=True):
            group["lr"] = rate * decay
        network.open(share / max(options.opening_share, 1e-9))
        loss = _loss(network, poses, effects, sampler.draw(options.batch_pixels), options)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if callback and step in reports:
            callback(InrProgress(share, result()))
    return result()


def _loss(network: GridNetwork, poses: SlicePoses, effects: SliceEffects, batch: Batch, options: InrOptions) -> Tensor:
    """Gaussian negative log-likelihood, edge-preserving regularisation."""
    points = poses.place(batch.slices, batch.local)
    n_pixels, n_samples = points.shape[:2]
    intensity, features = network(points.reshape(-1, 3))
    intensity = intensity.view(n_pixels, n_samples)
    gain = effects.gains()[batch.slices]
    predicted = gain * intensity.mean(dim=1)
    variance = effects.variances(batch, features.view(n_pixels, n_samples, -1).mean(dim=1))
    loss = 0.5 * ((batch.values - predicted) ** 2 / variance + torch.log(variance)).mean()
    return loss + options.edge_weight * edge_penalty(intensity, points, options.edge_scale)


def edge_penalty(intensity: Float[Tensor, "b s"], points: Float[Tensor, "b s 3"], scale: float) -> Tensor:
    """Charbonnier penalty of the slope between the points of one pixel, taken in pairs."""
    half = intensity.shape[1] // 2
    difference = intensity[:, :half] - intensity[:, half : 2 * half]
    distance = (points[:, :half] - points[:, half : 2 * half]).detach().square().sum(dim=2)
    slope = difference.square() / (distance + 1e-6)
    return scale * (torch.sqrt(1 + slope / scale**2) - 1).mean()


def _optimiser(
    network: GridNetwork, poses: SlicePoses, effects: SliceEffects, options: InrOptions
) -> torch.optim.Optimizer:
    groups = [
        {"params": list(poses.parameters()), "lr": options.pose_rate},
        {"params": list(effects.parameters()), "lr": options.slice_rate},
        {"params": list(network.grid.parameters()), "lr": options.grid_rate},
        {"params": [*network.first.parameters(), *network.last.parameters()], "lr": options.head_rate},
    ]
    return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)


def _box(slices: Slices, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of what the network must cover (mm)."""
    owner = np.repeat(np.arange(slices.n_slices), np.diff(slices.offsets))[slices.mask]
    placed = transform_points(poses[owner], slices.pixel_positions()[slices.mask])
    return placed.min(axis=0) - _MARGIN, placed.max(axis=0) + _MARGIN
