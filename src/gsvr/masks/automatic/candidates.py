"""Parts of a stack that may be a brain: connected in 3-D, after thin bridges have been cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from gsvr.masks.automatic.regions import connected_parts, depth, nearest_part


@dataclass(frozen=True)
class CandidateOptions:
    """What counts as a part."""

    threshold: float = 0.5
    opening: float = 5.0  # mm: what is thinner than twice this is no brain of its own
    regrowth: float = 3.0  # mm beyond the opening that a part may grow again
    kept: int = 3
    smallest: float = 3.0  # ml


@dataclass(frozen=True)
class Candidate:
    """One part of a stack that may be a brain."""

    part: Bool[np.ndarray, "slices rows columns"]
    centre: Float[np.ndarray, " 3"]  # world, mm (RAS)
    volume: float  # ml
    certainty: float  # mean probability inside


def find_candidates(
    probability: Float[np.ndarray, "slices rows columns"],
    affine: Float[np.ndarray, "4 4"],
    spacing: tuple[float, float, float],
    options: CandidateOptions = CandidateOptions(),
) -> list[Candidate]:
    """Parts of ``probability`` that may be a brain, the most probable volume first.

    ``spacing`` is in mm along slices, rows and columns; ``affine`` takes (column, row, slice) of ``probability`` to the
    world.
    """
    likely = ndimage.gaussian_filter(probability, (0, 0.6, 0.6)) > options.threshold
    voxel = float(np.prod(spacing)) / 1000
    if likely.sum() * voxel < options.smallest:
        return []
    box = _box(likely)
    whole, likely, probability = likely, likely[box], probability[box]
    # the stack's edges are no edge of the brain: distances are measured as if the picture went on
    inner = depth(np.pad(whole, 3, mode="edge")[_grown(box, 6)], spacing)[3:-3, 3:-3, 3:-3]
    cores, n_cores = connected_parts(inner > options.opening)
    if n_cores == 0:
        cores, n_cores = connected_parts(likely)
    weight = np.bincount(cores.ravel(), weights=probability.ravel(), minlength=n_cores + 1)[1:]
    order = np.argsort(weight)[::-1][: options.kept] + 1
    # every pixel goes to the core nearest to it
    away, nearest = nearest_part(cores, spacing)
    owner = np.where(likely & (away < options.opening + options.regrowth), nearest, 0)
    found = []
    for core in order:
        volume = float((owner == core).sum()) * voxel
        if volume < options.smallest:
            continue
        part = np.zeros(whole.shape, bool)
        part[box] = owner == core
        middle = np.array(ndimage.center_of_mass(part))[::-1]
        centre = affine[:3, :3] @ middle + affine[:3, 3]
        found.append(Candidate(part, centre, volume, float(probability[owner == core].mean())))
    return found


def _box(inside: Bool[np.ndarray, "slices rows columns"]) -> tuple[slice, ...]:
    """The part of the array that holds all of ``inside``, which is not empty."""
    used = [np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(int(u[0]), int(u[-1]) + 1) for u in used)


def _grown(box: tuple[slice, ...], by: int) -> tuple[slice, ...]:
    """``box`` in an array padded by half of ``by``, with that padding around it."""
    return tuple(slice(b.start, b.stop + by) for b in box)
