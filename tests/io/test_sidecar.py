from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.io.sidecar import Sidecar, acquisition_times, read_sidecar, resolve_thickness


def write_sidecar(folder: Path, content: object) -> Path:
    """Write a sidecar and return the image it belongs to."""
    (folder / "stack.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "stack.nii.gz"


def acquired(times: np.ndarray) -> list[int]:
    """Slices in the order in which they were recorded, counted from 1."""
    return [int(index) + 1 for index in np.argsort(times)]


def test_no_sidecar(tmp_path: Path):
    assert read_sidecar(tmp_path / "stack.nii.gz") == Sidecar(None, None, None)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_found_beside_the_image(tmp_path: Path, suffix: str):
    path = tmp_path / "sub-01_acq-0.8_T2w.json"
    path.write_text(json.dumps({"SliceThickness": 3, "SliceTiming": [0, 1.5, 0.5]}))
    sidecar = read_sidecar(tmp_path / f"sub-01_acq-0.8_T2w{suffix}")
    assert sidecar == Sidecar(3.0, (0.0, 1.5, 0.5), path)


def test_empty_timing_and_null_count_as_absent(tmp_path: Path):
    image = write_sidecar(tmp_path, {"SliceThickness": None, "SliceTiming": []})
    assert read_sidecar(image) == Sidecar(None, None, tmp_path / "stack.json")


def test_timing_from_the_last_slice_is_turned_round(tmp_path: Path):
    image = write_sidecar(tmp_path, {"SliceTiming": [0, 1, 2], "SliceEncodingDirection": "k-"})
    assert read_sidecar(image).slice_timing == (2.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable JSON"),
        ("[1, 2]", "one JSON object"),
        ({"SliceThickness": "3 mm"}, "SliceThickness"),
        ({"SliceThickness": 0}, "SliceThickness"),
        ({"SliceThickness": -3}, "SliceThickness"),
        ({"SliceThickness": True}, "SliceThickness"),
        ('{"SliceThickness": NaN}', "SliceThickness"),
        ({"SliceTiming": "interleaved"}, "SliceTiming"),
        ({"SliceTiming": [0, None]}, "SliceTiming"),
    ],
)
def test_bad_sidecar_is_named(tmp_path: Path, content: object, message: str):
    image = write_sidecar(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_sidecar(image)
    assert str(tmp_path / "stack.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_thickness_precedence(caplog: pytest.LogCaptureFixture):
    sidecar = Sidecar(slice_thickness=3.0, path=Path("stack.json"))
    assert resolve_thickness(2.9, sidecar, 3.3, "stack.nii") == (2.9, "given")
    assert resolve_thickness(None, sidecar, 3.3, "stack.nii") == (3.0, "sidecar")
    assert caplog.records == []
    assert resolve_thickness(None, Sidecar(), 3.3, "stack.nii") == (3.3, "spacing")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "stack.nii" in record.getMessage()


@pytest.mark.parametrize(
    ("given", "known", "words"),
    [
        (6.0, 3.3, "6 mm, counts, though the sidecar says 3.3 mm and the slices are 3.2 mm apart"),
        (2.5, 3.3, "though the sidecar says 3.3 mm"),
        (12.0, None, "12 mm, counts, though the slices are 3.2 mm apart: look whether they really overlap by"),
        (1.5, None, "really leave out that much"),
        (3.2, 3.3, None),
        (3.3, None, None),
        (2.0, None, None),  # a gap
        (4.5, None, None),  # an overlap
    ],
)
def test_a_thickness_that_contradicts_what_is_known(
    given: float, known: float | None, words: str | None, caplog: pytest.LogCaptureFixture
):
    sidecar = Sidecar(slice_thickness=known)
    assert resolve_thickness(given, sidecar, 3.2, "stack.nii") == (given, "given")
    assert [str(words) in message for message in caplog.messages] == ([] if words is None else [True])


@pytest.mark.parametrize("thickness", [0.0, -3.0, np.nan, np.inf, 3000.0, 0.003])
def test_thickness_that_cannot_be_right(thickness: float):
    with pytest.raises(InputError, match=r"stack\.nii"):
        resolve_thickness(thickness, Sidecar(), 3.3, "stack.nii")


def test_wrong_unit_in_the_sidecar_names_the_sidecar():
    with pytest.raises(InputError, match=r"stack\.json"):
        resolve_thickness(None, Sidecar(slice_thickness=3000.0, path=Path("stack.json")), 3.3, "stack.nii")


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("ascending", [1, 2, 3, 4, 5]),
        ("descending", [5, 4, 3, 2, 1]),
        ("interleaved", [1, 3, 5, 2, 4]),
        ("interleaved-even-first", [2, 4, 1, 3, 5]),
        ("auto", [1, 3, 5, 2, 4]),
    ],
)
def test_orders(order, expected: list[int]):
    assert acquired(acquisition_times(order, 5)) == expected


def test_auto_takes_the_timing_of_the_sidecar_and_others_do_not():
    sidecar = Sidecar(slice_timing=(2.0, 0.0, 1.0))
    assert acquired(acquisition_times("auto", 3, sidecar)) == [2, 3, 1]
    assert acquired(acquisition_times("ascending", 3, sidecar)) == [1, 2, 3]


@pytest.mark.parametrize("timing", [(0.0, 1.0), (0.0, 0.0, 0.0)])
def test_timing_that_does_not_fit_is_ignored_with_a_warning(timing, caplog: pytest.LogCaptureFixture):
    times = acquisition_times("auto", 3, Sidecar(slice_timing=timing, path=Path("stack.json")))
    assert acquired(times) == [1, 3, 2]
    assert "stack.json" in caplog.text


def test_unknown_order():
    with pytest.raises(InputError, match="random"):
        acquisition_times("random", 3)


def test_real_sidecars(shared_data: Path):
    for image in sorted((shared_data / "fetal-mial-sub-01").glob("*run-*_T2w.nii.gz")):
        sidecar = read_sidecar(image)
        assert sidecar.slice_thickness == 3.0
        assert sidecar.slice_timing is None
