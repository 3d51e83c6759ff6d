from __future__ import annotations

from gsvr.report.convergence import convergence
from gsvr.report.page import report_page
from tests.report.examinations import small_examination


def test_stages_and_their_times():
    found = convergence(small_examination().record)
    assert found is not None
    told = [(stage.name, stage.iterations, stage.seconds, round(stage.residual, 6)) for stage in found.stages]
    assert told == [("stacks", 2, 2.0, 10.0), ("final", 1, 4.0, 5.0)]
    lower, higher = (tuple(map(float, point.split(","))) for point in found.stages[0].points.split())
    assert higher[0] > lower[0]
    assert higher[1] > lower[1]  # less residual is farther down
    assert len(found.boundaries) == 1


def test_records_that_tell_of_none_have_no_chart():
    assert convergence({}) is None
    assert convergence({"iterations": [{"stage": "a", "residual": None, "seconds": 1.0}]}) is None
    assert "Residual over time" in report_page(small_examination())
