from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from gsvr.io.record import versions, write_record


class Device(Enum):
    CPU = "cpu"


@dataclass(frozen=True)
class Options:
    resolution: float
    output: Path


def test_everything_a_run_produces_becomes_json(tmp_path: Path):
    path = tmp_path / "record.json"
    write_record(
        path,
        {
            "options": Options(0.8, Path("out") / "volume.nii.gz"),
            "count": np.int64(3),
            "used": np.bool_(True),
            "share": np.float32(0.5),
            "poses": np.eye(2),
            "missing": [np.nan, np.float64(np.inf), None],
            "device": Device.CPU,
            "pair": (1, "two"),
            "names": set("fedcbahg"),
            np.int64(7): "number as a name",
        },
    )
    assert json.loads(path.read_text()) == {
        "options": {"resolution": 0.8, "output": os.path.join("out", "volume.nii.gz")},
        "count": 3,
        "used": True,
        "share": 0.5,
        "poses": [[1.0, 0.0], [0.0, 1.0]],
        "missing": [None, None, None],
        "device": "cpu",
        "pair": [1, "two"],
        "names": list("abcdefgh"),
        "7": "number as a name",
    }


def test_order_is_kept_and_bytes_repeat(tmp_path: Path):
    record = {"zebra": 1, "ant": {"z": np.arange(3), "a": {"y", "x", "w"}}}
    write_record(tmp_path / "first.json", record)
    write_record(tmp_path / "second.json", record)
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    assert list(json.loads((tmp_path / "first.json").read_text())) == ["zebra", "ant"]


@pytest.mark.parametrize("value", [object(), b"bytes", {1.5: "key"}, 1j])
def test_what_json_cannot_hold_is_refused_and_nothing_written(tmp_path: Path, value: object):
    with pytest.raises(TypeError):
        write_record(tmp_path / "record.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


def test_versions_can_be_recorded(tmp_path: Path):
    found = versions()
    assert found["numpy"] == np.__version__
    assert {"gsvr", "python", "scipy", "nibabel", "platform", "cpu_count", "instructions"} <= found.keys()
    write_record(tmp_path / "record.json", found)
    assert json.loads((tmp_path / "record.json").read_text()) == found
