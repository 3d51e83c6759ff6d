"""Everything an implicit reconstruction depends on besides the slices."""

from __future__ import annotations

from dataclasses import dataclass

from gsvr.model.point_spread import ProfileName


@dataclass(frozen=True)
class InrOptions:
    """Settings; intensities are scaled so that bright tissue is near one.

    Attributes
    ----------
    n_levels, coarsest, finest
        Resolutions of the grid: how many, and the node spacing (mm) of the first and the last.
    n_features
        Features a node holds.
    hidden
        Width of the head.
    profile
        Slice profile, see `gsvr.model.point_spread.PROFILES`.
    samples
        Points drawn from the point spread function for each pixel. Evenly spread as they are, few suffice, and pixels
        are worth more than points: see docs/benchmarks.md.
    batch_pixels, iterations
        Pixels of a step, and number of steps.
    opening_share
        Share of the steps after which all levels of the grid take part; coarse ones come first.
    grid_rate, head_rate, pose_rate, slice_rate
        Adam's learning rates: of the grid, the head, the poses (mm a step), and of gains and variances.
    final_rate
        Learning rates at the end, as a share of those at the start (cosine decay).
    edge_weight, edge_scale
        Edge-preserving regularisation of the gradient (per mm), and the gradient above which it counts as an edge.
    threads
        Threads of PyTorch. One: on a shared machine waiting threads would spin, and spoil the CPU seconds.
    seed
        Source of all chance.
    """

    n_levels: int = 6
    coarsest: float = 12.0
    finest: float = 0.9
    n_features: int = 2
    hidden: int = 32
    profile: ProfileName = "slab"
    samples: int = 16
    batch_pixels: int = 4096
    iterations: int = 2000
    opening_share: float = 0.15
    grid_rate: float = 2e-2
    head_rate: float = 5e-3
    pose_rate: float = 5e-2
    slice_rate: float = 5e-3
    final_rate: float = 0.02
    edge_weight: float = 5.0
    edge_scale: float = 0.025
    threads: int = 1
    seed: int = 0
