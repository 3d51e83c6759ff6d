"""Results as Markdown tables: ``python -m benchmarks.tables [benchmarks/results/core.json]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.methods import Method

_RESULTS = Path(__file__).parent / "results"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' + '---:|' * (len(header) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def number(value: Any, digits: int) -> str:
    """A number with so many digits after the point, or a dash for none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def core_tables(record: dict[str, Any]) -> str:
    """Tables of what ``benchmarks.core`` measured."""
    parts = [_simulated_table(record["simulated"])] if "simulated" in record else []
    if "real" in record:
        parts.append(_real_table(record["real"]))
        parts.append(_leave_one_out_table(record["real"]["fetal-mial-sub-01"]["leave_one_stack_out"]))
    if "cold_start" in record:
        cold = record["cold_start"]
        parts.append(
            f"First-ever run longer than a warm one: {cold['longer_wall_seconds']:.1f} s wall, "
            f"{cold['longer_cpu_seconds']:.1f} s CPU."
        )
    return "\n\n".join(parts)


def _simulated_table(simulated: dict[str, Any]) -> str:
    header = ("acquisition", "PSNR (dB)", "SSIM", "NCC", "PSNR, SSIM of brain alone")
    header += ("pose error median / p90 / mean (mm)", "CPU s", "wall s", "MB")
    rows = []
    for name, entry in simulated.items():
        for method, row in entry["rows"].items():
            poses = [number(row.get(f"pose_{key}"), 2) for key in ("median", "p90", "mean")]
            rows.append(
                (
                    f"{name}: {method}",
                    number(row["psnr"], 2),
                    number(row["ssim"], 4),
                    number(row["ncc"], 4),
                    f"{number(row['psnr_brain'], 2)}, {number(row['ssim_brain'], 4)}",
                    " / ".join(poses) if "pose_median" in row else "-",
                    number(row["cpu_seconds"], 1),
                    number(row["wall_seconds"], 1),
                    number(row["peak_megabytes"], 0),
                )
            )
    return markdown_table(header, rows)


def _real_table(real: dict[str, Any]) -> str:
    header = ("examination", "stacks", "slices", "weighed down", "pixels", "CPU s", "wall s", "MB")
    rows = [
        (
            name,
            *(number(entry[key], 0) for key in ("stacks", "slices", "slices_weighed_down", "pixels")),
            *(number(entry[key], 1) for key in ("cpu_seconds", "wall_seconds")),
            number(entry["peak_megabytes"], 0),
        )
        for name, entry in real.items()
        if name != "measured"
    ]
    return markdown_table(header, rows)


def _leave_one_out_table(scores: dict[str, Any]) -> str:
    header = ("stack left out of fetal-mial-sub-01", "NCC", "PSNR (dB)", "median NCC of a slice")
    rows = [
        (name, number(row["ncc"], 4), number(row["psnr"], 2), number(row["median_slice_ncc"], 4))
        for name, row in [*scores["stacks"].items(), ("mean", scores["mean"])]
    ]
    return markdown_table(header, rows)


def comparison_tables(rows: Sequence[Mapping[str, Any]], methods: Mapping[str, Method]) -> str:
    """A table for each level of motion: methods by subjects, means over seeds."""
    header = (
        "subject: method",
        "seeds",
        "PSNR (dB)",
        "SSIM",
        "NCC",
        "pose error median / p90 / mean (mm)",
        "CPU s",
        "MB",
    )
    parts = []
    for motion in dict.fromkeys(row["motion"] for row in rows):
        lines = []
        for subject in dict.fromkeys(row["subject"] for row in rows if row["motion"] == motion):
            for name in methods:
                group = [
                    row for row in rows if (row["motion"], row["subject"], row["method"]) == (motion, subject, name)
                ]
                if group:
                    lines.append(_comparison_line(f"{subject}: {name}", group))
        parts.append(f"### {motion} motion\n\n{markdown_table(header, lines)}")
    return "\n\n".join(parts)


def _comparison_line(title: str, group: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    def mean(key: str) -> float:
        return sum(row[key] for row in group) / len(group)

    poses = " / ".join(number(mean(f"pose_{key}"), 2) for key in ("median", "p90", "mean"))
    scores = (number(mean(key), digits) for key, digits in (("psnr", 2), ("ssim", 4), ("ncc", 4)))
    costs = (number(mean("cpu_seconds"), 1), number(mean("peak_megabytes"), 0))
    return (title, str(len(group)), *scores, poses, *costs)


def main() -> None:
    """Print the tables of a result file."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else _RESULTS / "core.json"
    print(core_tables(json.loads(path.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
