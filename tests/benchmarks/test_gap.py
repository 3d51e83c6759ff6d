"""The analysis of what keeps known poses from the truth: its variants change one thing each, and its table."""

from __future__ import annotations

from benchmarks.gap import VARIANTS, gap_table
from gsvr.solver.schedule import SolverOptions


def test_every_variant_but_the_first_changes_something():
    plain = SolverOptions()
    changed = [bool(variant.settings) or variant.change(plain) != plain for variant in VARIANTS]
    assert changed == [False] + [True] * (len(VARIANTS) - 1)
    assert len({variant.description for variant in VARIANTS}) == len(VARIANTS)


def test_the_table_has_a_row_for_every_variant_and_shows_what_is_missing():
    rows = {"phantom": {"as it is": {"psnr": 31.234, "ssim": 0.98765}}}
    lines = gap_table(rows).splitlines()
    assert lines[2] == "| as it is | 31.23 / 0.9877 |"
    assert len(lines) == 2 + len(VARIANTS)
    assert lines[-1].endswith("| - |")
