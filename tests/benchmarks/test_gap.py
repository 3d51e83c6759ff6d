"""The analysis of what keeps known poses from the truth: its variants change one thing each."""

from __future__ import annotations

from benchmarks.gap import VARIANTS
from gsvr.solver.schedule import SolverOptions


def test_every_variant_but_the_first_changes_something():
    plain = SolverOptions()
    changed = [bool(variant.settings) or variant.change(plain) != plain for variant in VARIANTS]
    assert changed == [False] + [True] * (len(VARIANTS) - 1)
    assert len({variant.description for variant in VARIANTS}) == len(VARIANTS)
