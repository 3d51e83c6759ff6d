"""Which part of each stack is the brain: the one that lies where the brain of the other stacks lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gsvr.masks.automatic.candidates import Candidate

# Of so many stacks, one alone is not to be trusted.
_CONFIRMED_FROM = 3


@dataclass(frozen=True)
class ChoiceOptions:
    """How far a fetus moves between stacks, and what counts as doubtful."""

    reach: float = 40.0  # mm: standard deviation of the way between stacks
    far: float = 60.0  # mm from where the other stacks show the brain: doubtful
    rival: float = 0.45  # part of the brain's probable volume that makes another part its rival
    uncertain: float = 0.75  # mean probability below which a part is no certain brain
    unsure: float = 0.84  # overlap that a mask expects of itself below which it is doubtful
    disagreement: float = 1.7  # ratio of a brain's volume to that in the other stacks, or of these to it
    smallest: float = 15.0  # ml
    largest: float = 900.0  # ml


def _score(candidate: Candidate) -> float:
    return candidate.volume ** (2 / 3) * candidate.certainty**2


def choose(stacks: Sequence[Sequence[Candidate]], options: ChoiceOptions = ChoiceOptions()) -> list[int | None]:
    """Index of the part of each stack that is the brain; None where a stack has no part at all.

    Each part speaks for its place with its probable volume; the place that the parts of all stacks support most is the
    brain's, and every stack gives the part that is best there.
    """
    everything = [(s, c) for s, parts in enumerate(stacks) for c in parts]
    if not everything:
        return [None] * len(stacks)

    def fit(candidate: Candidate, place: np.ndarray) -> float:
        away = float(np.sum((candidate.centre - place) ** 2))
        return _score(candidate) * float(np.exp(-0.5 * away / options.reach**2))

    def support(place: np.ndarray) -> float:
        return sum(max((fit(c, place) for c in parts), default=0.0) for parts in stacks)

    place = max((c.centre for _, c in everything), key=support)
    chosen: list[int | None] = []
    for _ in range(3):
        chosen = [
            max(range(len(parts)), key=lambda i, p=parts: fit(p[i], place) + 1e-9 * _score(p[i])) if parts else None
            for parts in stacks
        ]
        picked = [parts[i] for parts, i in zip(stacks, chosen, strict=True) if i is not None]
        weights = np.array([fit(c, place) for c in picked])
        if weights.sum() <= 0:
            break
        place = np.average([c.centre for c in picked], axis=0, weights=weights)
    return chosen


def doubts(
    stacks: Sequence[Sequence[Candidate]],
    drawn: Sequence[Candidate | None],
    options: ChoiceOptions = ChoiceOptions(),
) -> list[str | None]:
    """One sentence for each stack whose mask should not be trusted.

    Parameters
    ----------
    stacks
        The parts of each stack that may be a brain.
    drawn
        The part that was chosen in each stack, as finally drawn; None where there is none.
    options
        See :class:`ChoiceOptions`.
    """
    present = [c for c in drawn if c is not None]
    sentences: list[str | None] = []
    rivals = [c is not None and bool(_rivals(parts, c, options)) for parts, c in zip(stacks, drawn, strict=True)]
    # where half of the stacks show two, the others show one of two
    twins = 2 * sum(rivals) >= len(rivals)
    for parts, candidate in zip(stacks, drawn, strict=True):
        others = [c for c in present if c is not candidate]
        if candidate is not None and twins and any(rivals) and not _rivals(parts, candidate, options):
            sentences.append("other stacks show two parts that look like a brain (twins?)")
            continue
        sentences.append("no brain was found" if candidate is None else _doubt(parts, candidate, others, options))
    if len(sentences) >= _CONFIRMED_FROM and sentences.count(None) == 1:
        sentences[sentences.index(None)] = "no other stack shows a brain that confirms this one"
    return sentences


def _rivals(parts: Sequence[Candidate], candidate: Candidate, options: ChoiceOptions) -> list[Candidate]:
    # what lies nearer than another head could lie is a part of the same one
    near = 1.6 * (3 / (4 * np.pi) * 1000 * candidate.volume) ** (1 / 3)
    return [
        c
        for c in parts
        if np.linalg.norm(c.centre - candidate.centre) > near
        and c.certainty > options.uncertain
        and c.volume * c.certainty > options.rival * candidate.volume * candidate.certainty
    ]


def _doubt(
    parts: Sequence[Candidate], candidate: Candidate, others: Sequence[Candidate], options: ChoiceOptions
) -> str | None:
    place = np.median([c.centre for c in others], axis=0) if others else candidate.centre
    away = float(np.linalg.norm(candidate.centre - place))
    typical = float(np.median([c.volume for c in others])) if others else candidate.volume
    if candidate.certainty < options.unsure:
        return "what looks most like a brain looks little like one"
    if _rivals(parts, candidate, options):
        return "two parts of the picture look like a brain (twins?)"
    if away > options.far:
        return f"the brain lies {away:.0f} mm from where the other stacks show it"
    if not options.smallest < candidate.volume < options.largest:
        return f"what looks like the brain has {candidate.volume:.0f} ml"
    if len(others) >= 2 and not 1 / options.disagreement < candidate.volume / typical < options.disagreement:
        return f"the brain has {candidate.volume:.0f} ml here and {typical:.0f} ml in the other stacks"
    return None
