"""Plots of what `benchmarks.speed` measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

_COLOURS = ("#1f6fb2", "#d2691e", "#3a8f4d", "#8a4f9e")


def slope(x: Any, y: Any) -> float:
    """Exponent of the power law through points, by least squares on logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def draw(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw whatever the record holds; return the pictures written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in (("scaling", _draw_scaling), ("operator", _draw_operator), ("profile", _draw_profile)):
        if name in record and not (name == "scaling" and len(record[name]) < 2):
            written.append(folder / f"speed_{name}.png")
            figure = make(record[name])
            figure.savefig(written[-1], dpi=130)
            pyplot.close(figure)
    return written


def _log_log(
    axes: Any, horizontal: str, vertical: str, x: Any, lines: Iterable[tuple[str, Any]], first: int = 0
) -> None:
    """Lines with their slopes on logarithmic axes."""
    order = np.argsort(x)
    for colour, (name, y) in zip(_COLOURS[first:], lines, strict=False):
        ordered = np.asarray(x, float)[order], np.asarray(y, float)[order]
        axes.plot(*ordered, "o-", color=colour, label=f"{name} (slope {slope(*ordered):.2f})")
    axes.set(xscale="log", yscale="log", xlabel=horizontal, ylabel=vertical)
    axes.grid(True, which="both", linewidth=0.3, alpha=0.6)
    axes.legend(frameon=False, fontsize=8)


def _draw_scaling(rows: list[dict[str, Any]]) -> Any:
    figure, (seconds, memory) = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    pixels = [row["pixels"] for row in rows]
    lines = [(name, [row[f"{name.lower()}_seconds"] for row in rows]) for name in ("CPU", "wall")]
    _log_log(seconds, "pixels", "seconds, files to files", pixels, lines)
    _log_log(memory, "pixels", "MB", pixels, [("peak memory", [row["peak_megabytes"] for row in rows])], first=2)
    return figure


def _draw_operator(operator: Mapping[str, Any]) -> Any:
    figure, (gaussians, slices, threads) = pyplot.subplots(1, 3, figsize=(13, 3.8), constrained_layout=True)
    for axes, rows, key, label in (
        (gaussians, operator["stages"], "gaussians", "Gaussians (stages of a reconstruction)"),
        (slices, operator["by_stacks"], "slices", "slices (1.8 mm stage)"),
    ):
        names = ("plan", "predict", "adjoint", "derivatives")
        lines = [(name, [row["cpu_seconds"][name] for row in rows]) for name in names]
        _log_log(axes, label, "CPU seconds an application", [row[key] for row in rows], lines)
    slices.minorticks_off()
    numbers = [row["slices"] for row in operator["by_stacks"]]
    slices.set_xticks(numbers, [str(count) for count in numbers])
    counts = [row["threads"] for row in operator["threads"]]
    for colour, name in zip(_COLOURS[1:], ("predict", "adjoint"), strict=False):
        walls = np.array([row[f"{name}_wall_seconds"] for row in operator["threads"]])
        threads.plot(counts, walls[0] / walls, "o-", color=colour, label=name)
    threads.plot(counts, counts, "--", color="grey", label="ideal")
    threads.set(xlabel="threads (final stage)", ylabel="times faster than one thread", xticks=counts)
    threads.legend(frameon=False, fontsize=8)
    return figure


def _draw_profile(profile: Mapping[str, Any]) -> Any:
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 3.8), constrained_layout=True)
    stages = {
        "reading and masks": profile["before_reconstruction"],
        **{name: stage["cpu_seconds"] for name, stage in profile["stages"].items()},
        "mask and rendering": profile["after_last_iteration"],
    }
    functions = dict(sorted(profile["functions"].items(), key=lambda item: -item[1]))
    for axes, values in zip(panels, (stages, functions), strict=True):
        names = list(values)[::-1]
        axes.barh(names, [values[name] for name in names], color=_COLOURS[0])
        axes.set_xlabel("CPU seconds")
        axes.tick_params(labelsize=8)
    return figure
