"""All examinations of a study on one page, to sort and to look through; and the same numbers as a table of text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsvr import __version__
from gsvr.io.atomic import atomic_path
from gsvr.model.volume import Volume
from gsvr.report.examination import Examination, is_doubted, is_used
from gsvr.report.inline_images import InlineImage
from gsvr.report.mosaics import View, middle_planes
from gsvr.report.motion_charts import stack_motions
from gsvr.report.page import templates

# As they need to be looked at; "none" stands for what was not reconstructed.
GRADES = ("none", "failed", "doubtful", "good")
_MISSING = "n/a"


@dataclass(frozen=True)
class GroupRow:
    """One examination.

    Attributes
    ----------
    subject, session
        Labels; the session may be empty.
    grade
        Of the verdict, or ``"none"``.
    reasons
        Those of the verdict with its advice, or why there is no volume.
    report
        Where its own page is, seen from this one; empty: there is none.
    planes
        Through the middle of the brain.
    n_stacks, n_slices, n_doubted
        Stacks; slices that show the brain, and of these that count less than half.
    displacement, turn
        Typical motion within a stack (mm, degrees).
    correlation
        Of pixels with what the other stacks predict.
    agreeing
        Share of slices that lie where the other stacks predict them.
    millilitres
        In the brain mask.
    seconds
        Wall time.
    version
        Of gsvr.
    """

    subject: str
    session: str
    grade: str
    reasons: Sequence[str]
    report: str = ""
    planes: Sequence[View] = ()
    n_stacks: int = 0
    n_slices: int = 0
    n_doubted: int = 0
    displacement: float = math.nan
    turn: float = math.nan
    correlation: float = math.nan
    agreeing: float = math.nan
    millilitres: float = math.nan
    seconds: float = math.nan
    version: str = ""

    @property
    def name(self) -> str:
        """As file names begin."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def thumbnails(self) -> list[tuple[str, InlineImage]]:
        """Name and picture of each plane."""
        return [(view.name, view.images[0][1]) for view in self.planes]


def group_row(subject: str, session: str, examination: Examination, report: str) -> GroupRow:
    """What a reconstruction has to say about itself.

    Parameters
    ----------
    report
        Where its own page is, seen from that of the group; empty: there is none.
    """
    record, volume = examination.record, examination.volume
    verdict = record.get("verdict") or {}
    evidence = verdict.get("evidence") or {}
    used = [pose for pose in examination.slices if is_used(pose)]
    motions = stack_motions(examination)
    return GroupRow(
        subject,
        session,
        str(verdict.get("grade", "none")),
        [*(verdict.get("reasons") or ["its record holds no verdict"]), *(verdict.get("advice") or [])],
        report,
        middle_planes(volume, examination.mask) if examination.mask.any() else (),
        len(record.get("stacks") or []),
        len(used),
        sum(map(is_doubted, used)),
        _typical([motion.displacement for motion in motions]),
        _typical([motion.turn for motion in motions]),
        _number(evidence.get("predicted_ncc")),
        _number(evidence.get("agreeing")),
        _millilitres(volume, examination.mask),
        _number(record.get("wall_seconds")),
        str((record.get("versions") or {}).get("gsvr") or ""),
    )


def _typical(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values else math.nan


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _millilitres(volume: Volume, mask: np.ndarray) -> float:
    return float(mask.sum() * volume.spacing.prod() / 1000)


def write_group_page(path: str | Path, title: str, rows: Sequence[GroupRow]) -> None:
    """Write the page, whole or not at all; what needs a look comes first."""
    ordered = sorted(rows, key=lambda row: (GRADES.index(row.grade), row.name))
    counts = Counter(row.grade for row in rows)
    page = (
        templates()
        .get_template("group.html")
        .render(title=title, rows=ordered, version=__version__, counts={grade: counts[grade] for grade in GRADES[::-1]})
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_group_table(path: str | Path, rows: Sequence[GroupRow]) -> None:
    """Write the numbers as BIDS tables are: separated by tabs, ``n/a`` for what is not known; whole or not at all."""
    columns = {
        "participant_id": [f"sub-{row.subject}" for row in rows],
        "session_id": [f"ses-{row.session}" if row.session else "" for row in rows],
        "verdict": ["not reconstructed" if row.grade == "none" else row.grade for row in rows],
        "stacks": [row.n_stacks or math.nan for row in rows],
        "slices": [row.n_slices or math.nan for row in rows],
        "slices_doubted": [row.n_doubted if row.n_slices else math.nan for row in rows],
        "motion_mm": [row.displacement for row in rows],
        "motion_degrees": [row.turn for row in rows],
        "ncc": [row.correlation for row in rows],
        "slices_agreeing": [row.agreeing for row in rows],
        "brain_ml": [row.millilitres for row in rows],
        "seconds": [row.seconds for row in rows],
        "gsvr_version": [row.version for row in rows],
        "reasons": ["; ".join(row.reasons) for row in rows],
    }
    lines = ["\t".join(columns), *("\t".join(map(_cell, values)) for values in zip(*columns.values(), strict=True))]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: str | int | float) -> str:
    if isinstance(value, str):
        return " ".join(value.split()) or _MISSING
    return f"{value:.4g}" if math.isfinite(value) else _MISSING
