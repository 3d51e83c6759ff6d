"""Which lattice sites touch which tile of a slice: the lists that kernels of lattices work through.

In the frame of the slice an isotropic Gaussian seen through a separable point spread function is E_u(u) E_v(v) f(w), so
a tile is a matrix product over its sites, and needs 2 `TILE` exponentials a site instead of `TILE`^2.

The list of a tile holds every site within the reach of any of its pixels along u and v, and within the depth of
`gsvr.backends.windows` along w: a superset of what culling asks for, so culling's error bound holds. Every tile has
room for as many sites as can ever touch it: n lattice points in a turned box of sides a, b, c (in units of the
spacing) are at most (a + sqrt 3)(b + sqrt 3)(c + sqrt 3), because their unit cubes are disjoint and lie in the box
widened by half a diagonal. So lists are made without asking the device how long they became.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32, Int64
from torch import Tensor

from gsvr.backends.torch.tensors import moved
from gsvr.backends.torch.tiles import Tiles, tiles_of
from gsvr.backends.windows import SliceWindows
from gsvr.model.fields import Lattice

# Columns of `LatticeTiles.constants` before the mixture, and of each component of it.
FIRST_COMPONENT, COMPONENT = 4, 3
# Sites are stored as x << 20 | y << 10 | z.
_LONGEST_AXIS = 1024
# Lists are a little longer than needed, so that rounding never leaves a site out (index units and pixels).
_ROUNDING = 1e-3
_LOG2_E = float(np.log2(np.e))


@dataclass(frozen=True)
class LatticeTiles:
    """Tiles of all slices, and the sites that touch each.

    Attributes
    ----------
    shape
        Of the lattice.
    pixels
        See `gsvr.backends.torch.tiles.Tiles`.
    constants
        1 / (2 sigma^2) along u and v (pixel^-2), pixel spacing along u and v (mm), then peak, offset (mm) and
        1 / (2 sigma^2) (mm^-2) of every component of the profile; sharpness times log2 e, for powers of two.
    row_ends
        First site of each lattice row along z, and one past its last.
    extents
        First and last u and v (pixels from the corner) and w (mm) of sites that touch the tile.
    frames
        Site index minus the box's origin -> u, v (pixels from the corner), w (mm): 3 x 3 matrix, then the shift.
    boxes
        Origin (3), first x and y of the sites that may touch, and how many along x and y.
    first
        Where each tile's list starts.
    count, sites
        How many sites there are in each list, and the lists; filled by ``fill`` of the kernels.
    """

    shape: tuple[int, int, int]
    pixels: Int32[Tensor, "t 4"]
    constants: Float32[Tensor, "t k"]
    row_ends: Int32[Tensor, "nx ny 2"]
    extents: Float32[Tensor, "t 6"]
    frames: Float32[Tensor, "t 12"]
    boxes: Int32[Tensor, "t 7"]
    first: Int64[Tensor, " t1"]
    count: Int32[Tensor, " t"]
    sites: Int32[Tensor, " capacity"]

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return len(self.pixels)

    @property
    def n_components(self) -> int:
        """Gaussians in the slice profile."""
        return (self.constants.shape[1] - FIRST_COMPONENT) // COMPONENT


def lattice_tiles(lattice: Lattice, windows: SliceWindows, device: torch.device) -> LatticeTiles:
    """Lay tiles over all slices, with room for their sites; still to be filled.

    Raises
    ------
    ValueError
        If an axis of the lattice is too long.
    """
    if max(lattice.shape) > _LONGEST_AXIS:
        raise ValueError(f"lattices of more than {_LONGEST_AXIS} sites along an axis do not fit: use a larger spacing")
    tiles = tiles_of(windows.shapes, windows.first_pixel)
    extents = _extents(tiles, windows)
    frames, boxes = _frames(tiles, windows, extents, lattice.shape)
    room = _room(tiles, windows, extents, lattice)
    first = np.concatenate([[0], np.cumsum(room)])
    return LatticeTiles(
        shape=lattice.shape,
        pixels=moved(tiles.pixels, torch.int32, device),
        constants=moved(_constants(windows)[tiles.slices], torch.float32, device),
        row_ends=moved(lattice.row_ends, torch.int32, device),
        extents=moved(extents.reshape(-1, 6), torch.float32, device),
        frames=moved(frames, torch.float32, device),
        boxes=moved(boxes, torch.int32, device),
        first=moved(first, torch.int64, device),
        count=torch.zeros(len(room), dtype=torch.int32, device=device),
        sites=torch.zeros(int(first[-1]), dtype=torch.int32, device=device),
    )


def _extents(tiles: Tiles, windows: SliceWindows) -> Float[np.ndarray, "t 3 2"]:
    reach = windows.reach[tiles.slices] + _ROUNDING
    in_plane = np.stack([-reach, tiles.pixels[:, 1:3] - 1 + reach], axis=2)
    return np.concatenate([in_plane, windows.depth[tiles.slices, None]], axis=1)


def _room(
    tiles: Tiles, windows: SliceWindows, extents: Float[np.ndarray, "t 3 2"], lattice: Lattice
) -> Int[np.ndarray, " t"]:
    """How many sites can ever touch each tile, see above."""
    mm = np.concatenate([windows.pixel_spacing[tiles.slices], np.ones((len(extents), 1))], axis=1)
    sides = (extents[:, :, 1] - extents[:, :, 0]) * mm / lattice.spacing
    room = np.ceil((sides + 2 * _ROUNDING + np.sqrt(3)).prod(axis=1))
    return np.minimum(room, lattice.support.size).astype(np.int64)


def _frames(
    tiles: Tiles, windows: SliceWindows, extents: Float[np.ndarray, "t 3 2"], shape: tuple[int, int, int]
) -> tuple[Float[np.ndarray, "t 12"], Int[np.ndarray, "t 7"]]:
    """Frames and boxes: distances are counted from a site near the tile, so that they are exact in float32."""
    matrix = windows.from_lattice[tiles.slices, :, :3]
    inverse = np.linalg.inv(windows.from_lattice[:, :, :3])[tiles.slices]
    shift = windows.from_lattice[tiles.slices, :, 3].copy()
    shift[:, :2] -= tiles.corners
    middle, half = extents.mean(axis=2), (extents[:, :, 1] - extents[:, :, 0]) / 2
    centre = np.einsum("tij,tj->ti", inverse, middle - shift)
    reach = np.einsum("tij,tj->ti", np.abs(inverse), half) + _ROUNDING
    origin = np.round(centre)
    sizes = np.array(shape[:2])
    # far from the lattice any place does
    low = np.clip(np.ceil(centre - reach)[:, :2], 0, sizes)
    high = np.clip(np.floor(centre + reach)[:, :2], -1, sizes - 1)
    turned = np.einsum("tij,tj->ti", matrix, origin) + shift
    boxes = np.concatenate([np.clip(origin, -1e6, 1e6), low, np.maximum(high - low + 1, 0)], axis=1)
    return np.concatenate([matrix.reshape(-1, 9), turned], axis=1), boxes.astype(np.int64)


def _constants(windows: SliceWindows) -> Float[np.ndarray, "n k"]:
    parts = [windows.sharpness * _LOG2_E, windows.pixel_spacing]
    for peaks, offsets, sharpness in zip(windows.peaks.T, windows.offsets.T, windows.depth_sharpness.T, strict=True):
        parts.append(np.stack([peaks, offsets, sharpness * _LOG2_E], axis=1))
    return np.concatenate(parts, axis=1)
