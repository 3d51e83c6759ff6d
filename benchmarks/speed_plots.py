"""Plots of what `benchmarks.speed` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_COLOURS = ("#1f6fb2", "#d2691e", "#3a8f4d", "#8a4f9e")


def slope(x: Any, y: Any) -> float:
    """Exponent of the power law through points, by least squares on logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def draw(record: dict[str, Any], folder: Path) -> list[Path]:
    """Draw whatever the record holds; return the pictures written."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if len(record.get("scaling", [])) > 1:
        written.append(_draw_scaling(record["scaling"], folder / "speed_scaling.png"))
    if "operator" in record:
        written.append(_draw_operator(record["operator"], folder / "speed_operator.png"))
    if "profile" in record:
        written.append(_draw_profile(record["profile"], folder / "speed_profile.png"))
    return written


def _log_axes(axes: Any, horizontal: str, vertical: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.grid(True, which="both", linewidth=0.3, alpha=0.6)
    axes.legend(frameon=False, fontsize=8)


def _line(axes: Any, x: Any, y: Any, label: str, number: int) -> None:
    order = np.argsort(x)
    x, y = np.asarray(x, dtype=float)[order], np.asarray(y, dtype=float)[order]
    axes.plot(x, y, "o-", color=_COLOURS[number], label=f"{label} (slope {slope(x, y):.2f})")


def _draw_scaling(rows: list[dict[str, Any]], path: Path) -> Path:
    from matplotlib import pyplot

    pixels = [row["pixels"] for row in rows]
    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    _line(time_axes, pixels, [row["cpu_seconds"] for row in rows], "CPU", 0)
    _line(time_axes, pixels, [row["wall_seconds"] for row in rows], "wall", 1)
    _log_axes(time_axes, "pixels", "seconds, files to files")
    _line(memory_axes, pixels, [row["peak_megabytes"] for row in rows], "peak memory", 2)
    _log_axes(memory_axes, "pixels", "MB")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def _draw_operator(operator: dict[str, Any], path: Path) -> Path:
    from matplotlib import pyplot

    names = ("plan", "predict", "adjoint", "derivatives")
    figure, (gaussians, slices, threads) = pyplot.subplots(1, 3, figsize=(13, 3.8), constrained_layout=True)
    for number, name in enumerate(names):
        for axes, rows, key in (
            (gaussians, operator["stages"], "gaussians"),
            (slices, operator["by_stacks"], "slices"),
        ):
            _line(axes, [row[key] for row in rows], [row["cpu_seconds"][name] for row in rows], name, number)
    _log_axes(gaussians, "Gaussians (stages of a reconstruction)", "CPU seconds an application")
    _log_axes(slices, "slices (1.8 mm stage)", "CPU seconds an application")
    slices.minorticks_off()
    numbers = [row["slices"] for row in operator["by_stacks"]]
    slices.set_xticks(numbers, [str(count) for count in numbers])
    counts = [row["threads"] for row in operator["threads"]]
    for number, name in enumerate(("predict", "adjoint")):
        walls = np.array([row[f"{name}_wall_seconds"] for row in operator["threads"]])
        threads.plot(counts, walls[0] / walls, "o-", color=_COLOURS[number + 1], label=name)
    threads.plot(counts, counts, "--", color="grey", label="ideal")
    threads.set_xlabel("threads (final stage)")
    threads.set_ylabel("times faster than one thread")
    threads.set_xticks(counts)
    threads.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def _draw_profile(profile: dict[str, Any], path: Path) -> Path:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 3.8), constrained_layout=True)
    stages = {
        "reading and masks": profile["before_reconstruction"],
        **{name: stage["cpu_seconds"] for name, stage in profile["stages"].items()},
        "mask and rendering": profile["after_last_round"],
    }
    functions = dict(sorted(profile["functions"].items(), key=lambda item: -item[1]))
    for axes, values in zip(panels, (stages, functions), strict=True):
        names = list(values)[::-1]
        axes.barh(names, [values[name] for name in names], color=_COLOURS[0])
        axes.set_xlabel("CPU seconds")
        axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path
