"""Plots of the comparison, into docs/images. They hold numbers, no image data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

from benchmarks.machine import REPOSITORY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.methods import Method

matplotlib.use("Agg")
from matplotlib import pyplot

IMAGES = REPOSITORY / "docs" / "images"
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "figure.dpi": 130,
    "savefig.bbox": "tight",
}
# One colour for a method in every plot.
_COLOURS = {
    "default": "#0b6e99",
    "inr": "#d1603d",
    "paper": "#7a4ea3",
    "published-code": "#c98a1b",
    "fast": "#3a8f5c",
    "uncorrected": "#8a8a8a",
    "known-poses": "#333333",
}
_MOTION_ORDER = ("mild", "moderate", "severe", "uniform", "published")


def draw_plots(rows: Sequence[Mapping[str, Any]], methods: Mapping[str, Method]) -> list[Path]:
    """Draw whatever the rows suffice for; returns the files written."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(_STYLE):
        drawn = [_over_time(rows, methods), _ablations(rows, methods), _motion_levels(rows, methods)]
    return [path for path in drawn if path is not None]


def _over_time(rows: Sequence[Mapping[str, Any]], methods: Mapping[str, Method]) -> Path | None:
    """PSNR and SSIM against CPU seconds, a column for each subject."""
    chosen = [row for row in rows if row["motion"] == "moderate" and row["seed"] == 0]
    subjects = list(dict.fromkeys(row["subject"] for row in chosen if row["method"] == "default"))
    if not subjects:
        return None
    figure, grid = pyplot.subplots(
        2, len(subjects), figsize=(3.6 * len(subjects) + 0.6, 5.6), squeeze=False, sharex="col"
    )
    for column, subject in enumerate(subjects):
        for row in (row for row in chosen if row["subject"] == subject):
            method = methods.get(row["method"])
            if method is None or method.kind == "ablation":
                continue
            for axes, score in zip(grid[:, column], ("psnr", "ssim"), strict=True):
                _curve(axes, row, score, method)
        grid[0, column].set_title(subject)
        grid[1, column].set_xlabel("CPU seconds")
        grid[1, column].set_xscale("log")
        grid[1, column].xaxis.set_major_formatter("{x:g}")
        grid[1, column].set_ylim(bottom=0.6)
    grid[0, 0].set_ylabel("PSNR (dB)")
    grid[1, 0].set_ylabel("SSIM")
    # not every method has been run on every subject
    shown = {label: line for axes in grid[0] for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        [*shown.values()],
        [*shown],
        loc="lower center",
        ncols=min(4, len(shown)),
        frameon=False,
        bbox_to_anchor=(0.5, -0.06),
    )
    figure.suptitle("Quality over time, moderate motion")
    return _save(figure, "bench_quality_over_time.png")


def _curve(axes: Axes, row: Mapping[str, Any], score: str, method: Method) -> None:
    colour = _COLOURS.get(row["method"])
    if method.kind == "limit":
        axes.axhline(row[score], color=colour, linestyle=":", label=method.description)
        return
    points = row["over_time"]
    seconds = [point["cpu_seconds"] for point in points]
    axes.plot(seconds, [point[score] for point in points], ".-", color=colour, label=method.description)


def _ablations(rows: Sequence[Mapping[str, Any]], methods: Mapping[str, Method]) -> Path | None:
    """What is lost, in dB and SSIM, when one part is changed: a bar for each subject."""
    chosen = {(row["subject"], row["method"]): row for row in rows if row["motion"] == "moderate" and row["seed"] == 0}
    names = [name for name, method in methods.items() if method.kind == "ablation"]
    subjects = [
        subject
        for subject, method in chosen
        if method == "default" and any((subject, name) in chosen for name in names)
    ]
    if not subjects:
        return None
    figure, grid = pyplot.subplots(1, 2, figsize=(10.5, 0.42 * len(names) + 1.4), sharey=True)
    height = 0.8 / len(subjects)
    shades = pyplot.get_cmap("viridis")(np.linspace(0.15, 0.85, len(subjects)))
    for axes, score, label in zip(grid, ("psnr", "ssim"), ("PSNR (dB)", "SSIM"), strict=True):
        for number, subject in enumerate(subjects):
            places = [place for place, name in enumerate(names) if (subject, name) in chosen]
            change = [chosen[subject, names[place]][score] - chosen[subject, "default"][score] for place in places]
            offset = (number - (len(subjects) - 1) / 2) * height
            axes.barh(np.array(places) + offset, change, height, color=shades[number], label=subject)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel(f"change of {label} from the default")
    grid[0].set_yticks(range(len(names)), [methods[name].description for name in names])
    grid[0].invert_yaxis()
    grid[1].legend(frameon=False, loc="upper left")
    figure.suptitle("One part changed, moderate motion")
    return _save(figure, "bench_ablations.png")


def _motion_levels(rows: Sequence[Mapping[str, Any]], methods: Mapping[str, Method]) -> Path | None:
    """PSNR, SSIM and pose error of every method by level of motion; mean over subjects and seeds, points for each."""
    motions = [motion for motion in _MOTION_ORDER if any(row["motion"] == motion for row in rows)]
    names = [name for name, method in methods.items() if method.kind != "ablation"]
    if len(motions) < 2:
        return None
    scores = (("psnr", "PSNR (dB)"), ("ssim", "SSIM"), ("pose_p90", "pose error, 90th percentile (mm)"))
    figure, grid = pyplot.subplots(1, len(scores), figsize=(4.2 * len(scores), 3.6))
    for axes, (score, label) in zip(grid, scores, strict=True):
        for name in names:
            groups = [
                [row[score] for row in rows if row["method"] == name and row["motion"] == motion] for motion in motions
            ]
            if not any(groups) or (score == "pose_p90" and name == "known-poses"):
                continue
            colour = _COLOURS.get(name)
            known = [place for place, group in enumerate(groups) if group]
            axes.plot(known, [np.mean(groups[p]) for p in known], "-", color=colour, label=methods[name].description)
            for place in known:
                axes.plot([place] * len(groups[place]), groups[place], ".", color=colour, alpha=0.5)
        axes.set_xticks(range(len(motions)), motions)
        axes.set_ylabel(label)
        if score == "pose_p90":
            axes.set_yscale("log")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=min(5, len(labels)), frameon=False, bbox_to_anchor=(0.5, -0.1)
    )
    figure.tight_layout()
    return _save(figure, "bench_motion.png")


def _save(figure: Any, name: str) -> Path:
    path = IMAGES / name
    figure.savefig(path)
    pyplot.close(figure)
    return path
