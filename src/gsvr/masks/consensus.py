"""The brain mask that all slices agree on.

Masks drawn on moving slices crop the anatomy here and there, and often only one stack has one. So a drawn mask is a
vote, not a verdict: once the slices are roughly in place, the share of slices that call a point of the volume
anatomy decides, and the answer is projected back on every slice with a margin.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float32

from gsvr import compiled
from gsvr.compiled.threads import parallel_map
from gsvr.masks.options import MaskOptions
from gsvr.model.fields import Lattice, lattice_covering
from gsvr.model.morphology import distance_to, largest_part
from gsvr.model.point_spread import Profile
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.operators.lattice import LatticeOperator

# Probabilities below this make no brain, however many agree.
_SAYS_SOMETHING = 0.1


def consensus_mask(
    slices: Slices,
    votes: Bool[np.ndarray, " p"] | Float32[np.ndarray, " p"],
    poses: Float[np.ndarray, "n 4 4"],
    options: MaskOptions | None = None,
    profile: Profile = "slab",
) -> Volume:
    """Brain mask in volume world: where at least half of the slices that see a point call it anatomy.

    Parameters
    ----------
    slices
        All pixels at hand; only slices with `Slices.drawn` vote, or all if there are none.
    votes
        Each pixel's opinion: the masks as drawn, or a probability between 0 and 1.
    profile
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
    if votes.dtype == bool:
        slices = slices.with_mask(votes).binned(2)
        yes = slices.mask.astype(np.float32)
    else:
        slices = replace(slices, values=votes).with_mask(np.ones(len(votes), bool)).binned(2)
        yes = slices.values
    heard = slices.per_pixel(drawn)
    yes = yes * heard
    lattice = lattice_covering(
        slices.pixel_positions(poses, yes > _SAYS_SOMETHING), options.spacing, options.spacing, 2 * options.spacing
    )
    operator = LatticeOperator(lattice, slices, poses, profile=profile)
    in_favour = operator.adjoint(yes)
    heard_in_all = operator.adjoint(heard.astype(np.float32))
    return mask_from_votes(in_favour, heard_in_all, lattice)


def mask_from_votes(
    in_favour: Float[np.ndarray, "nx ny nz"], heard_in_all: Float[np.ndarray, "nx ny nz"], lattice: Lattice
) -> Volume:
    """Share of the votes at the sites of a lattice, and the mask that follows; see `consensus_mask`."""
    share = in_favour / np.maximum(heard_in_all, 0.02 * float(heard_in_all.max()))
    largest = float(share.max())
    mask = largest_part(share > (0.5 if largest > 0.5 else 0.5 * largest))
    return Volume(share.astype(np.float32), lattice.affine, mask)


def project_mask(
    mask: Volume, slices: Slices, poses: Float[np.ndarray, "n 4 4"], margin: float
) -> Bool[np.ndarray, " p"]:
    """Pixels of every slice that lie within `margin` mm of a mask in volume world; less than zero: so deep in it."""
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
