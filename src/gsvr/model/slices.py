"""What the scanner recorded: stacks of slices, and the flat set of slices a solver works on.

No file formats here, and no optimisation. All lengths are mm, all worlds RAS+.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped
from numpy.typing import ArrayLike

from gsvr import compiled
from gsvr.model.morphology import bounding_box
from gsvr.model.notebook import mosaic_html
from gsvr.model.validation import (
    LARGEST_SHEAR,
    as_affine,
    as_mask,
    as_numbers,
    as_positive,
    inside_of,
)

# Where the thickness of slices is known from: the user, the file beside the image, or the distance between slices.
ThicknessSource = Literal["given", "sidecar", "spacing"]

# Name of a stack, and the number of a slice in it.
SliceKey = tuple[str, int]


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
        Acquisition time of each slice; only the order matters. Default: `interleaved_times`.
    thickness_source
        Where the thickness is known from.

    Raises
    ------
    ValueError
        If an array has the wrong shape or type, or is not finite, or the in-plane axes are not perpendicular.
    """

    name: str
    data: Float32[np.ndarray, "columns rows slices"]
    affine: Float[np.ndarray, "4 4"]
    thickness: float
    mask: Bool[np.ndarray, "columns rows slices"] | None = None
    slice_times: Float[np.ndarray, " slices"] = None  # pyright: ignore[reportAssignmentType]
    thickness_source: ThicknessSource = "given"

    def __post_init__(self) -> None:
        data = as_numbers(f"{self.name}: the image of a stack", self.data, (None, None, None), np.float32)
        affine = as_affine(f"{self.name}: the affine", self.affine)
        axis_u, axis_v = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (0, 1))
        if abs(axis_u @ axis_v) > LARGEST_SHEAR:
            raise ValueError(f"{self.name}: the in-plane axes are not perpendicular: resample the stack without shear")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "thickness", as_positive(f"{self.name}: the slice thickness (mm)", self.thickness))
        if self.mask is not None:
            object.__setattr__(self, "mask", as_mask(f"{self.name}: the mask", self.mask, data.shape))
        times = interleaved_times(data.shape[2]) if self.slice_times is None else self.slice_times
        times = as_numbers(f"{self.name}: the times of the slices", times, data.shape[2:], np.float64)
        object.__setattr__(self, "slice_times", times)

    def __repr__(self) -> str:
        shape, spacing = " x ".join(map(str, self.data.shape)), " x ".join(f"{side:.3g}" for side in self.spacing)
        masked = "" if self.mask is None else ", with a mask"
        return f"Stack({self.name!r}, {shape} pixels of {spacing} mm, {self.thickness:.3g} mm thick{masked})"

    def _repr_html_(self) -> str:
        shown = [round(self.n_slices * share) for share in (0.3, 0.5, 0.7)]
        planes = [self.data[:, ::-1, min(number, self.n_slices - 1)].T for number in shown]
        return mosaic_html(planes, repr(self), f"slices {', '.join(map(str, shown))} of {self.n_slices}, as acquired")

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

    def __post_init__(self) -> None:
        """Shapes and types alone: slices are made anew all the time; who makes the first ones checks the numbers."""
        n, p = np.shape(self.shapes)[0], np.shape(self.values)
        for name, shape, dtype in (
            ("values", p, np.float32), ("coverage", p, np.float32), ("shapes", (n, 2), np.int64),
            ("offsets", (n + 1,), np.int64), ("frames", (n, 4, 4), np.float64), ("spacings", (n, 2), np.float64),
            ("thicknesses", (n,), np.float64), ("times", (n,), np.float64), ("stack_index", (n,), np.int64),
            ("slice_index", (n,), np.int64),
        ):  # fmt: skip
            values = as_numbers(f"{name} of slices", getattr(self, name), shape, dtype, finite=False)
            object.__setattr__(self, name, values)
        object.__setattr__(self, "mask", as_mask("the mask of slices", self.mask, p))
        if p != (self.offsets[-1],):
            raise ValueError(f"slices need {self.offsets[-1]} pixels for their shapes, not {len(self.values)}")
        if not np.array_equal(self.offsets, _offsets(self.shapes)):
            raise ValueError("the offsets of slices must be the sums of their numbers of pixels, from 0 on")

    def __repr__(self) -> str:
        binned = "" if self.binning == 1 else f", averaged {self.binning} x {self.binning}"
        stacks = f"{len(self.stack_names)} stack{'' if len(self.stack_names) == 1 else 's'}"
        pixels = f"{len(self.values):,} pixels, {self.n_pixels:,} of them in use"
        return f"Slices({self.n_slices} of {stacks}, {pixels}{binned})"

    @property
    def keys(self) -> list[SliceKey]:
        """What tells a slice from all others, one a slice."""
        return [
            (self.stack_names[stack], int(number))
            for stack, number in zip(self.stack_index, self.slice_index, strict=True)
        ]

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
        self, poses: Float[np.ndarray, "n 4 4"] | None = None, pixels: Shaped[np.ndarray, " p"] | None = None
    ) -> Float[np.ndarray, "q 3"]:
        """Position (mm) of every pixel or of some: in acquired world, or where `poses` (affine, one a slice) put it."""
        pixels = np.ascontiguousarray(inside_of("the pixels to place", pixels, (int(self.offsets[-1]),)))
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

    def with_mask(self, mask: Shaped[np.ndarray, " p"]) -> Slices:
        """The same slices with another mask."""
        mask = as_mask("the mask of slices", mask, self.values.shape)
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
        if not (isinstance(factor, int | np.integer) and factor >= 1):
            raise ValueError(f"pixels are averaged in blocks of a whole number from 1 on, not {factor}")
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


def slices_from_arrays(
    images: Sequence[ArrayLike] | np.ndarray,
    affines: Sequence[ArrayLike] | np.ndarray,
    thicknesses: float | Sequence[float] | np.ndarray,
    masks: Sequence[ArrayLike | None] | np.ndarray | None = None,
    slice_times: Sequence[ArrayLike | None] | None = None,
    names: Sequence[str] | None = None,
) -> Slices:
    """Slices of images that are already in memory.

    Parameters
    ----------
    images
        Stacks, arrays of (columns, rows, slices), or single slices (columns, rows). Each is a stack of its own.
    affines
        Voxel index -> acquired world (RAS+, mm) of each, 4 x 4; the third axis of a single slice is through-plane.
    thicknesses
        Slice thickness (mm), one for all or one for each image; differs from the spacing where there is a gap.
    masks
        Which pixels to use of each, booleans or zeros and ones; None: all of them.
    slice_times
        Acquisition times of the slices of each; None: see `Stack`.
    names
        For messages and outputs. Default: image-0, image-1, ...

    Raises
    ------
    ValueError
        If the lists have different lengths, an array cannot be used, or no pixel is inside any mask.
    """
    n = len(images)
    lists = {
        "affines": affines,
        "thicknesses": [thicknesses] * n if isinstance(thicknesses, int | float) else thicknesses,
        "masks": [None] * n if masks is None else masks,
        "slice_times": [None] * n if slice_times is None else slice_times,
        "names": [f"image-{number}" for number in range(n)] if names is None else names,
    }
    _check_lengths(lists, n, "images")
    return slices_from_stacks([_stack_of(image, *rest) for image, *rest in zip(images, *lists.values(), strict=True)])


def _stack_of(
    image: ArrayLike, affine: Any, thickness: float, mask: ArrayLike | None, times: ArrayLike | None, name: str
) -> Stack:
    """The stack of an image; a single slice is one of length one."""
    n_axes = np.ndim(image)
    if n_axes not in (2, 3):
        raise ValueError(f"{name} must be a stack (three axes) or a single slice (two axes), not of {n_axes} axes")
    data = as_numbers(name, image, [None] * n_axes, np.float32)
    inside = None if mask is None else as_mask(f"{name}: the mask", mask, data.shape)
    if n_axes == 2:
        data, inside = data[:, :, None], None if inside is None else inside[:, :, None]
    times = interleaved_times(data.shape[2]) if times is None else np.atleast_1d(times)
    return Stack(name, data, affine, thickness, inside, times)


def _check_lengths(lists: dict[str, Any], n: int, of: str) -> None:
    for name, values in lists.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{len(values)} {name} for {n} {of}: give one each")


def slices_from_stacks(
    stacks: Sequence[Stack],
    masks: Sequence[ArrayLike | None] | None = None,
    fields_of_view: Sequence[ArrayLike] | None = None,
    drawn: Sequence[bool] | None = None,
) -> Slices:
    """Cut stacks into slices, each cropped to a rectangle.

    Parameters
    ----------
    stacks
        The acquisition.
    masks
        One a stack, on its grid: the pixels to use. Default: the stacks' own, and all pixels of stacks without.
    fields_of_view
        One a stack, on its grid: each slice is cropped to the bounding box of it, and left out where it is empty.
        Default: the masks.
    drawn
        For each stack, whether its mask was drawn on it (see `Slices.drawn`).

    Raises
    ------
    ValueError
        If there is not one of each for every stack, or no pixel is inside any mask.
    """
    masks = [stack.mask for stack in stacks] if masks is None else masks
    _check_lengths({"masks": masks, "fields_of_view": fields_of_view, "drawn": drawn}, len(stacks), "stacks")
    masks = [inside_of(f"{s.name}: the mask", mask, s.data.shape) for s, mask in zip(stacks, masks, strict=True)]
    views = masks
    if fields_of_view is not None:
        pairs = zip(stacks, fields_of_view, strict=True)
        views = [as_mask(f"{s.name}: the field of view", view, s.data.shape) for s, view in pairs]
    values, inside, shapes, frames, meta = [], [], [], [], []
    for stack_number, (stack, mask, view) in enumerate(zip(stacks, masks, views, strict=True)):
        in_plane = stack.spacing[:2]
        for k in np.flatnonzero(view.any(axis=(0, 1))):
            box = bounding_box(view[:, :, k])
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
