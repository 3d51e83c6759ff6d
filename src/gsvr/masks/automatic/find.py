"""Masks of the brain in a set of stacks of one fetus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from gsvr.errors import InputError
from gsvr.masks.automatic.agreement import AgreementOptions, Opinion, agreed_probability
from gsvr.masks.automatic.candidates import Candidate, CandidateOptions, find_candidates
from gsvr.masks.automatic.choice import ChoiceOptions, choose, doubts
from gsvr.masks.automatic.network import neighbour_step, probabilities, with_neighbours
from gsvr.masks.automatic.regions import depth
from gsvr.masks.automatic.resampling import NETWORK_SPACING, averaging_weights, interpolating_weights, resampled


@dataclass(frozen=True)
class FindOptions:
    """How brains are found."""

    threads: int = 1
    candidates: CandidateOptions = field(default_factory=CandidateOptions)
    choice: ChoiceOptions = field(default_factory=ChoiceOptions)
    agreement: AgreementOptions = field(default_factory=AgreementOptions)
    # the second look, at the part found
    views: tuple[str, ...] = ("as is", "both", "turned")
    margin: float = 16.0  # mm around the part that is looked at again
    threshold: float = 0.5
    smoothing: float = 1.0  # mm: standard deviation of the smoothing of each stack's probability
    rounding: float = 1.5  # mm: of the mask's outline at last


@dataclass(frozen=True)
class FoundMask:
    """The brain in one stack."""

    mask: Bool[np.ndarray, "columns rows slices"]  # on the stack's own grid
    confidence: float  # 0 to 1: the overlap (Dice) the network itself expects of the mask, less what other stacks deny
    doubt: str | None  # one sentence if the mask should not be trusted
    probability: Float32[np.ndarray, "columns rows slices"]  # of brain, by this stack alone; 0 far from it


@dataclass(frozen=True)
class _Seen:
    """A stack as the network sees it: pixels of 2 mm, slices first."""

    triples: Float[np.ndarray, "slices 3 rows columns"]
    probability: Float[np.ndarray, "slices rows columns"]
    affine: Float[np.ndarray, "4 4"]  # (column, row, slice) of the pixels of 2 mm to the world
    spacing: tuple[float, float, float]  # mm along slices, rows, columns
    pixel: tuple[float, float]  # mm: the stack's own columns and rows


def find_brains(
    volumes: Sequence[tuple[Float[np.ndarray, "*_any"], Float[np.ndarray, "4 4"]]],
    names: Sequence[str],
    options: FindOptions = FindOptions(),
    searching: Callable[[int, int], None] | None = None,
) -> list[FoundMask]:
    """The brain in each stack of one fetus.

    Parameters
    ----------
    volumes
        Images (columns, rows, slices) and their affines, voxel to RAS in mm. Images are float32, of any scale.
    names
        What messages call the stacks.
    options
        See :class:`FindOptions`.
    searching
        Told how many steps are done, and how many there are: two looks at every stack.

    Returns
    -------
    list of FoundMask
        One for each stack. The mask covers the space inside the skull, drawn with a margin of 1 to 2 mm.

    Raises
    ------
    InputError
        If a stack is no 3-D image of finite numbers, or onnxruntime is not installed.
    """
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if searching is not None:
            searching(done, 2 * len(volumes))

    seen = []
    for (data, affine), name in zip(volumes, names, strict=True):
        seen.append(_look(data, affine, name, options))
        step()
    parts = [find_candidates(s.probability, s.affine, s.spacing, options.candidates) for s in seen]
    chosen = choose(parts, options.choice)
    opinions = []
    for one, candidates, index in zip(seen, parts, chosen, strict=True):
        opinions.append(None if index is None else _second_look(one, candidates[index], options))
        step()
    levels: list[np.ndarray | None] = []
    drawn: list[Candidate | None] = []
    for opinion in opinions:
        others = [o for o in opinions if o is not None and o is not opinion]
        level, part = (None, None) if opinion is None else _drawn(opinion, others, options)
        levels.append(level)
        drawn.append(part)
    sentences = doubts(parts, drawn, options.choice)
    found = []
    for (data, _), one, opinion, level, part, doubt in zip(
        volumes, seen, opinions, levels, drawn, sentences, strict=True
    ):
        if opinion is None or level is None or part is None:
            found.append(FoundMask(np.zeros(data.shape, bool), 0.0, doubt, np.zeros(data.shape, np.float32)))
            continue
        confidence = part.certainty if doubt is None else min(part.certainty, 0.5)
        mask = _on_own_grid(level, data.shape, one.pixel) > 0
        found.append(FoundMask(mask, confidence, doubt, _on_own_grid(opinion.probability, data.shape, one.pixel)))
    return found


def _look(data: np.ndarray, affine: np.ndarray, name: str, options: FindOptions) -> _Seen:
    """The stack in pixels of 2 mm, and the network's first look at all of it."""
    if data.ndim != 3 or min(data.shape) < 1:
        raise InputError(f"{name}: the brain can be found in 3-D images only, this one is {data.shape}")
    if not np.isfinite(data).all():
        raise InputError(f"{name}: has values that are not finite, so that the brain cannot be found")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not (spacing > 0).all():
        raise InputError(f"{name}: its affine has a column of length 0, so that the brain cannot be found")
    across = averaging_weights(data.shape[0], spacing[0])
    down = averaging_weights(data.shape[1], spacing[1])
    # (columns, rows, slices) to (slices, rows, columns)
    slices = np.ascontiguousarray(resampled(data, across, down).transpose(2, 1, 0))
    slices = normalised(np.clip(slices, 0, None))
    triples = with_neighbours(slices, neighbour_step(spacing[2]))
    coarse = np.eye(4)
    for axis, (n, m) in enumerate([(data.shape[0], slices.shape[2]), (data.shape[1], slices.shape[1])]):
        coarse[axis, axis] = NETWORK_SPACING / spacing[axis]
        coarse[axis, 3] = (n - 1) / 2 - (m - 1) / 2 * coarse[axis, axis]
    found = probabilities(triples, options.threads)
    steps = (float(spacing[2]), NETWORK_SPACING, NETWORK_SPACING)
    return _Seen(triples, found, affine @ coarse, steps, (float(spacing[0]), float(spacing[1])))


def normalised(slices: Float[np.ndarray, "slices rows columns"]) -> Float[np.ndarray, "slices rows columns"]:
    """Divides by twice the mean of what is brighter than the mean, as in training."""
    bright = slices[slices > slices.mean()]
    if bright.size == 0:
        return slices
    return (slices / (2 * float(bright.mean()) + 1e-6)).astype(np.float32)


def _box_around(
    part: Bool[np.ndarray, "slices rows columns"], spacing: tuple[float, float, float], margin: float
) -> tuple[slice, ...]:
    """The part of the stack around a region, rows and columns a multiple of 16 where the picture is large enough."""
    box = []
    for axis, step in enumerate(spacing):
        occupied = np.flatnonzero(part.any(axis=tuple(a for a in range(3) if a != axis)))
        around = int(np.ceil(margin / step))
        n = part.shape[axis]
        low, high = max(int(occupied[0]) - around, 0), min(int(occupied[-1]) + around + 1, n)
        if axis:
            # the network pads to a multiple of 16 pixels: better with picture than with nothing
            wanted = min(-(-(high - low) // 16) * 16, n)
            low = max(min(low - (wanted - (high - low)) // 2, n - wanted), 0)
            high = low + wanted
        box.append(slice(low, high))
    return tuple(box)


def _second_look(seen: _Seen, candidate: Candidate, options: FindOptions) -> Opinion:
    """The brain around a candidate, the mean over mirrored views; 0 far from it."""
    box = _box_around(candidate.part, seen.spacing, options.margin)
    again = probabilities(seen.triples[box[0], :, box[1], box[2]], options.threads, options.views)
    probability = np.zeros_like(seen.probability)
    probability[box] = ndimage.gaussian_filter(again, [options.smoothing / s for s in seen.spacing], mode="nearest")
    part = np.zeros_like(candidate.part)
    part[box] = _main_part(probability[box], candidate.part[box], seen.spacing, options)
    return Opinion(probability, part, seen.affine, _centre(part, seen.affine), seen.spacing)


def _main_part(
    probability: np.ndarray, before: np.ndarray, spacing: tuple[float, float, float], options: FindOptions
) -> np.ndarray:
    """The part of ``probability`` that overlaps most with the part found before."""
    parts = find_candidates(probability, np.eye(4), spacing, options.candidates)
    overlaps = [int((p.part & before).sum()) for p in parts]
    return parts[int(np.argmax(overlaps))].part if parts and max(overlaps) > 0 else before


def _centre(part: np.ndarray, affine: np.ndarray) -> np.ndarray:
    middle = np.array(ndimage.center_of_mass(part))[::-1]
    return affine[:3, :3] @ middle + affine[:3, 3]


def _drawn(own: Opinion, others: Sequence[Opinion], options: FindOptions) -> tuple[np.ndarray, Candidate]:
    """Draws the mask of a stack.

    Returns
    -------
    level : float32 (slices, rows, columns)
        Positive inside the mask, on the pixels of 2 mm.
    drawn : Candidate
        The mask; its certainty is the overlap (Dice) that its probabilities promise.
    """
    spacing = own.spacing
    box = _box_around(own.part, spacing, options.margin)
    probability = agreed_probability(own, others, box, options.agreement)
    part = _main_part(probability, own.part[box], spacing, options)
    part = np.stack([np.asarray(ndimage.binary_fill_holes(plane)) for plane in part])
    near = depth(~part, spacing) < 8.0
    expected = 2 * float(probability[part].sum()) / (float(probability[near].sum()) + float(part.sum()) + 1e-6)
    inner = np.where(near, probability, 0) - options.threshold
    inner = np.where(part, np.maximum(inner, 0.02), np.minimum(inner, -0.02))
    # a skull is smooth: what sticks out is none of it
    inner = ndimage.gaussian_filter(inner, [options.rounding / s for s in spacing], mode="nearest")
    level = np.full(own.probability.shape, -0.5, np.float32)
    level[box] = inner
    whole = level > 0
    volume = float(whole.sum()) * float(np.prod(spacing)) / 1000
    return level, Candidate(whole, _centre(whole, own.affine), volume, min(expected, 1.0))


def _on_own_grid(values: np.ndarray, shape: tuple[int, ...], pixel: tuple[float, float]) -> np.ndarray:
    """Values on pixels of 2 mm on the stack's own grid (columns, rows, slices), interpolated; ``pixel`` is in mm."""
    across, down = (interpolating_weights(n, spacing) for n, spacing in zip(shape, pixel, strict=False))
    return resampled(values.transpose(2, 1, 0), across, down)
