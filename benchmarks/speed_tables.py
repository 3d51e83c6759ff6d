"""What `benchmarks.speed` measured as Markdown tables: ``python -m benchmarks.speed_tables``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.tables import table

_RESULTS = Path(__file__).parent / "results" / "speed.json"
_APPLICATIONS = ("plan", "predict", "adjoint", "squared adjoint", "derivatives")
_NANOSECONDS = {name: f"{{nanoseconds_per_splat[{name}]:.1f}}" for name in _APPLICATIONS}
_COUNTS = {"Gaussians": "{gaussians:,}", "pixels": "{pixels:,}"}
_COSTS = {"CPU s": "{cpu_seconds:.1f}", "wall s": "{wall_seconds:.1f}"}
_STAGE = {**_COUNTS, "splats": "{splats:,}", "window": "{window_pixels:.0f}", **_NANOSECONDS}
_CEILINGS = {
    "matrix product (float32)": "{matrix_product_gflops:.0f} GFLOP/s",
    "load, multiply-add, store in cache": "{multiply_add_store_gflops:.0f} GFLOP/s",
    "two loads, multiply-add in cache": "{dot_gflops:.0f} GFLOP/s",
    "`power_of_two` of `lanes.h`": "{exponentials_per_second_1e9:.1f} billion/s",
    "memory (two arrays read, one written)": "{memory_gigabytes_per_second:.0f} GB/s",
}
_WORK = {
    "operations": "{operations:.0f}",
    "bytes": "{bytes:.0f}",
    "reached": "{rate:.2f} billion/s",
    "of its ceiling": "{share:.0f} %",
    "of memory": "{memory:.0f} %",
}
_THREADS = {
    f"{name} {unit} ms": f"{{{name}_{unit.lower()}:.0f}}" for name in ("predict", "adjoint") for unit in ("wall", "CPU")
}
_PROFILE = {"outer iterations": "{outer_iterations}", **_COUNTS, "CPU s": "{cpu_seconds:.2f}", "share": "{share:.0f} %"}
_PRESETS = {
    "CPU s": "{cpu_seconds[0]:.1f} to {cpu_seconds[1]:.1f}",
    "wall s": "{wall_seconds[0]:.1f} to {wall_seconds[1]:.1f}",
    "peak MB": "{peak_megabytes[1]:,.0f}",
}
_SCALING = {
    "pixels": "{pixels:,}",
    "stacks": "{n_stacks}",
    "in-plane mm": "{in_plane_spacing:.2f}",
    "slices": "{slices}",
    "Gaussians": "{gaussians:,}",
    **_COSTS,
    "peak MB": "{peak_megabytes:,.0f}",
}
_RENDERING = {
    "least wall ms": "{least_wall:.1f}",
    "median wall ms": "{median_wall:.1f}",
    "least CPU ms": "{least_cpu:,.1f}",
}


def speed_tables(record: Mapping[str, Any]) -> str:
    """Tables of whatever the record holds."""
    makers = {
        "operator": _of_operator,
        "profile": _of_profile,
        "presets": lambda found: [table("files to files", _PRESETS, _dicts(found))],
        "scaling": lambda rows: [table("million pixels", _SCALING, [(row["name"].split()[0], row) for row in rows])],
        "rendering": lambda found: [table(f"from {found['gaussians']:,} Gaussians", _RENDERING, _dicts(found))],
        "start": _of_start,
    }
    return "\n\n".join(part for name, make in makers.items() if name in record for part in make(record[name]))


def _dicts(found: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The entries that are measurements."""
    return [(name, row) for name, row in found.items() if isinstance(row, dict) and name != "measured"]


def _of_operator(operator: Mapping[str, Any]) -> Iterator[str]:
    cells = [(name, {"cell": form.format_map(operator["ceilings"])}) for name, form in _CEILINGS.items()]
    yield table("one core, at most", {"": "{cell}"}, cells)
    yield table("stage", _STAGE, [(row["stage"], row) for row in operator["stages"]])
    yield table("final stage, a splat", _WORK, _work(operator["stages"][-1], operator["ceilings"]))
    milliseconds = [
        {key.removesuffix("_seconds"): 1000 * value for key, value in row.items()} for row in operator["threads"]
    ]
    rows = zip(operator["threads"], milliseconds, strict=True)
    yield table("threads", _THREADS, [(str(row["threads"]), times) for row, times in rows])


def _work(stage: Mapping[str, Any], ceilings: Mapping[str, float]) -> Iterator[tuple[str, dict[str, float]]]:
    """Operations (of the plan: exponentials) and bytes a splat, the rate, and its share of the ceilings."""
    for name, kind, ceiling in (
        ("predict", "operations", "multiply_add_store_gflops"),
        ("adjoint", "operations", "dot_gflops"),
        ("derivatives", "operations", "multiply_add_store_gflops"),
        ("plan", "exponentials", "exponentials_per_second_1e9"),
    ):
        operations, size = stage[f"{name}_{kind}"], stage.get(f"{name}_bytes", 4.0)
        nanoseconds = stage["nanoseconds_per_splat"][name]
        rate, memory = operations / nanoseconds, size / nanoseconds / ceilings["memory_gigabytes_per_second"]
        yield (
            f"{name}, {kind}",
            {
                "operations": operations,
                "bytes": size,
                "rate": rate,
                "share": 100 * rate / ceilings[ceiling],
                "memory": 100 * memory,
            },
        )


def _of_profile(profile: Mapping[str, Any]) -> Iterator[str]:
    def with_share(row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "share": 100 * row["cpu_seconds"] / profile["cpu_seconds"]}

    rows = {
        "reading and masks": {"cpu_seconds": profile["before_reconstruction"]},
        **profile["stages"],
        "mask and rendering": {"cpu_seconds": profile["after_last_iteration"]},
    }
    yield table("stage", _PROFILE, [(name, with_share(row)) for name, row in rows.items()])
    seconds = sorted(profile["functions"].items(), key=lambda item: -item[1])
    columns = {name: _PROFILE[name] for name in ("CPU s", "share")}
    yield table("what", columns, [(name, with_share({"cpu_seconds": value})) for name, value in seconds])


def _of_start(start: Mapping[str, Any]) -> Iterator[str]:
    longer = {name: start["first"][name] - start["second"][name] for name in ("cpu_seconds", "wall_seconds")}
    rows = {
        "`gsvr --help`": {"wall_seconds": start["help_wall_seconds"]},
        "small reconstruction, no Python file compiled yet": start["first"],
        "the same again": start["second"],
        "difference": longer,
    }
    yield table("", {"CPU s": "{cpu_seconds:.1f}", "wall s": "{wall_seconds:.2f}"}, rows.items())
    columns = {name: f"{{{name}:.1f}}" for name in _APPLICATIONS}
    yield table("ns a splat, kernels for", columns, start["instruction_sets"].items())


def main() -> None:
    """Print the tables of the result file."""
    print(speed_tables(json.loads(_RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
