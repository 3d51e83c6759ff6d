"""What `benchmarks.speed` measured as Markdown tables: ``python -m benchmarks.speed_tables``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown_table, number

_RESULTS = Path(__file__).parent / "results" / "speed.json"


def speed_tables(record: dict[str, Any]) -> str:
    """Tables of whatever the record holds."""
    parts = []
    if "operator" in record:
        parts += [_ceiling_table(record["operator"]), _stage_table(record["operator"])]
        parts += [_work_table(record["operator"]), _thread_table(record["operator"])]
    if "profile" in record:
        parts += [_stage_profile(record["profile"]), _function_profile(record["profile"])]
    if "presets" in record:
        parts.append(_preset_table(record["presets"]))
    if "scaling" in record:
        parts.append(_scaling_table(record["scaling"]))
    if "rendering" in record:
        parts.append(_rendering_table(record["rendering"]))
    if "start" in record:
        parts += [_start_table(record["start"]), _instruction_table(record["start"]["instruction_sets"])]
    return "\n\n".join(parts)


def _ceiling_table(operator: dict[str, Any]) -> str:
    found = operator["ceilings"]
    rows = [
        ("matrix product (float32)", f"{found['matrix_product_gflops']:.0f} GFLOP/s"),
        ("load, multiply-add, store in cache", f"{found['multiply_add_store_gflops']:.0f} GFLOP/s"),
        ("two loads, multiply-add in cache", f"{found['dot_gflops']:.0f} GFLOP/s"),
        ("`power_of_two` of `lanes.h`", f"{found['exponentials_per_second_1e9']:.1f} billion/s"),
        ("memory (two arrays read, one written)", f"{found['memory_gigabytes_per_second']:.0f} GB/s"),
    ]
    return markdown_table(("one core, at most", ""), rows)


def _stage_table(operator: dict[str, Any]) -> str:
    header = (
        "stage",
        "Gaussians",
        "pixels",
        "splats",
        "window",
        "plan",
        "predict",
        "adjoint",
        "squared",
        "derivatives",
    )
    rows = []
    for row in operator["stages"]:
        spent = row["nanoseconds_per_splat"]
        names = ("plan", "predict", "adjoint", "squared adjoint", "derivatives")
        counts = [number(row[key], 0) for key in ("gaussians", "pixels", "splats", "window_pixels")]
        rows.append((row["stage"], *counts, *(number(spent[name], 1) for name in names)))
    return markdown_table(header, rows)


def _work_table(operator: dict[str, Any]) -> str:
    """Of the final stage: operations and bytes a splat, the rate, and its share of the ceiling."""
    last, ceilings = operator["stages"][-1], operator["ceilings"]
    spent = last["nanoseconds_per_splat"]
    memory = ceilings["memory_gigabytes_per_second"]
    rows = []
    for name, ceiling in (
        ("predict", "multiply_add_store_gflops"),
        ("adjoint", "dot_gflops"),
        ("derivatives", "multiply_add_store_gflops"),
    ):
        rate = last[f"{name}_operations"] / spent[name]
        size = last.get(f"{name}_bytes", 4.0)
        rows.append(
            (
                name,
                number(last[f"{name}_operations"], 0),
                number(size, 0),
                f"{rate:.1f} GFLOP/s",
                f"{100 * rate / ceilings[ceiling]:.0f} %",
                f"{100 * size / spent[name] / memory:.0f} %",
            )
        )
    rate = last["plan_exponentials"] / spent["plan"]
    share = 100 * rate / ceilings["exponentials_per_second_1e9"]
    exponentials = f"{last['plan_exponentials']:.0f} exp"
    bandwidth = f"{100 * last['plan_bytes'] / spent['plan'] / memory:.0f} %"
    rows.append(
        ("plan", exponentials, number(last["plan_bytes"], 0), f"{rate:.2f} G exp/s", f"{share:.0f} %", bandwidth)
    )
    header = ("final stage, a splat", "operations", "bytes", "reached", "of its ceiling", "of memory")
    return markdown_table(header, rows)


def _thread_table(operator: dict[str, Any]) -> str:
    rows = [
        (number(row["threads"], 0), *(number(1000 * row[key], 0) for key in row if key != "threads"))
        for row in operator["threads"]
    ]
    return markdown_table(("threads", "predict wall ms", "CPU ms", "adjoint wall ms", "CPU ms"), rows)


def _stage_profile(profile: dict[str, Any]) -> str:
    total = profile["cpu_seconds"]
    rows = [(["reading and masks", "", "", ""], profile["before_reconstruction"])]
    for name, stage in profile["stages"].items():
        counts = [number(stage[key], 0) for key in ("rounds", "gaussians", "pixels")]
        rows.append(([name, *counts], stage["cpu_seconds"]))
    rows.append((["mask and rendering", "", "", ""], profile["after_last_round"]))
    shown = [(*words, number(seconds, 2), f"{100 * seconds / total:.0f} %") for words, seconds in rows]
    return markdown_table(("stage", "rounds", "Gaussians", "pixels", "CPU s", "share"), shown)


def _function_profile(profile: dict[str, Any]) -> str:
    total = profile["cpu_seconds"]
    ordered = sorted(profile["functions"].items(), key=lambda item: -item[1])
    rows = [(name, number(seconds, 2), f"{100 * seconds / total:.0f} %") for name, seconds in ordered]
    return markdown_table(("what", "CPU s", "share"), rows)


def _preset_table(presets: dict[str, Any]) -> str:
    rows = []
    for name, found in presets.items():
        if "wall_seconds" in found:
            spans = (found["cpu_seconds"], found["wall_seconds"])
            shown = [f"{number(least, 1)} to {number(most, 1)}" for least, most in spans]
            rows.append((name, *shown, number(found["peak_megabytes"][1], 0)))
    return markdown_table(("files to files", "CPU s", "wall s", "peak MB"), rows)


def _scaling_table(scaling: list[dict[str, Any]]) -> str:
    header = ("pixels", "stacks", "in-plane mm", "slices", "Gaussians", "CPU s", "wall s", "peak MB")
    rows = []
    for row in scaling:
        counts = [number(row["pixels"], 0), number(row["n_stacks"], 0), number(row["in_plane_spacing"], 2)]
        counts += [number(row["slices"], 0), number(row["gaussians"], 0)]
        costs = [number(row["cpu_seconds"], 1), number(row["wall_seconds"], 1), number(row["peak_megabytes"], 0)]
        rows.append((*counts, *costs))
    return markdown_table(header, rows)


def _rendering_table(rendering: dict[str, Any]) -> str:
    rows = [
        (name, *(number(found[key], 1) for key in ("least_wall", "median_wall", "least_cpu")))
        for name, found in rendering.items()
        if isinstance(found, dict) and "least_wall" in found
    ]
    header = (f"from {rendering['gaussians']:,} Gaussians", "least wall ms", "median wall ms", "least CPU ms")
    return markdown_table(header, rows)


def _start_table(start: dict[str, Any]) -> str:
    rows = [("`gsvr --help`", "", number(start["help_wall_seconds"], 2))]
    rows += [
        (label, number(start[key]["cpu_seconds"], 1), number(start[key]["wall_seconds"], 1))
        for label, key in (("small reconstruction, no Python file compiled yet", "first"), ("the same again", "second"))
    ]
    longer = (number(start[f"longer_{kind}_seconds"], 1) for kind in ("cpu", "wall"))
    return markdown_table(("", "CPU s", "wall s"), [*rows, ("difference", *longer)])


def _instruction_table(sets: dict[str, dict[str, float]]) -> str:
    names = ("plan", "predict", "adjoint", "squared adjoint", "derivatives")
    rows = [(label, *(number(found[name], 1) for name in names)) for label, found in sets.items()]
    return markdown_table(("ns a splat, kernels for", *names), rows)


def main() -> None:
    """Print the tables of the result file."""
    print(speed_tables(json.loads(_RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
