"""What became of every stack, and which of them is worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gsvr.report.examination import Examination, is_used
from gsvr.report.motion_charts import StackMotion
from gsvr.report.slice_gallery import SliceCard, slice_plane

# Share of its slices that are doubted from which on a stack stands out; from which on it disagrees as a whole.
_NOTABLE, _MOST = 0.15, 0.5


@dataclass(frozen=True)
class StackRow:
    """One stack.

    Attributes
    ----------
    name
        As in the record.
    geometry
        Pixel spacing, thickness and gap, in words.
    plane
        As acquired; empty: not known.
    n_slices, n_used, n_doubted
        In all, that show the brain, and of these that count less than half.
    displacement, turn
        Typical motion (mm, degrees); NaN where nothing is used.
    correlation
        Of all used pixels with their prediction; NaN: not known.
    agreeing
        Share of its slices that lie where the other stacks predict them, from the verdict; NaN: not known.
    predicted
        Correlation of its pixels with what the other stacks predict of them, from the verdict; NaN: not known.
    mask
        Where its mask comes from; empty: not known.
    remarks
        What stands out.
    """

    name: str
    geometry: str
    plane: str
    n_slices: int
    n_used: int
    n_doubted: int
    displacement: float
    turn: float
    correlation: float
    agreeing: float
    predicted: float
    mask: str
    remarks: list[str]

    @property
    def doubted_share(self) -> float:
        """Of the slices that show the brain; one for a stack that has none."""
        return self.n_doubted / self.n_used if self.n_used else 1.0


def stack_rows(examination: Examination, cards: Sequence[SliceCard], motions: Sequence[StackMotion]) -> list[StackRow]:
    """One row a stack, in the order of the record."""
    described = {str(entry.get("name")): entry for entry in examination.record.get("stacks", [])}
    moved = {motion.stack: motion for motion in motions}
    names = list(dict.fromkeys([*described, *examination.stack_names]))
    correlations, planes = _correlations(examination), _planes(examination)
    evidence = ((examination.record.get("verdict") or {}).get("evidence") or {}).get("stacks") or []
    agreeing = {str(entry["name"]): entry["agreeing"] for entry in evidence if entry.get("agreeing") is not None}
    predicted = {str(e["name"]): e["predicted_ncc"] for e in evidence if e.get("predicted_ncc") is not None}
    rows = []
    for name in names:
        slices, entry = examination.of_stack(name), described.get(name, {})
        used = [pose for pose in slices if is_used(pose)]
        doubted = [card for card in cards if card.stack == name and card.doubted]
        motion = moved.get(name)
        rows.append(
            StackRow(
                name,
                _geometry(entry),
                planes.get(name, ""),
                int(entry.get("slices", len(slices))),
                len(used),
                len(doubted),
                float("nan") if motion is None else motion.displacement,
                float("nan") if motion is None else motion.turn,
                correlations.get(name, float("nan")),
                agreeing.get(name, float("nan")),
                predicted.get(name, float("nan")),
                _mask(entry),
                _remarks(used, doubted),
            )
        )
    return rows


def worst_stack(rows: Sequence[StackRow]) -> StackRow | None:
    """The one of which the largest share of slices is doubted; None if there are no stacks, or nothing is doubted."""
    doubted = [row for row in rows if row.n_doubted or not row.n_used]
    return max(doubted, key=lambda row: (row.doubted_share, row.n_doubted), default=None)


def stands_out(row: StackRow) -> bool:
    """Whether so much of a stack is doubted that it is worth a look."""
    return row.doubted_share >= _NOTABLE


def _remarks(used: Sequence[Any], doubted: Sequence[SliceCard]) -> list[str]:
    if not used:
        return ["shows none of the brain"]
    kinds = Counter(card.reasons[0].split(":")[0].split(" (")[0] for card in doubted if card.reasons)
    remarks = [f"{kind} ({number} slice{'s' * (number > 1)})" for kind, number in kinds.most_common(2)]
    if len(doubted) > _MOST * len(used):
        remarks.append("most of its slices disagree with the volume, so consider repeating it or leaving it out")
    return remarks


def _geometry(entry: Mapping[str, Any]) -> str:
    spacing, thickness = entry.get("spacing"), entry.get("thickness")
    if not spacing or not thickness:
        return ""
    words = f"{spacing[0]:.3g} x {spacing[1]:.3g} mm, {thickness:.3g} mm thick"
    gap = spacing[2] - thickness
    return words if abs(gap) < 0.01 * thickness else f"{words}, {'gap' if gap > 0 else 'overlap'} {abs(gap):.2g} mm"


def _mask(entry: Mapping[str, Any]) -> str:
    if not entry:
        return ""
    return "drawn" if entry.get("mask_given") else "found" if entry.get("mask_found") else "borrowed"


def _correlations(examination: Examination) -> dict[str, float]:
    acquisition = examination.acquisition
    if acquisition is None:
        return {}
    slices, found = acquisition.slices, {}
    stack_of = slices.per_pixel(slices.stack_index)
    for number, name in enumerate(slices.stack_names):
        used = slices.mask & (stack_of == number)
        a, b = slices.values[used], acquisition.prediction[used]
        if used.sum() > 2 and a.std() > 0 and b.std() > 0:
            found[name] = float(np.corrcoef(a, b)[0, 1])
    return found


def _planes(examination: Examination) -> dict[str, str]:
    if examination.acquisition is None:
        return {}
    slices = examination.acquisition.slices
    firsts = {slices.stack_names[stack]: number for number, stack in reversed(list(enumerate(slices.stack_index)))}
    return {name: slice_plane(slices, number, examination.turn) for name, number in firsts.items()}
