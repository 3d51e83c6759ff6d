"""Results as Markdown tables: ``python -m benchmarks.tables [benchmarks/results/core.json]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_RESULTS = Path(__file__).parent / "results"
_QUALITY = {"PSNR (dB)": "{psnr:.2f}", "SSIM": "{ssim:.4f}", "NCC": "{ncc:.4f}"}
_POSES = {"pose error median / p90 / mean (mm)": "{pose_median:.2f} / {pose_p90:.2f} / {pose_mean:.2f}"}
_CORE = {
    "pixels": "{pixels:,}",
    "slices": "{slices:,}",
    "weighed down": "{slices_weighed_down:,}",
    **_QUALITY,
    "PSNR, SSIM of brain alone": "{psnr_brain:.2f}, {ssim_brain:.4f}",
    **_POSES,
    "CPU s": "{cpu_seconds:.1f}",
    "wall s": "{wall_seconds:.1f}",
    "MB": "{peak_megabytes:,.0f}",
}
_LEFT_OUT = {"NCC": "{ncc:.4f}", "PSNR (dB)": "{psnr:.2f}"}
_COMPARED = {"seeds": "{seeds}", **_QUALITY, **_POSES, "CPU s": "{cpu_seconds:,.1f}", "MB": "{peak_megabytes:,.0f}"}


def table(first: str, columns: Mapping[str, str], rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """A table of named rows.

    Parameters
    ----------
    first
        Title of the first column, which holds the names.
    columns
        Title of each other column, and how its cells are written (`str.format` with the row's entries). A dash stands
        where an entry is missing.
    """
    lines = [f"| {' | '.join([first, *columns])} |", f"|---|{'---:|' * len(columns)}"]
    lines += [f"| {' | '.join([name, *(_cell(form, row) for form in columns.values())])} |" for name, row in rows]
    return "\n".join(lines)


def _cell(form: str, row: Mapping[str, Any]) -> str:
    try:
        return form.format_map(row)
    except (KeyError, TypeError):  # missing, or None
        return "-"


def core_tables(record: Mapping[str, Any]) -> str:
    """Tables of what ``benchmarks.core`` measured."""
    rows = [(f"{case}: {name}", row) for case, entry in record.items() for name, row in entry["rows"].items()]
    parts = [table("examination: preset", _CORE, [(name, row) for name, row in rows if "stacks" not in row])]
    for name, row in rows:
        if "stacks" in row:
            mean = {"ncc": row["left_out_ncc"], "psnr": row["left_out_psnr"]}
            parts.append(table(name, _LEFT_OUT, [*row["stacks"].items(), ("mean", mean)]))
    return "\n\n".join(parts)


def comparison_tables(rows: Sequence[Mapping[str, Any]], methods: Collection[str]) -> str:
    """A table for each level of motion: methods by subjects, means over seeds."""
    parts = []
    for motion in dict.fromkeys(row["motion"] for row in rows):
        groups = {
            f"{subject}: {method}": [
                row for row in rows if (row["motion"], row["subject"], row["method"]) == (motion, subject, method)
            ]
            for subject in dict.fromkeys(row["subject"] for row in rows)
            for method in methods
        }
        lines = [(name, _mean(group)) for name, group in groups.items() if group]
        parts.append(f"### {motion} motion\n\n{table('subject: method', _COMPARED, lines)}")
    return "\n\n".join(parts)


def _mean(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of the numbers that all rows have."""
    numbers = [key for key, value in group[0].items() if isinstance(value, float) and all(key in row for row in group)]
    return {"seeds": len(group), **{key: sum(row[key] for row in group) / len(group) for key in numbers}}


def main() -> None:
    """Print the tables of a result file."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else _RESULTS / "core.json"
    print(core_tables(json.loads(path.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
