"""Which lattice sites touch which tile of a slice: the lists that kernels on graphics cards work through.

A tile is `TILE` x `TILE` pixels of one slice. In the frame of the slice an isotropic Gaussian seen through the point
spread function is E_u(u) E_v(v) f(w), so a tile is a matrix product over its sites, and needs 2 `TILE` exponentials a
site instead of `TILE`^2.

The list of a tile holds every site within the reach of any of its pixels along u and v, and within the depth of
`kernels.culling` along w. It is a superset of what culling asks for, so culling's error bound holds. Every tile has
room for as many sites as can ever touch it: n lattice points in a turned box of sides a, b, c (in units of the
spacing) are at most (a + sqrt 3)(b + sqrt 3)(c + sqrt 3), because their unit cubes are disjoint and lie in the box
widened by half a diagonal. So lists are made anew at new poses without asking the device how long they became.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64
from torch import Tensor

from gsvr.backends.windows import SliceWindows
from gsvr.model.fields import Lattice

TILE = 16
# Columns of `TileLists.constants` before the mixture, and of each component of it.
FIRST_COMPONENT, COMPONENT = 4, 3
# Sites are stored as x << 20 | y << 10 | z.
_LONGEST_AXIS = 1024
# Lists are a little longer than needed, so that rounding never leaves a site out (index units and pixels).
_ROUNDING = 1e-3
_LOG2_E = float(np.log2(np.e))


@dataclass(frozen=True)
class TileLists:
    """Tiles of all slices, and the sites that touch each. `frames`, `boxes`, `count` and `sites` follow the poses.

    Attributes
    ----------
    shape
        Of the lattice.
    slice_of, corners
        Slice of each tile, and its first pixel along u and v.
    extents
        First and last u and v (pixels from the corner) and w (mm) of sites that touch the tile.
    pixels
        Flat index of the tile's first pixel, rows and columns of it inside the slice, pixels from row to row.
    constants
        1 / (2 sigma^2) along u and v (pixel^-2), pixel spacing along u and v (mm), then peak, offset (mm) and
        1 / (2 sigma^2) (mm^-2) of every component of the profile; sharpness times log2 e, for powers of two.
    row_ends
        First site of each lattice row along z, and one past its last.
    frames
        Site index minus the box's origin -> u, v (pixels from the corner), w (mm): 3 x 3 matrix, then the shift.
    boxes
        Origin (3), first x and y of the sites that may touch, and how many along x and y.
    first
        Where each tile's list starts.
    count, sites
        How many sites there are in each list, and the lists.
    """

    shape: tuple[int, int, int]
    slice_of: Int64[Tensor, " t"]
    corners: Float[Tensor, "t 2"]
    extents: Float[Tensor, "t 3 2"]
    pixels: Int32[Tensor, "t 4"]
    constants: Float32[Tensor, "t k"]
    row_ends: Int32[Tensor, "nx ny 2"]
    frames: Float32[Tensor, "t 12"]
    boxes: Int32[Tensor, "t 7"]
    first: Int64[Tensor, " t1"]
    count: Int32[Tensor, " t"]
    sites: Int32[Tensor, " capacity"]

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return len(self.slice_of)

    @property
    def n_components(self) -> int:
        """Gaussians in the slice profile."""
        return (self.constants.shape[1] - FIRST_COMPONENT) // COMPONENT

    def place(self, from_lattice: Float[Tensor, "n 3 4"]) -> None:
        """Frames and boxes for other poses, see `SliceWindows.from_lattice`; the lists are to be filled again."""
        matrix = from_lattice[:, :, :3]
        rows = matrix.unbind(1)
        crossed = [torch.linalg.cross(rows[(i + 1) % 3], rows[(i + 2) % 3]) for i in range(3)]
        inverse = torch.stack(crossed, 2) / (rows[0] * crossed[0]).sum(1)[:, None, None]
        matrix, inverse = matrix[self.slice_of], inverse[self.slice_of]
        shift = from_lattice[self.slice_of, :, 3].clone()
        shift[:, :2] -= self.corners
        middle, half = self.extents.mean(2), (self.extents[:, :, 1] - self.extents[:, :, 0]) / 2
        centre = torch.einsum("tij,tj->ti", inverse, middle - shift)
        reach = torch.einsum("tij,tj->ti", inverse.abs(), half) + _ROUNDING
        origin = centre.round()
        # far from the lattice any place does; near it, distances from the origin are small and exact in float32
        ends = [
            torch.stack([low.clamp(0, size), high.clamp(-1, size - 1)])
            for low, high, size in zip(
                (centre - reach).ceil().unbind(1), (centre + reach).floor().unbind(1), self.shape[:2], strict=False
            )
        ]
        first, last = torch.stack(ends, 2)
        self.frames[:, :9] = matrix.reshape(-1, 9)
        self.frames[:, 9:] = torch.einsum("tij,tj->ti", matrix, origin) + shift
        self.boxes[:, :3] = origin.clamp(-1e6, 1e6)
        self.boxes[:, 3:5] = first
        self.boxes[:, 5:] = (last - first + 1).clamp(min=0)


def exact_type(device: torch.device) -> torch.dtype:
    """Type for poses, places and sums: float64 where there is one (Apple's cards have none)."""
    return torch.float32 if device.type == "mps" else torch.float64


def tile_lists(
    lattice: Lattice, windows: SliceWindows, device: torch.device, needed: Bool[np.ndarray, " p"] | None = None
) -> TileLists:
    """Lay tiles over all slices, with room for their sites; still to be placed and filled.

    Parameters
    ----------
    needed
        Pixels somebody asks for; tiles without any are left out. Default: all.

    Raises
    ------
    ValueError
        If an axis of the lattice is too long.
    """
    if max(lattice.shape) > _LONGEST_AXIS:
        raise ValueError(f"lattices of more than {_LONGEST_AXIS} sites along an axis do not fit: use a larger spacing")
    owner, corner = tiles_of(windows.shapes)
    rows, columns = np.minimum(windows.shapes[owner] - corner, TILE).T
    start = windows.first_pixel[owner] + corner[:, 0] * windows.shapes[owner, 1] + corner[:, 1]
    pixels = np.stack([start, rows, columns, windows.shapes[owner, 1]], axis=1)
    if needed is not None:
        kept = needed_tiles(windows.shapes, windows.first_pixel, needed)
        owner, corner, pixels = owner[kept], corner[kept], pixels[kept]
    reach = windows.reach[owner] + _ROUNDING
    extents = np.stack([np.stack([-reach, pixels[:, 1:3] - 1 + reach], axis=2)[:, i] for i in (0, 1)], axis=1)
    extents = np.concatenate([extents, windows.depth[owner, None]], axis=1)
    mm = np.concatenate([windows.pixel_spacing[owner], np.ones((len(owner), 1))], axis=1)
    sides = (extents[:, :, 1] - extents[:, :, 0]) * mm / lattice.spacing
    room = np.minimum(np.ceil((sides + 2 * _ROUNDING + np.sqrt(3)).prod(axis=1)), lattice.support.size)
    exact = exact_type(device)

    def move(values: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=dtype).to(device)

    first = np.concatenate([[0], np.cumsum(room.astype(np.int64))])
    n = len(owner)
    return TileLists(
        shape=lattice.shape,
        slice_of=move(owner, torch.int64),
        corners=move(corner, exact),
        extents=move(extents, exact),
        pixels=move(pixels, torch.int32),
        constants=move(_constants(windows, owner), torch.float32),
        row_ends=move(_row_ends(lattice.support), torch.int32),
        frames=torch.zeros((n, 12), dtype=torch.float32, device=device),
        boxes=torch.zeros((n, 7), dtype=torch.int32, device=device),
        first=move(first, torch.int64),
        count=torch.zeros(n, dtype=torch.int32, device=device),
        sites=torch.zeros(int(first[-1]), dtype=torch.int32, device=device),
    )


def tiles_of(shapes: Int[np.ndarray, "n 2"]) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, "t 2"]]:
    """Slice and first pixel of every tile, slice by slice and row by row."""
    counts = -(-shapes // TILE)
    per_slice = counts.prod(axis=1)
    owner = np.repeat(np.arange(len(shapes)), per_slice)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(per_slice) - per_slice, per_slice)
    return owner, TILE * np.stack(np.divmod(number, counts[owner, 1]), axis=1)


def needed_tiles(
    shapes: Int[np.ndarray, "n 2"], first_pixel: Int[np.ndarray, " n1"], needed: Bool[np.ndarray, " p"]
) -> Bool[np.ndarray, " t"]:
    """Whether each tile of `tiles_of` holds any pixel that is needed."""
    counts = -(-shapes // TILE)
    per_slice = counts.prod(axis=1)
    first_tile = np.cumsum(per_slice) - per_slice
    at = np.flatnonzero(needed)
    s = np.searchsorted(first_pixel, at, side="right") - 1
    row, column = np.divmod(at - first_pixel[s], shapes[s, 1])
    kept = np.zeros(int(per_slice.sum()), bool)
    kept[first_tile[s] + (row // TILE) * counts[s, 1] + column // TILE] = True
    return kept


def _constants(windows: SliceWindows, owner: np.ndarray) -> np.ndarray:
    parts = [windows.sharpness * _LOG2_E, windows.pixel_spacing]
    for peaks, offsets, sharpness in zip(windows.peaks.T, windows.offsets.T, windows.depth_sharpness.T, strict=True):
        parts.append(np.stack([peaks, offsets, sharpness * _LOG2_E], axis=1))
    return np.concatenate(parts, axis=1)[owner]


def _row_ends(support: np.ndarray) -> np.ndarray:
    occupied = support.any(axis=2)
    first = np.where(occupied, support.argmax(axis=2), 0)
    last = np.where(occupied, support.shape[2] - support[:, :, ::-1].argmax(axis=2), 0)
    return np.stack([first, last], axis=2)
