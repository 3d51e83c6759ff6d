"""What the scanner recorded: stacks of slices, and the flat set of slices a solver works on.

No file formats here, and no optimisation. All lengths are mm, all worlds RAS+.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from gsvr import compiled


@dataclass(frozen=True)
class Stack:
    """One stack of parallel slices as acquired.

    Attributes
    ----------
    name
        How messages and outputs call the stack, usually the file's name without its suffix.
    data
        Intensities; the last axis runs through the slices.
    affine
        Voxel index -> acquired world (mm).
    thickness
        Slice thickness in mm; differs from the slice spacing where there is a gap or an overlap.
    mask
        True where the anatomy of interest is, or None if nobody drew one.
    slice_times
        Acquisition time of each slice; only the order matters.
    """

    name: str
    data: Float32[np.ndarray, "columns rows slices"]
    affine: Float[np.ndarray, "4 4"]
    thickness: float
    mask: Bool[np.ndarray, "columns rows slices"] | None
    slice_times: Float[np.ndarray, " slices"]

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return self.data.shape[2]

    @property
    def spacing(self) -> Float[np.ndarray, " 3"]:
        """Distance between voxel centres along each axis (mm)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def interleaved_times(n_slices: int) -> Float[np.ndarray, " n"]:
    """Acquisition order of the usual odd/even interleave: slices 0, 2, 4, ..., then 1, 3, 5, ..."""
    order = np.concatenate([np.arange(0, n_slices, 2), np.arange(1, n_slices, 2)])
    times = np.empty(n_slices)
    times[order] = np.arange(n_slices)
    return times


def slice_frame(affine: Float[np.ndarray, "4 4"], first_pixel: np.ndarray) -> Float[np.ndarray, "4 4"]:
    """Rigid map from the slice frame (mm, origin at voxel `first_pixel`) to acquired world.

    Its axes are the two in-plane directions of `affine` and their cross product, so a left-handed
    or sheared affine still gives a proper rotation; the in-plane axes must be perpendicular.
    """
    axis_u = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    axis_v = affine[:3, 1] - axis_u * (axis_u @ affine[:3, 1])
    axis_v /= np.linalg.norm(axis_v)
    frame = np.eye(4)
    frame[:3, :3] = np.stack([axis_u, axis_v, np.cross(axis_u, axis_v)], axis=1)
    frame[:3, 3] = affine[:3, :3] @ first_pixel + affine[:3, 3]
    return frame


@dataclass(frozen=True)
class Slices:
    """The slices of all stacks, each cropped to a rectangle around its mask, stored one after another.

    Pixel (i, j) of slice s lies at (i spacing_u, j spacing_v, 0) mm in the slice frame and at
    ``values[offsets[s] + i * shapes[s, 1] + j]`` in the flat arrays.

    Attributes
    ----------
    values, mask
        Flat pixels of all slices; pixels outside the mask are kept but take no part.
    coverage
        Share of a (binned) pixel that lay inside the mask: one, or less at the mask's edge.
    shapes, offsets
        Extent of each slice along u and v, and where its pixels start (``n + 1`` entries).
    frames
        Slice frame (mm) -> acquired world (mm), rigid.
    spacings, thicknesses
        Pixel spacing as acquired (before binning) and slice thickness (mm).
    times
        Acquisition time within the stack; comparable only inside one stack.
    stack_index, slice_index
        Which stack, and which slice of it.
    stack_names
        Names for messages.
    binning
        How many acquired pixels along each axis one pixel averages.
    drawn
        Whether a slice's mask was drawn on its own stack, so that it may vote on where the anatomy is; None: all.
    """

    values: Float32[np.ndarray, " p"]
    mask: Bool[np.ndarray, " p"]
    coverage: Float32[np.ndarray, " p"]
    shapes: Int[np.ndarray, "n 2"]
    offsets: Int[np.ndarray, " n1"]
    frames: Float[np.ndarray, "n 4 4"]
    spacings: Float[np.ndarray, "n 2"]
    thicknesses: Float[np.ndarray, " n"]
    times: Float[np.ndarray, " n"]
    stack_index: Int[np.ndarray, " n"]
    slice_index: Int[np.ndarray, " n"]
    stack_names: tuple[str, ...]
    binning: int = 1
    drawn: Bool[np.ndarray, " n"] | None = None

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return len(self.shapes)

    @property
    def n_pixels(self) -> int:
        """Number of pixels inside the masks."""
        return int(self.mask.sum())

    @property
    def pixel_spacings(self) -> Float[np.ndarray, "n 2"]:
        """Distance between neighbouring (binned) pixels along u and v (mm)."""
        return self.spacings * self.binning

    @property
    def centres(self) -> Float[np.ndarray, "n 3"]:
        """Centre of each slice's rectangle in acquired world (mm): what poses rotate about."""
        half = np.zeros((self.n_slices, 3))
        half[:, :2] = (self.shapes - 1) * self.pixel_spacings / 2
        return np.einsum("nij,nj->ni", self.frames[:, :3, :3], half) + self.frames[:, :3, 3]

    def pixels_of(self, index: int) -> slice:
        """Where the pixels of slice `index` are in the flat arrays."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def image(self, index: int, flat: np.ndarray | None = None) -> np.ndarray:
        """Slice `index` of `flat` (default: the recorded values) as a 2-D array."""
        flat = self.values if flat is None else flat
        return flat[self.pixels_of(index)].reshape(tuple(self.shapes[index]))

    def sum_per_slice(self, flat: np.ndarray) -> Float[np.ndarray, " n"]:
        """Sum of a flat pixel array over each slice."""
        return np.add.reduceat(flat, self.offsets[:-1], dtype=np.float64)

    def per_pixel(self, per_slice: np.ndarray) -> np.ndarray:
        """Repeat one number a slice for all of its pixels."""
        return np.repeat(per_slice, np.diff(self.offsets))

    def pixel_positions(
        self, poses: Float[np.ndarray, "n 4 4"] | None = None, pixels: Bool[np.ndarray, " p"] | None = None
    ) -> Float[np.ndarray, "q 3"]:
        """Position (mm) of every pixel or of some: in acquired world, or where `poses` (affine, one a slice) put it."""
        pixels = np.ones(int(self.offsets[-1]), bool) if pixels is None else np.ascontiguousarray(pixels)
        first = np.concatenate([[0], np.cumsum(np.add.reduceat(pixels, self.offsets[:-1], dtype=np.int64))])
        positions = np.empty((int(first[-1]), 3))
        grid = self.pixel_grid(poses)
        compiled.run("place_pixels", self.n_slices, self.shapes, self.offsets, *grid, pixels, first, positions)
        return positions

    def pixel_grid(
        self, poses: Float[np.ndarray, "n 4 4"] | None = None
    ) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 2 3"]]:
        """Of every slice the position of its first pixel, and the steps from pixel to pixel along u and v (mm)."""
        frames = self.frames if poses is None else poses @ self.frames
        steps = frames[:, :3, :2] * self.pixel_spacings[:, None]
        return frames[:, :3, 3].copy(), np.ascontiguousarray(steps.transpose(0, 2, 1))

    def centred_pixels(self) -> tuple[Float32[np.ndarray, " p"], Float32[np.ndarray, " p"]]:
        """Position (mm) of every pixel along u and along v, from its slice's centre."""
        along: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for (n_u, n_v), (spacing_u, spacing_v) in zip(self.shapes, self.pixel_spacings, strict=True):
            u = (np.arange(n_u, dtype=np.float32) - (n_u - 1) / 2) * np.float32(spacing_u)
            v = (np.arange(n_v, dtype=np.float32) - (n_v - 1) / 2) * np.float32(spacing_v)
            along[0].append(np.repeat(u, n_v))
            along[1].append(np.tile(v, n_u))
        return np.concatenate(along[0]).astype(np.float32), np.concatenate(along[1]).astype(np.float32)

    def with_mask(self, mask: Bool[np.ndarray, " p"]) -> Slices:
        """The same slices with another mask."""
        return replace(self, mask=mask, coverage=mask.astype(np.float32))

    def subset(self, keep: np.ndarray) -> Slices:
        """The slices listed in `keep` (indices or a boolean per slice), in that order."""
        index = np.arange(self.n_slices)[keep]
        pieces = [self.pixels_of(int(i)) for i in index]

        def gather(flat: np.ndarray) -> np.ndarray:
            return np.concatenate([flat[piece] for piece in pieces])

        return replace(
            self,
            values=gather(self.values),
            mask=gather(self.mask),
            coverage=gather(self.coverage),
            shapes=self.shapes[index],
            offsets=_offsets(self.shapes[index]),
            frames=self.frames[index],
            spacings=self.spacings[index],
            thicknesses=self.thicknesses[index],
            times=self.times[index],
            stack_index=self.stack_index[index],
            slice_index=self.slice_index[index],
            drawn=None if self.drawn is None else self.drawn[index],
        )

    def binned(self, factor: int) -> Slices:
        """Average `factor` x `factor` pixels inside the mask: fewer pixels with less noise, for coarse stages."""
        if factor == 1:
            return self
        frames = self.frames.copy()
        shift = (factor - 1) / 2 * self.pixel_spacings
        frames[:, :3, 3] += np.einsum("nij,nj->ni", self.frames[:, :3, :2], shift)
        shapes = -(-self.shapes // factor)
        offsets = _offsets(shapes)
        values, coverage = np.empty(int(offsets[-1]), np.float32), np.empty(int(offsets[-1]), np.float32)
        compiled.run(
            "bin_pixels", self.n_slices, factor, self.shapes, self.offsets, self.values, self.mask, offsets, values,
            coverage,
        )  # fmt: skip
        return replace(
            self,
            values=values,
            mask=coverage >= 0.5,
            coverage=coverage,
            shapes=shapes,
            offsets=offsets,
            frames=frames,
            binning=self.binning * factor,
        )


def _offsets(shapes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(shapes[:, 0] * shapes[:, 1])]).astype(np.int64)


def slices_from_stacks(
    stacks: list[Stack],
    masks: list[np.ndarray],
    fields_of_view: list[np.ndarray] | None = None,
    drawn: list[bool] | None = None,
) -> Slices:
    """Cut stacks into slices, each cropped to a rectangle.

    Parameters
    ----------
    stacks
        The acquisition.
    masks
        One boolean array a stack, on its grid: the pixels to use.
    fields_of_view
        One boolean array a stack: each slice is cropped to the bounding box of it, and left out where it is
        empty. Default: the masks.
    drawn
        For each stack, whether its mask was drawn on it (see `Slices.drawn`).

    Raises
    ------
    ValueError
        If no pixel is inside any mask.
    """
    values, inside, shapes, frames, meta = [], [], [], [], []
    fields_of_view = masks if fields_of_view is None else fields_of_view
    for stack_number, (stack, mask, view) in enumerate(zip(stacks, masks, fields_of_view, strict=True)):
        in_plane = stack.spacing[:2]
        for k in np.flatnonzero(view.any(axis=(0, 1))):
            box = _bounding_box(view[:, :, k])
            crop = stack.data[:, :, k][box]
            values.append(crop.ravel())
            inside.append(mask[:, :, k][box].ravel())
            shapes.append(crop.shape)
            frames.append(slice_frame(stack.affine, np.array([box[0].start, box[1].start, k])))
            meta.append((in_plane, stack.thickness, stack.slice_times[k], stack_number, k))
    if not any(part.any() for part in inside):
        raise ValueError("no pixel is inside any mask: nothing to reconstruct")
    mask = np.concatenate(inside)
    return Slices(
        values=np.concatenate(values).astype(np.float32),
        mask=mask,
        coverage=mask.astype(np.float32),
        shapes=np.array(shapes),
        offsets=_offsets(np.array(shapes)),
        frames=np.stack(frames),
        spacings=np.stack([row[0] for row in meta]),
        thicknesses=np.array([row[1] for row in meta], dtype=np.float64),
        times=np.array([row[2] for row in meta], dtype=np.float64),
        stack_index=np.array([row[3] for row in meta]),
        slice_index=np.array([row[4] for row in meta]),
        stack_names=tuple(stack.name for stack in stacks),
        drawn=None if drawn is None else np.array([drawn[row[3]] for row in meta], dtype=bool),
    )


def _bounding_box(view: Bool[np.ndarray, "columns rows"]) -> tuple[slice, slice]:
    """Smallest rectangle that holds every True."""
    columns, rows = (np.flatnonzero(view.any(axis=axis)) for axis in (1, 0))
    return slice(int(columns[0]), int(columns[-1]) + 1), slice(int(rows[0]), int(rows[-1]) + 1)
