"""``make bench`` and ``make bench-full``: methods against each other, subject by subject, and what each part is worth.

Rows are kept in benchmarks/results/compare/ as they are made; a row that is there already is not made again, unless
``--fresh`` is given. Every row is a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.acquisitions import PUBLISHED, acquire
from benchmarks.command import CommandError, run_command
from benchmarks.machine import REPOSITORY
from benchmarks.methods import METHODS
from benchmarks.plots import draw_plots
from benchmarks.subjects import BRAINS, OUTPUT, SUBJECTS, SubjectMissingError, find_subject
from benchmarks.tables import comparison_tables
from gsvr.io.record import write_record

logger = logging.getLogger("benchmarks.compare")  # also when run as a program

RESULTS = REPOSITORY / "benchmarks" / "results" / "compare"
MOTIONS = ("mild", "moderate", "severe", "uniform")  # and the published protocol, to be asked for by name
COMPARED = tuple(name for name, method in METHODS.items() if method.kind != "ablation")
ABLATIONS = tuple(name for name, method in METHODS.items() if method.kind == "ablation")


@dataclass(frozen=True)
class Case:
    """What one row is about."""

    subject: str
    motion: str
    seed: int
    method: str


def planned(full: bool) -> list[Case]:
    """Cases of the short or the full comparison: the most telling ones first."""
    if not full:
        return [Case("phantom", "moderate", 0, method) for method in (*COMPARED, *ABLATIONS)]
    cases = [
        Case(subject, motion, seed, method)
        for seed, motion, subject in itertools.product(range(3), MOTIONS, BRAINS)
        for method in COMPARED
    ]
    return [*cases, *(Case(subject, "moderate", 0, method) for subject in BRAINS for method in ABLATIONS)]


def selected(asked: argparse.Namespace) -> Iterator[Case]:
    """The planned cases, or every combination of what is asked for."""
    if not (asked.subjects or asked.motions or asked.seeds or asked.methods):
        yield from planned(asked.full)
        return
    for subject, motion, seed, method in itertools.product(
        asked.subjects or ["phantom"], asked.motions or ["moderate"], asked.seeds or [0], asked.methods or COMPARED
    ):
        yield Case(subject, motion, seed, method)


def result_file(case: Case) -> Path:
    """Where the rows of a subject and a level of motion are kept."""
    return RESULTS / f"{case.subject}_{case.motion}.json"


def read_rows(path: Path) -> dict[str, Any]:
    """Rows of one file, by seed and method."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def all_rows() -> list[dict[str, Any]]:
    """Every row there is."""
    return [row for path in sorted(RESULTS.glob("*.json")) for row in read_rows(path).values()]


def make_row(case: Case, budget: float | None) -> dict[str, Any]:
    """Run one case.

    Raises
    ------
    SubjectMissingError
        If the subject's files are not at hand.
    CommandError
        If the method fails.
    """
    acquisition = acquire(find_subject(case.subject), case.motion, case.seed)
    output = OUTPUT / "rows" / f"{acquisition.name}_{case.method}.json"
    words = [sys.executable, "-m", "benchmarks.row", case.method, acquisition.folder, output]
    words += [] if budget is None else [budget]
    cost = run_command(words, OUTPUT / "logs" / f"{acquisition.name}_{case.method}.txt")
    row = json.loads(output.read_text(encoding="utf-8"))
    about = {"subject": case.subject, "motion": case.motion, "seed": case.seed, "method": case.method}
    return {**about, **row, "peak_megabytes": cost.peak_megabytes}


def main() -> None:
    """Make what is missing, then show tables and draw plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all subjects, motions and seeds (hours)")
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS))
    parser.add_argument("--motions", nargs="+", choices=(*MOTIONS, PUBLISHED))
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS))
    parser.add_argument("--budget", type=float, help="CPU seconds for one row")
    parser.add_argument("--fresh", action="store_true", help="make rows again that are there already")
    asked = parser.parse_args()
    logging.basicConfig(format="bench: %(message)s")
    logger.setLevel(logging.INFO)
    missing: set[str] = set()
    for case in selected(asked):
        path, key = result_file(case), f"seed {case.seed}, {case.method}"
        if case.subject in missing or (key in read_rows(path) and not asked.fresh):
            continue
        logger.info("%s, %s motion, %s", case.subject, case.motion, key)
        try:
            row = make_row(case, asked.budget)
        except SubjectMissingError as reason:
            missing.add(case.subject)
            logger.warning("%s left out: %s", case.subject, reason)
            continue
        except CommandError as error:
            logger.error("failed: %s", error)
            continue
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_record(path, read_rows(path) | {key: row})
    rows = all_rows()
    print(comparison_tables(rows, METHODS))
    for picture in draw_plots(rows, METHODS):
        logger.info("%s", picture)


if __name__ == "__main__":
    main()
