"""How the residual fell, stage by stage, and how long each stage took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from gsvr.report.motion_charts import HEIGHT, WIDTH, corners, round_values

# Room (pixels) for labels to the left and below, and at the other sides.
_LEFT, _BELOW, _RIGHT, _ABOVE = 40, 24, 8, 8


@dataclass(frozen=True)
class StageRow:
    """One stage.

    Attributes
    ----------
    name
        As in the record.
    iterations
        How many.
    seconds
        Wall time.
    residual
        In the end, percent of bright tissue.
    points
        Corners of its line, as SVG takes them.
    """

    name: str
    iterations: int
    seconds: float
    residual: float
    points: str


@dataclass(frozen=True)
class Convergence:
    """All stages.

    Attributes
    ----------
    stages
        In order.
    boundaries
        Where stages end.
    ticks_x, ticks_y
        Places and labels: seconds, percent.
    """

    stages: list[StageRow]
    boundaries: list[float]
    ticks_x: list[tuple[float, str]]
    ticks_y: list[tuple[float, str]]


def convergence(record: Mapping[str, Any]) -> Convergence | None:
    """Of the iterations that a record tells of; None if it tells of none."""
    iterations = [entry for entry in record.get("iterations") or [] if entry.get("residual") is not None]
    if not iterations:
        return None
    seconds = np.array([float(entry["seconds"]) for entry in iterations])
    percent = np.array([100 * float(entry["residual"]) for entry in iterations])
    end, top = max(float(seconds[-1]), 1e-3), max(1.05 * float(percent.max()), 1e-3)
    x = _LEFT + seconds / end * (WIDTH - _LEFT - _RIGHT)
    y = HEIGHT - _BELOW - percent / top * (HEIGHT - _BELOW - _ABOVE)
    stages, before = [], 0.0
    for name, group in groupby(range(len(iterations)), key=lambda number: str(iterations[number]["stage"])):
        numbers = np.array(list(group))
        last = int(numbers[-1])
        points = " ".join(corners(x[numbers], y[numbers]))
        stages.append(StageRow(name, len(numbers), float(seconds[last]) - before, float(percent[last]), points))
        before = float(seconds[last])
    ends = np.cumsum([stage.iterations for stage in stages]) - 1
    across, up = round_values(0.0, end), round_values(0.0, top)
    return Convergence(
        stages,
        [float(x[number]) for number in ends[:-1]],
        [(float(_LEFT + value / end * (WIDTH - _LEFT - _RIGHT)), f"{value:g}") for value in across],
        [(float(HEIGHT - _BELOW - value / top * (HEIGHT - _BELOW - _ABOVE)), f"{value:g}") for value in up],
    )
