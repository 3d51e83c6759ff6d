"""The benchmark that tells whether anything became worse: what it measures, and what it calls worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import core
from benchmarks.command import Gsvr
from benchmarks.core import Examination, became_worse, measure_preset
from benchmarks.speed_acquisitions import write_stacks
from tests.acquisitions import small_stack

GOOD = {"psnr": 30.0, "ssim": 0.96, "pose_median": 0.02, "cpu_seconds": 20.0, "peak_megabytes": 600.0}


@pytest.mark.parametrize(
    ("name", "tolerated", "too_much"),
    [
        ("psnr", 29.985, 29.975),
        ("ssim", 0.9596, 0.9594),
        ("pose_median", 0.024, 0.026),
        ("cpu_seconds", 20.5, 20.7),
        ("peak_megabytes", 629.0, 631.0),
    ],
)
def test_worse_is_what_exceeds_its_tolerance(name: str, tolerated: float, too_much: float):
    assert became_worse(GOOD | {name: tolerated}, GOOD) == []
    (sentence,) = became_worse(GOOD | {name: too_much}, GOOD)
    assert sentence.startswith(f"{name} ")
    better = GOOD | {name: 2 * GOOD[name] - too_much}
    assert became_worse(better, GOOD) == []


def test_a_reconstruction_from_files_to_files_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(core, "OUTPUT", tmp_path)
    turned = np.eye(3)[:, [1, 2, 0]]
    tiny = [
        small_stack("a", np.eye(3), (3.1, 3.1, 5.0), 5.0, 0),
        small_stack("b", turned, (3.0, 3.4, 5.5), 4.5, 1),
    ]
    stacks, masks = write_stacks(tiny, tmp_path)
    rows = measure_preset(Examination("tiny", stacks, masks), "fast", {"now": Gsvr()}, repeats=1)
    row = rows["now"]
    assert row["slices"] == 10
    assert 0.5 < row["cpu_seconds"] < 60
    assert 50 < row["peak_megabytes"] < 2000
    assert (tmp_path / "core" / "tiny" / "now" / "fast_poses.json").exists()
