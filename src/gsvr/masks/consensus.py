"""Which pixels to use: masks for every stack, and the brain mask that all slices agree on.

Masks drawn on moving slices crop the anatomy here and there, and often only one stack has one. So a drawn mask is a
vote, not a verdict: once the slices are roughly in place, the share of slices that call a point of the volume
anatomy decides, and the answer is projected back on every slice with a margin.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from gsvr import compiled
from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.model.fields import Lattice, lattice_covering
from gsvr.model.geometry import transform_points
from gsvr.model.morphology import distance_to, largest_part, within
from gsvr.model.point_spread import ProfileName
from gsvr.model.slices import Slices, Stack
from gsvr.model.volume import Volume
from gsvr.operators.acquisition import AcquisitionOperator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskOptions:
    """Margins, in mm.

    Attributes
    ----------
    margin
        Pixels this far outside the mask are used as well, since masks tend to crop the brain.
    reach
        How far from its mask a slice is kept at hand for the mask to grow into once motion is known.
    borrowed
        Extra margin where a stack has no mask of its own and borrows another's, before motion is known.
    spacing
        Resolution of the vote.
    """

    margin: float = 2.5
    reach: float = 10.0
    borrowed: float = 6.0
    spacing: float = 2.0


@dataclass(frozen=True)
class StackMasks:
    """First masks of all stacks.

    Attributes
    ----------
    masks
        Pixels to start with.
    fields_of_view
        Pixels to keep at hand.
    drawn
        Whether the mask was drawn on this stack.
    """

    masks: list[np.ndarray]
    fields_of_view: list[np.ndarray]
    drawn: list[bool]


def first_masks(stacks: list[Stack], options: MaskOptions | None = None) -> StackMasks:
    """Masks to start with: drawn ones, else those of other stacks carried over, else the foreground.

    Raises
    ------
    InputError
        If a stack does not overlap the masks of the others.
    """
    options = options or MaskOptions()
    drawn = [stack.mask is not None for stack in stacks]
    if not any(drawn):
        logger.warning("no masks given: using the foreground of every stack")
        masks = [foreground(stack) for stack in stacks]
        return StackMasks(masks, _fields_of_view(stacks, masks, options.reach), drawn)
    masks = []
    for stack in stacks:
        if stack.mask is not None:
            masks.append(stack.mask)
            continue
        mask = _borrowed_mask(stack, [other for other in stacks if other.mask is not None], options.borrowed)
        if not mask.any():
            raise InputError(
                f"{stack.name} does not overlap the masks of the other stacks: give it a mask of its own, "
                "or leave it out"
            )
        logger.warning("%s has no mask: borrowing those of the other stacks, %g mm wider", stack.name, options.borrowed)
        masks.append(mask)
    return StackMasks(masks, _fields_of_view(stacks, masks, options.reach), drawn)


def foreground(stack: Stack) -> Bool[np.ndarray, "columns rows slices"]:
    """Pixels that show anything: the non-zero ones where the background is zero, else those above a threshold.

    The threshold is Otsu's on the logarithm of smoothed intensities; the largest connected part counts, holes filled.

    Raises
    ------
    InputError
        If no pixel is above zero.
    """
    if not stack.data.max() > 0:
        raise InputError(f"{stack.name} has no positive intensities: give it a mask, or leave it out")
    if (stack.data == 0).mean() > 0.2:
        shown = stack.data != 0
        # closing takes the world beyond the image for background: what was shown there stays
        mask = ndimage.binary_closing(shown, iterations=2) | shown
    else:
        level = np.log(ndimage.gaussian_filter(np.maximum(stack.data, 0), (2, 2, 0)) + 1e-3 * stack.data.max())
        mask = level > _otsu(level)
    if not mask.any():
        raise InputError(f"{stack.name} has no foreground: give it a mask, or leave it out")
    return largest_part(np.asarray(mask, dtype=bool))


def _otsu(values: np.ndarray) -> float:
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    mean_below = np.cumsum(counts * centres) / np.maximum(below, 1)
    mean_above = ((counts * centres).sum() - np.cumsum(counts * centres)) / np.maximum(above, 1)
    return float(centres[np.argmax(below * above * (mean_below - mean_above) ** 2)])


def _fields_of_view(stacks: list[Stack], masks: list[np.ndarray], reach: float) -> list[np.ndarray]:
    """Pixels within `reach` mm of each mask, in three dimensions."""
    return parallel_map(
        lambda number: within(masks[number], reach, stacks[number].spacing.tolist()), range(len(stacks))
    )


def _borrowed_mask(stack: Stack, others: list[Stack], extra: float) -> Bool[np.ndarray, "columns rows slices"]:
    """Union of the masks of other stacks, carried through the world and widened."""
    index = np.indices(stack.data.shape).reshape(3, -1).T
    world = index @ stack.affine[:3, :3].T + stack.affine[:3, 3]
    nearest = np.full(len(index), np.inf)
    for other in others:
        outside = distance_to(np.asarray(other.mask), other.spacing.tolist())
        at = transform_points(np.linalg.inv(other.affine), world)
        distance = ndimage.map_coordinates(outside, at.T, order=1, mode="constant", cval=np.inf)
        nearest = np.minimum(nearest, np.where(np.isfinite(distance), distance, np.inf))
    return (nearest <= extra).reshape(stack.data.shape)


def agreed_mask(
    slices: Slices,
    votes: Bool[np.ndarray, " p"],
    poses: Float[np.ndarray, "n 4 4"],
    options: MaskOptions | None = None,
    profile: ProfileName = "slab",
    backend: str = "cpu",
) -> Volume:
    """Brain mask in volume world: where at least half of the slices that see a point call it anatomy.

    Parameters
    ----------
    slices
        All pixels at hand; only slices with `Slices.drawn` vote, or all if there are none.
    votes
        Each pixel's opinion: the masks as drawn.
    profile, backend
        How a vote spreads from its slice, see `gsvr.operators.acquisition.AcquisitionOperator`.

    Returns
    -------
    Volume
        The share of votes as data, and the mask: its largest connected part above one half (of the largest share
        where slices agree nowhere that well), holes filled.
    """
    options = options or MaskOptions()
    drawn = np.ones(slices.n_slices, bool) if slices.drawn is None or not slices.drawn.any() else slices.drawn
    # half the resolution is plenty for a mask, and a quarter of the work
    slices = slices.with_mask(votes).binned(2)
    heard = slices.per_pixel(drawn)
    yes = slices.mask & heard
    lattice = lattice_covering(
        slices.pixel_positions(poses, yes), options.spacing, options.spacing, 2 * options.spacing
    )
    operator = AcquisitionOperator(lattice, slices, poses, profile=profile, backend=backend)
    in_favour = operator.adjoint(yes.astype(np.float32))
    heard_in_all = operator.adjoint(heard.astype(np.float32))
    return mask_from_votes(in_favour, heard_in_all, lattice)


def mask_from_votes(
    in_favour: Float[np.ndarray, "nx ny nz"], heard_in_all: Float[np.ndarray, "nx ny nz"], lattice: Lattice
) -> Volume:
    """Share of the votes at the sites of a lattice, and the mask that follows; see `agreed_mask`."""
    share = in_favour / np.maximum(heard_in_all, 0.02 * float(heard_in_all.max()))
    largest = float(share.max())
    mask = largest_part(share > (0.5 if largest > 0.5 else 0.5 * largest))
    return Volume(share.astype(np.float32), lattice.affine, mask)


def project_mask(
    mask: Volume, slices: Slices, poses: Float[np.ndarray, "n 4 4"], margin: float
) -> Bool[np.ndarray, " p"]:
    """Pixels of every slice that lie within `margin` mm of a mask in volume world."""
    inside = np.pad(np.asarray(mask.mask), 1)
    outer, inner = parallel_map(lambda part: distance_to(part, mask.spacing.tolist()), (inside, ~inside))
    distance = outer - inner
    far = float(distance.max()) + margin
    corners, steps = slices.pixel_grid(np.linalg.inv(mask.affine) @ poses)
    samples = np.empty(int(slices.offsets[-1]))
    compiled.run(
        "sample_at_pixels", slices.n_slices, slices.shapes, slices.offsets, corners + 1, steps, distance,
        *distance.shape, far, samples,
    )  # fmt: skip
    return samples <= margin
