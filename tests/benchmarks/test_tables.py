"""Tables say what the results hold, and the results that are kept stay readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fuzz, interruptions
from benchmarks.compare import all_rows
from benchmarks.gap import VARIANTS, gap_table
from benchmarks.machine import REPOSITORY
from benchmarks.methods import METHODS
from benchmarks.speed_plots import draw
from benchmarks.speed_tables import speed_tables
from benchmarks.tables import comparison_tables, core_tables, table


def results(name: str) -> dict[str, Any]:
    return json.loads((REPOSITORY / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def test_a_table_has_a_dash_for_what_is_missing():
    rows = [("one", {"a": 1234, "b": [0.5]}), ("two", {"a": None})]
    assert table("name", {"A": "{a:,}", "B": "{b[0]:.2f}"}, rows).splitlines() == [
        "| name | A | B |",
        "|---|---:|---:|",
        "| one | 1,234 | 0.50 |",
        "| two | - | - |",
    ]


def test_the_core_results_are_shown():
    record = results("core.json")
    text = core_tables(record)
    for case, entry in record.items():
        for name, row in entry["rows"].items():
            (line,) = [line for line in text.splitlines() if line.startswith(f"| {case}: {name} |")]
            assert "psnr" not in row or f"{row['psnr']:.2f}" in line


def test_compared_rows_are_means_over_seeds():
    rows = all_rows()
    text = comparison_tables(rows, METHODS)
    assert len({row["method"] for row in rows} - set(METHODS)) == 0
    group = [row for row in rows if (row["subject"], row["motion"], row["method"]) == ("phantom", "moderate", "fast")]
    mean = sum(row["psnr"] for row in group) / len(group)
    after = text.partition("### moderate motion")[2]
    (line, *_) = [line for line in after.splitlines() if line.startswith("| phantom: fast |")]
    assert line.startswith(f"| phantom: fast | {len(group)} | {mean:.2f} |")


def test_a_batch_costs_at_most_five_per_cent_over_single_runs():
    record = results("batch.json")
    assert (record["examinations"], record["volumes_equal"]) == (100, 100)
    assert record["overhead"] == pytest.approx(record["batch_cpu_seconds"] / record["single_cpu_seconds"] - 1)
    assert record["overhead"] <= 0.05


def test_no_damaged_file_and_no_interruption_did_what_it_must_not():
    files, stopped = results("fuzz.json")["rows"], results("interruptions.json")["rows"]
    assert sum(row["files"] for row in files.values()) == 10_000
    assert all(row["refused"] + row["taken"] == row["files"] for row in files.values())
    assert sum(row["interruptions"] for row in stopped.values()) == 100
    assert "| all | 10,000 |" in fuzz.tables(results("fuzz.json"))
    line = interruptions.tables(results("interruptions.json")).splitlines()[-1]
    assert line.startswith("| all | 100 |")
    assert line.endswith("| 0 | 0 | 0 | 0 |")


def test_the_gap_has_a_row_for_every_variant():
    lines = gap_table(results("gap.json")["rows"]).splitlines()
    assert [line.split(" | ")[0][2:] for line in lines[2:]] == [variant.description for variant in VARIANTS]
    assert "-" not in [cell.strip() for line in lines[2:] for cell in line.split("|")]


def test_the_speed_results_are_shown_and_drawn(tmp_path: Path):
    record = results("speed.json")
    text = speed_tables(record)
    for row in record["operator"]["stages"]:
        assert f"| {row['stage']} | {row['gaussians']:,} | {row['pixels']:,} | {row['splats']:,} |" in text
    # the only cells without a number: what reading and rendering have no iterations, Gaussians and pixels of, and help
    assert sum(cell.strip() == "-" for line in text.splitlines() for cell in line.split("|")) == 7
    names = {path.name for path in draw(record, tmp_path)}
    assert names == {"speed_scaling.png", "speed_operator.png", "speed_profile.png"}
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)
