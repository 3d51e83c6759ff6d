"""The slices of a stage as tensors, with what never changes during it: who neighbours whom, and where sums go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from gsvr.backends.torch import lattice_tiles as tiles
from gsvr.device_solver.pixel_grid import PixelGrid
from gsvr.model.geometry import invert, transform_points
from gsvr.model.slices import Slices
from gsvr.solver.motion import stack_centres, time_links

# Padded pixels that are summed at once: bounds the memory of products over all slices.
_AT_ONCE = 8 * 2**20


@dataclass(frozen=True)
class DeviceSlices:
    """What a round reads of `gsvr.model.slices.Slices`.

    Attributes
    ----------
    values, mask, coverage
        As in `Slices`; the mask as zeros and ones.
    owner
        Slice of every pixel.
    inside, neighbours
        Pixels inside the mask, and pixels that are inside together with the next one.
    rows
        Pixels of every slice, padded with the number of pixels.
    seen, counts
        Slices with pixels inside the mask, and how many pixels each has.
    stack_of, members
        Number of each slice's stack (from 0), and for every stack which slices belong to it (0 or 1).
    in_time
        Slices of every stack in the order of acquisition, padded with -1.
    frames, to_frame
        Slice frame -> acquired world (mm), and back.
    centres, local_centres, stack_centres
        Centre of each slice in acquired world and in its own frame, and of its stack in acquired world (mm).
    along_u, along_v
        Position (mm) of every pixel from its slice's centre.
    """

    values: Float32[Tensor, " p"]
    mask: Float32[Tensor, " p"]
    coverage: Float32[Tensor, " p"]
    owner: Int64[Tensor, " p"]
    inside: Int64[Tensor, " i"]
    neighbours: Int64[Tensor, " j"]
    rows: Int64[Tensor, "n w"]
    seen: Int64[Tensor, " m"]
    counts: Float[Tensor, " n"]
    stack_of: Int64[Tensor, " n"]
    members: Float[Tensor, "k n"]
    in_time: Int64[Tensor, "k l"]
    frames: Float[Tensor, "n 4 4"]
    to_frame: Float[Tensor, "n 4 4"]
    centres: Float[Tensor, "n 3"]
    local_centres: Float[Tensor, "n 3"]
    stack_centres: Float[Tensor, "n 3"]
    along_u: Float32[Tensor, " p"]
    along_v: Float32[Tensor, " p"]

    @staticmethod
    def of(slices: Slices, device: torch.device) -> DeviceSlices:
        """Copy slices to a device."""
        exact = tiles.exact_type(device)

        def move(values: np.ndarray, dtype: torch.dtype = exact) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(values)).to(dtype).to(device)

        mask = np.asarray(slices.mask)
        counts = slices.sum_per_slice(mask)
        stacks, stack_of = np.unique(slices.stack_index, return_inverse=True)
        grid = PixelGrid.of(slices.shapes, device)
        middle = move((slices.shapes - 1) / 2)[grid.owner]
        spacing = move(slices.pixel_spacings)[grid.owner]
        return DeviceSlices(
            values=move(slices.values, torch.float32),
            mask=move(mask, torch.float32),
            coverage=move(slices.coverage, torch.float32),
            owner=grid.owner,
            inside=move(np.flatnonzero(mask), torch.int64),
            neighbours=move(np.flatnonzero(mask[1:] & mask[:-1]), torch.int64),
            rows=_padded_rows(grid),
            seen=move(np.flatnonzero(counts > 0), torch.int64),
            counts=move(counts),
            stack_of=move(stack_of, torch.int64),
            members=move(stack_of == np.arange(len(stacks))[:, None]),
            in_time=move(_padded(time_links(slices)), torch.int64),
            frames=move(slices.frames),
            to_frame=move(invert(slices.frames)),
            centres=move(slices.centres),
            local_centres=move(transform_points(invert(slices.frames), slices.centres)),
            stack_centres=move(stack_centres(slices)),
            along_u=((grid.row - middle[:, 0]) * spacing[:, 0]).to(torch.float32),
            along_v=((grid.column - middle[:, 1]) * spacing[:, 1]).to(torch.float32),
        )

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return len(self.frames)

    @property
    def exact(self) -> torch.dtype:
        """Type of geometry and sums."""
        return self.frames.dtype

    def per_pixel(self, per_slice: Float[Tensor, " n"]) -> Float32[Tensor, " p"]:
        """Repeat one number a slice for all of its pixels."""
        return per_slice.to(torch.float32)[self.owner]

    def sum_per_slice(self, flat: Float32[Tensor, " p"]) -> Float[Tensor, " n"]:
        """Sum of a flat pixel array over each slice, always in the same order."""
        return self.padded(flat)[self.rows].sum(1, dtype=self.exact)

    def padded(self, flat: Float32[Tensor, "*k p"]) -> Float32[Tensor, "*k p1"]:
        """With a zero at the end, for the padding of `rows`."""
        return torch.nn.functional.pad(flat, (0, 1))

    def groups(self) -> list[slice]:
        """Slices that may be summed together without using too much memory."""
        count = max(_AT_ONCE // max(self.rows.shape[1], 1), 1)
        return [slice(start, start + count) for start in range(0, self.n_slices, count)]


def _padded_rows(grid: PixelGrid) -> Int64[Tensor, "n w"]:
    sizes = grid.shapes.prod(1)[:, None]
    steps = torch.arange(int(sizes.max()), device=sizes.device)
    return (grid.first[:, None] + steps).masked_fill(steps >= sizes, len(grid.owner))


def _padded(lists: list[np.ndarray]) -> np.ndarray:
    table = np.full((len(lists), max(len(part) for part in lists)), -1)
    for number, part in enumerate(lists):
        table[number, : len(part)] = part
    return table
