"""How the subject moved while each stack was acquired, drawn as lines over the slices in the order of acquisition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gsvr.io.transforms import SlicePose
from gsvr.model.geometry import invert, parts_about
from gsvr.report.examination import Examination, is_doubted, is_used

WIDTH, HEIGHT = 520, 170
# Room (pixels) for labels to the left and below, and at the other sides.
_LEFT, _BELOW, _RIGHT, _ABOVE = 40, 24, 8, 8
# Half of the least range (mm, degrees) that a chart shows: smaller motion should look small.
_LEAST_RANGE = 1.5
AXES = ("left-right", "back-front", "feet-head")


@dataclass(frozen=True)
class Line:
    """One of three coordinates.

    Attributes
    ----------
    axis
        Which.
    points, band
        Corners of the line and of its uncertainty, as SVG takes them; no band where it is not known.
    """

    axis: str
    points: str
    band: str


@dataclass(frozen=True)
class Mark:
    """A dot with words."""

    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Chart:
    """Three lines over time.

    Attributes
    ----------
    quantity, unit
        What is drawn.
    lines, doubted
        Of the three axes; dots for slices that count less than half.
    ticks_x, ticks_y
        Places and labels.
    """

    quantity: str
    unit: str
    lines: list[Line]
    doubted: list[Mark]
    ticks_x: list[tuple[float, str]]
    ticks_y: list[tuple[float, str]]


@dataclass(frozen=True)
class StackMotion:
    """Motion of one stack.

    Attributes
    ----------
    displacement, turn
        Of the middle of the brain, typical (rms) about its median in the stack (mm, degrees).
    ordered
        Whether the order of acquisition is known; else slices are in the order of space.
    charts
        Shift and rotation.
    """

    stack: str
    displacement: float
    turn: float
    ordered: bool
    charts: list[Chart]


@dataclass(frozen=True)
class _Track:
    stack: str
    ordered: bool
    slices: list[SlicePose]
    places: Float[np.ndarray, " n"]
    shifts: Float[np.ndarray, "n 3"]
    turns: Float[np.ndarray, "n 3"]


def stack_motions(examination: Examination) -> list[StackMotion]:
    """Motion of every stack that shows the brain.

    Shifts are those of the middle of the brain, so that a rotation about it shifts nothing. All charts of a quantity
    show the same range, each about the median of its stack.
    """
    tracks = [_track(name, examination) for name in examination.stack_names]
    tracks = [track for track in tracks if track.slices]
    ranges = [
        max([_LEAST_RANGE, *(float(np.abs(part - np.median(part, axis=0)).max()) for part in parts)])
        for parts in ([track.shifts for track in tracks], [track.turns for track in tracks])
    ]
    return [
        StackMotion(
            track.stack,
            _typical(track.shifts),
            _typical(track.turns),
            track.ordered,
            [
                _chart("shift", "mm", track, track.shifts, "deviation_mm", ranges[0]),
                _chart("rotation", "°", track, track.turns, "deviation_degrees", ranges[1]),
            ],
        )
        for track in tracks
    ]


def _track(name: str, examination: Examination) -> _Track:
    slices = examination.of_stack(name)
    times = [pose.details.get("time") for pose in slices]
    ordered = all(time is not None for time in times)
    order = np.argsort(np.array(times, float), kind="stable") if ordered else np.arange(len(slices))
    places = [place for place, number in enumerate(order) if is_used(slices[number])]
    used = [slices[order[place]] for place in places]
    if not used:
        return _Track(name, ordered, [], np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3)))
    # as seen from the axes of the volume
    poses = np.stack([pose.matrix for pose in used]) @ invert(examination.turn)
    turns, shifts = parts_about(poses, np.tile(examination.centre, (len(poses), 1)))
    return _Track(name, ordered, used, np.array(places, float), shifts, np.rad2deg(turns))


def _typical(parts: Float[np.ndarray, "n 3"]) -> float:
    return float(np.sqrt(np.mean(np.sum((parts - np.median(parts, axis=0)) ** 2, axis=1))))


def _chart(
    quantity: str, unit: str, track: _Track, parts: Float[np.ndarray, "n 3"], deviation: str, reach: float
) -> Chart:
    middle = float(np.median(parts))
    spread = float(np.abs(np.median(parts, axis=0) - middle).max()) + 1.05 * reach
    low, high = middle - spread, middle + spread
    count = float(max(track.places[-1], 1.0))

    def across(places: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return _LEFT + places / count * (WIDTH - _LEFT - _RIGHT)

    def up(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return HEIGHT - _BELOW - np.clip((values - low) / (high - low), 0, 1) * (HEIGHT - _BELOW - _ABOVE)

    # a deviation is that of all three axes together
    widths = np.array([float(pose.details.get(deviation, np.nan)) for pose in track.slices]) / np.sqrt(3)
    x, doubted, lines, marks = across(track.places), [is_doubted(pose) for pose in track.slices], [], []
    for axis, values in zip(AXES, parts.T, strict=True):
        band, y = "", up(values)
        if np.isfinite(widths).all():
            upper, lower = corners(x, up(values + widths)), corners(x, up(values - widths))
            band = " ".join([*upper, *lower[::-1]])
        lines.append(Line(axis, " ".join(corners(x, y)), band))
        marks += [
            Mark(float(x[number]), float(y[number]), f"slice {track.slices[number].slice_index}")
            for number in np.flatnonzero(doubted)
        ]
    orders, heights = round_values(1.0, count + 1), round_values(low, high)
    return Chart(
        quantity,
        unit,
        lines,
        marks,
        [(float(place), f"{order:g}") for place, order in zip(across(orders - 1), orders, strict=True)],
        [(float(place), f"{value:g}") for place, value in zip(up(heights), heights, strict=True)],
    )


def corners(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> list[str]:
    """Points of a line as SVG takes them."""
    return [f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)]


def round_values(low: float, high: float, most: int = 5) -> Float[np.ndarray, " n"]:
    """A few round numbers between two."""
    step = 10.0 ** np.floor(np.log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    return np.round(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step, 6) + 0.0
