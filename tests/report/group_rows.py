"""Rows of a study: good, bad and missing, some from a reconstruction."""

from __future__ import annotations

from dataclasses import replace

from gsvr.report.group_page import GroupRow, group_row
from tests.report.examinations import small_examination


def four_rows() -> list[GroupRow]:
    """Names and reasons that a page must not take for markup."""
    examination = small_examination()
    evidence = {"predicted_ncc": 0.91, "agreeing": 0.875}
    verdict = {"grade": "good", "reasons": ["<b>all</b> well"], "advice": [], "evidence": evidence}
    record = {**examination.record, "verdict": verdict, "wall_seconds": 12.0, "versions": {"gsvr": "0.9"}}
    good = group_row("01", "a", replace(examination, record=record), "sub-01_ses-a.html")
    return [
        good,
        GroupRow("02", "", "none", ["one stack cannot be corrected for motion\tgive two"]),
        replace(good, subject="03", session="", grade="doubtful", displacement=20.0, correlation=0.8, report=""),
        replace(good, subject="10", session="", grade="failed", displacement=3.0, correlation=0.5, n_doubted=30),
    ]
