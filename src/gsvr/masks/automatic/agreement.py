"""What the other stacks say of each pixel: their probabilities, laid over a stack where the brain lies in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from gsvr.masks.automatic.regions import depth
from gsvr.model.morphology import bounding_box


@dataclass(frozen=True)
class AgreementOptions:
    """How much the other stacks count."""

    weight: float = 1.0  # of each other stack that looks alike, against 1 of the stack's own
    unlike: float = 0.7  # overlap (Dice) up to which another stack does not count
    alike: float = 0.9  # overlap from which it counts fully
    ring: float = 8.0  # mm around the brain that tells its edge when stacks are aligned
    steps: tuple[float, ...] = (5.0, 2.0)  # mm
    n_points: int = 500


@dataclass(frozen=True)
class Opinion:
    """The brain in one stack: its probability on pixels of 2 mm, and where these lie."""

    probability: Float[np.ndarray, "slices rows columns"]
    part: Bool[np.ndarray, "slices rows columns"]
    affine: Float[np.ndarray, "4 4"]  # (column, row, slice) to the world
    centre: Float[np.ndarray, " 3"]  # of the part, world, mm
    spacing: tuple[float, float, float]  # mm along slices, rows, columns


def _at(opinion: Opinion, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, " n"]:
    """Probability at points of the world; not a number outside the stack."""
    inverse = np.linalg.inv(opinion.affine)
    index = (inverse[:3, :3] @ points + inverse[:3, 3:])[::-1]
    found = np.empty(points.shape[1], np.float32)
    ndimage.map_coordinates(opinion.probability, index, order=1, output=found)
    last = np.array(opinion.probability.shape)[:, None] - 0.5
    return np.where(np.all((index >= -0.5) & (index <= last), axis=0), found, np.nan)


def _world(opinion: Opinion, index: np.ndarray) -> Float[np.ndarray, "3 n"]:
    """World positions of pixels given as (slice, row, column), (n, 3)."""
    return opinion.affine[:3, :3] @ index[:, ::-1].T + opinion.affine[:3, 3:]


def _inside_and_around(
    one: Opinion, options: AgreementOptions
) -> tuple[Float[np.ndarray, "3 n"], Float[np.ndarray, "3 m"]]:
    """World positions of some pixels of the brain, and of some in a ring around it."""
    used = np.argwhere(one.part)
    box = bounding_box(one.part, np.ceil(options.ring / np.array(one.spacing)).astype(int))
    outside = ~one.part[box]
    around = np.argwhere(outside & (depth(outside, one.spacing) < options.ring)) + [b.start for b in box]
    some = [points[:: max(len(points) // options.n_points, 1)] for points in (used, around)]
    return _world(one, some[0]), _world(one, some[1])


def shift_between(one: Opinion, other: Opinion, options: AgreementOptions) -> Float[np.ndarray, " 3"]:
    """How far the brain has moved from one stack to the other, mm: a climb from where their centres say."""
    within, beyond = _inside_and_around(one, options)
    if beyond.shape[1] == 0:
        return other.centre - one.centre
    points = np.concatenate([within, beyond], axis=1)

    def contrast(shift: np.ndarray) -> float:
        values = _at(other, points + shift[:, None])
        known = np.where(np.isnan(values), 0.5, values)
        return float(known[: within.shape[1]].mean() - known[within.shape[1] :].mean())

    best = max((np.zeros(3), other.centre - one.centre), key=contrast)
    reached = contrast(best)
    for step in options.steps:
        for _ in range(4):
            tried = [(contrast(best + move), best + move) for move in np.vstack([np.eye(3), -np.eye(3)]) * step]
            value, place = max(tried, key=lambda pair: pair[0])
            if value <= reached:
                break
            reached, best = value, place
    return best


def agreed_probability(
    own: Opinion, others: Sequence[Opinion], box: tuple[slice, ...], options: AgreementOptions = AgreementOptions()
) -> Float[np.ndarray, "slices rows columns"]:
    """Probability in ``box`` of a stack, averaged with that of the other stacks where they know and look alike."""
    probability = own.probability[box]
    grid = np.stack(np.meshgrid(*(np.arange(b.start, b.stop) for b in box), indexing="ij"), axis=-1).reshape(-1, 3)
    points = _world(own, grid)
    total, weights = probability.ravel().copy(), np.ones(len(grid), np.float32)
    for other in others:
        values = _at(other, points + shift_between(own, other, options)[:, None])
        known = ~np.isnan(values)
        values = np.where(known, values, 0)
        here = probability.ravel() * known
        overlap = 2 * float(np.minimum(here, values).sum()) / (float(here.sum() + values.sum()) + 1e-6)
        weight = options.weight * float(np.clip((overlap - options.unlike) / (options.alike - options.unlike), 0, 1))
        total += weight * values
        weights += weight * known
    return (total / weights).reshape(probability.shape).astype(np.float32)
