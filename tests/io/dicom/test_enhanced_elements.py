"""Series are as the standard demands: what dicom3tools' validator (Debian's `dicom3tools`) finds wrong is nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gsvr.io.dicom.acquired import SeriesLabels, Vendor, classic_series, enhanced_instance
from gsvr.io.dicom.derived import derived_series
from tests.io.dicom.exports import labels, oblique_stacks, save
from tests.moving_brain import small_brain


def errors(path: Path) -> list[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy (dicom3tools)")
    told = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False).stderr
    assert "MRImage" in told
    return [line for line in told.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("vendor", ["siemens", "ge", "philips"])
def test_acquired_series_are_valid(vendor: Vendor, tmp_path: Path) -> None:
    stack, series = oblique_stacks()[0], SeriesLabels(3, vendor=vendor)
    instances = [enhanced_instance(stack, labels(), series), classic_series(stack, labels(), series)[0]]
    for path in save(instances, tmp_path):
        assert errors(path) == []


def test_derived_series_are_valid(tmp_path: Path) -> None:
    (path,) = save(derived_series(small_brain())[5:6], tmp_path)
    assert errors(path) == []
