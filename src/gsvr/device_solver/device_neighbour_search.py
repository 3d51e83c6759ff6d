"""Which Gaussians are nearest to each other, on a device: pairs and weights of `gsvr.solver.priors.neighbours`.

As on the host (`gsvr.solver.priors.neighbour_search`), Gaussians are sorted into cells, and the 27 cells around one are nine
runs in that order. Here runs are padded to the longest, for as many Gaussians at a time as fit into a given memory,
those with the longest runs first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int, Int32
from torch import Tensor

from gsvr.backends.torch.lattice_tiles import exact_type
from gsvr.device_solver.order_statistics import median
from gsvr.solver.priors.neighbour_search import SIDE
from gsvr.solver.priors.neighbours import CLOSEST, Neighbours

# Distances held at a time, some 40 bytes each.
_AT_ONCE = 1 << 22
# A distance and its place in the runs are sorted as one whole number: no two are equal, so any device picks the same.
_PLACE_BITS = 31
_NOTHING = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class DevicePairs:
    """Pairs of Gaussians that lie near each other, as `gsvr.solver.priors.neighbours.Neighbours`.

    Attributes
    ----------
    first, second
        The pairs, each once, in ascending order.
    weights
        Of each pair.
    n_gaussians
        How many there are, with and without neighbours.
    """

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    weights: Float32[Tensor, " pairs"]
    n_gaussians: int

    @staticmethod
    def of(neighbours: Neighbours, device: torch.device) -> DevicePairs:
        """Copy pairs to a device."""
        first, second, weights = (
            torch.as_tensor(part).to(device) for part in (neighbours.first, neighbours.second, neighbours.weights)
        )
        return DevicePairs(first, second, weights, neighbours.n_gaussians)

    def on_host(self) -> Neighbours:
        """A copy."""
        first, second, weights = (part.cpu().numpy() for part in (self.first, self.second, self.weights))
        return Neighbours(first, second, weights, self.n_gaussians)

    def columns(self) -> tuple[Int32[Tensor, "k n"], Int[Tensor, "k n"]]:
        """Neighbours of every Gaussian, numbers of the pairs; where there is none, itself and one past the last pair.

        Asks the device how many neighbours there are at most.
        """
        n_pairs, device = len(self.first), self.first.device
        here, order = torch.cat([self.first, self.second]).sort(stable=True)
        there = torch.cat([self.second, self.first])[order]
        counts = torch.bincount(here, minlength=self.n_gaussians)
        place = torch.arange(len(here), device=device) - (counts.cumsum(0) - counts)[here]
        shape = (max(int(counts.max()), 1), self.n_gaussians)
        others = torch.arange(self.n_gaussians, dtype=torch.int32, device=device).repeat(shape[0], 1)
        pairs = torch.full(shape, n_pairs, device=device)
        others[place, here] = there.to(torch.int32)
        pairs[place, here] = order % max(n_pairs, 1)
        return others, pairs


def find_pairs(means: Float32[Tensor, "n 3"], log_scales: Float32[Tensor, "n 3"], count: int) -> DevicePairs:
    """Pairs of a Gaussian and one of the `count` nearest, see `gsvr.solver.priors.neighbours.find_neighbours`.

    Asks the device for lengths.
    """
    n = len(means)
    order, found = _nearest(means, log_scales, count)
    here, rank = (found >= 0).nonzero().unbind(1)
    here, there = order[here], order[found[here, rank]]
    key = torch.unique_consecutive((torch.minimum(here, there) * n + torch.maximum(here, there)).sort().values)
    first, second = torch.div(key, n, rounding_mode="floor"), key % n
    lengths = (means[first] - means[second]).norm(dim=1)
    weights = 1 / torch.maximum(lengths, CLOSEST * median(lengths)) ** 2
    weights = weights * (3 * n / weights.sum(dtype=exact_type(means.device))).float()
    return DevicePairs(first, second, weights, n)


def _nearest(
    means: Float32[Tensor, "n 3"], log_scales: Float32[Tensor, "n 3"], count: int
) -> tuple[Int[Tensor, " n"], Int[Tensor, "n count"]]:
    """Gaussians in the order of their cells, and the nearest of each in that order; -1 where there are fewer."""
    device = means.device
    sizes = log_scales.to(exact_type(device)).mean(1)
    side = SIDE * float(median(sizes).exp())
    cells = torch.div(means - means.amin(0), side).floor().long()
    shape = cells.amax(0) + 1
    number = (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]
    order = number.sort(stable=True).indices
    places = means[order]
    low, high = _runs(number[order], cells[order], shape)
    found = torch.full((len(means), count), -1, device=device)
    longest, by_length = (high - low).amax(1).sort(descending=True)
    lengths = longest.tolist()
    start = 0
    while start < len(means):
        end = start + max(_AT_ONCE // (9 * max(lengths[start], 1)), 1)
        some = by_length[start:end]
        near = _nearest_in_runs(places, some, low[some], high[some], lengths[start], count)
        found[some, : near.shape[1]] = near
        start = end
    return order, found


def _runs(
    number: Int[Tensor, " n"], cells: Int[Tensor, "n 3"], shape: Int[Tensor, " 3"]
) -> tuple[Int[Tensor, "n 9"], Int[Tensor, "n 9"]]:
    """Where the nine runs of three cells along z around every Gaussian begin and end, in the order of cells."""
    step = torch.arange(-1, 2, device=number.device)
    x = (cells[:, 0, None] + step)[:, :, None]
    y = (cells[:, 1, None] + step)[:, None]
    there = ((x >= 0) & (x < shape[0]) & (y >= 0) & (y < shape[1])).flatten(1)
    row = ((x * shape[1] + y) * shape[2]).flatten(1)
    first = row + (cells[:, 2, None] - 1).clamp(min=0)
    last = row + torch.minimum(cells[:, 2, None] + 1, shape[2] - 1)
    low = torch.searchsorted(number, first)
    high = torch.searchsorted(number, last, right=True)
    return low, torch.where(there, high, low)


def _nearest_in_runs(
    places: Float32[Tensor, "n 3"],
    some: Int[Tensor, " m"],
    low: Int[Tensor, "m 9"],
    high: Int[Tensor, "m 9"],
    length: int,
    count: int,
) -> Int[Tensor, "m found"]:
    """The nearest of some Gaussians among those of their runs; of two as near as each other, the first."""
    other = (low[:, :, None] + torch.arange(length, device=low.device)).flatten(1)
    there = (other < high.repeat_interleave(length, dim=1)) & (other != some[:, None])
    other = other.clamp(max=len(places) - 1)
    square = torch.zeros(other.shape, device=low.device)
    for axis in range(3):
        along = places[:, axis].contiguous()
        square += (along[other] - along[some, None]) ** 2
    place = torch.arange(other.shape[1], device=low.device)
    # numbers that are not negative are in the order of their bits
    key = (square.view(torch.int32).long() << _PLACE_BITS | place).masked_fill_(~there, _NOTHING)
    best = key.topk(min(count, key.shape[1]), dim=1, largest=False).values
    near = other.gather(1, (best & ((1 << _PLACE_BITS) - 1)).clamp(max=other.shape[1] - 1))
    return near.masked_fill(best == _NOTHING, -1)
