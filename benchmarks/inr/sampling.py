"""Monte-Carlo point spread function: where the intensity is averaged to predict a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsvr.model.point_spread import PointSpread, ProfileName, point_spread
from gsvr.model.slices import Slices

# Keeps uniform numbers away from 0 and 1, where the normal quantile is infinite: 4.9 standard deviations.
_SMALLEST_UNIFORM = 5e-7


@dataclass(frozen=True)
class Batch:
    """Pixels of one step.

    Attributes
    ----------
    slices
        The slice of each pixel.
    local
        Points drawn for each pixel, in the slice frame (mm).
    values
        What was measured.
    """

    slices: Int[Tensor, " b"]
    local: Float[Tensor, "b s 3"]
    values: Float[Tensor, " b"]


def normal_points(
    uniform: Float[Tensor, "b s 3"],
    in_plane_sigmas: Float[Tensor, "b 2"],
    weights: Float[Tensor, " m"],
    offsets: Float[Tensor, "b m"],
    sigmas: Float[Tensor, "b m"],
) -> Float[Tensor, "b s 3"]:
    """Turn uniform numbers into points of the point spread function, in the slice frame (mm) around the pixel.

    The third number chooses a component of the slice profile and the place in it, so that evenly spread numbers
    serve every component with its share.
    """
    limited = uniform.clamp(_SMALLEST_UNIFORM, 1 - _SMALLEST_UNIFORM)
    upper = torch.cumsum(weights, dim=0)
    chosen = torch.bucketize(limited[..., 2].contiguous(), upper[:-1])
    within = (limited[..., 2] - (upper - weights)[chosen]) / weights[chosen]
    normal = torch.special.ndtri(
        torch.cat([limited[..., :2], within[..., None]], dim=-1).clamp(_SMALLEST_UNIFORM, 1 - _SMALLEST_UNIFORM)
    )
    in_plane = normal[..., :2] * in_plane_sigmas[:, None, :]
    through = torch.gather(offsets, 1, chosen) + normal[..., 2] * torch.gather(sigmas, 1, chosen)
    return torch.cat([in_plane, through[..., None]], dim=-1)


def near_pairs(uniform: Float[Tensor, "s 3"]) -> Float[Tensor, "s 3"]:
    """The same points in an order that puts number i of the first half near number i of the second.

    A slope between near points shows noise of the volume, which one between far points steps over. Pairs are made
    greedily, the nearest first; distances are those of the unit cube without edges: random shifts do not change them.
    """
    apart = (uniform[:, None] - uniform[None]).abs()
    distance = torch.minimum(apart, 1 - apart).square().sum(dim=2).fill_diagonal_(torch.inf)
    pairs = []
    for _ in range(len(uniform) // 2):
        pair = divmod(int(distance.argmin()), len(uniform))
        distance[pair, :] = distance[:, pair] = torch.inf
        pairs.append(pair)
    order = [first for first, _ in pairs] + [second for _, second in pairs]
    return uniform[order]


class PixelSampler:
    """Draws pixels at random from inside the masks, with points of their point spread functions.

    The points of a pixel are a Sobol sequence under a random shift of its own: unbiased as independent draws are,
    but with less noise.

    Parameters
    ----------
    slices
        The acquisition, with intensities as the network sees them.
    profile
        Slice profile.
    samples
        Points of a pixel.
    generator
        Source of chance.
    """

    def __init__(self, slices: Slices, profile: ProfileName, samples: int, generator: torch.Generator) -> None:
        spread: PointSpread = point_spread(slices.spacings, slices.thicknesses, profile, slices.binning)
        self._generator = generator
        self._in_plane = torch.tensor(np.sqrt(spread.covariances[:, 0, (0, 1), (0, 1)]), dtype=torch.float32)
        self._weights = torch.tensor(spread.weights, dtype=torch.float32)
        self._offsets = torch.tensor(spread.offsets[:, :, 2], dtype=torch.float32)
        self._sigmas = torch.tensor(np.sqrt(spread.covariances[:, :, 2, 2]), dtype=torch.float32)
        engine = torch.quasirandom.SobolEngine(3, scramble=True, seed=int(generator.initial_seed()))
        self._points = near_pairs(engine.draw(samples))
        inside = np.flatnonzero(slices.mask)
        owner = np.repeat(np.arange(slices.n_slices), np.diff(slices.offsets))
        self._owner = torch.tensor(owner[inside])
        self._values = torch.tensor(slices.values[inside])
        self._places = torch.tensor(local_positions(slices)[inside])
        self._queue = torch.empty(0, dtype=torch.long)

    @property
    def n_pixels(self) -> int:
        """Pixels to draw from."""
        return len(self._values)

    def draw(self, n_pixels: int) -> Batch:
        """The next pixels of a random order that visits each once before any twice."""
        if len(self._queue) < n_pixels:
            self._queue = torch.randperm(self.n_pixels, generator=self._generator)
        index, self._queue = self._queue[:n_pixels], self._queue[n_pixels:]
        return self.at(index)

    def at(self, index: Int[Tensor, " b"]) -> Batch:
        """Points for the pixels of that number."""
        slices = self._owner[index]
        shift = torch.rand(len(index), 1, 3, generator=self._generator)
        uniform = torch.remainder(self._points + shift, 1.0)
        points = normal_points(
            uniform, self._in_plane[slices], self._weights, self._offsets[slices], self._sigmas[slices]
        )
        places = torch.nn.functional.pad(self._places[index], (0, 1))
        return Batch(slices, places[:, None, :] + points, self._values[index])


def local_positions(slices: Slices) -> np.ndarray:
    """Position of every pixel in its slice's frame along u and v (mm, float32)."""
    parts = []
    for shape, spacing in zip(slices.shapes, slices.pixel_spacings, strict=True):
        u, v = np.meshgrid(np.arange(shape[0]) * spacing[0], np.arange(shape[1]) * spacing[1], indexing="ij")
        parts.append(np.stack([u.ravel(), v.ravel()], axis=1))
    return np.concatenate(parts).astype(np.float32)
