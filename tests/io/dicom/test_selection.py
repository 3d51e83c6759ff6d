"""Which series are used, and why not the others."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gsvr.errors import InputError
from gsvr.io.dicom.acquired import ExaminationLabels, SeriesLabels, classic_series
from gsvr.io.dicom.folder import read_folder
from gsvr.io.dicom.study import read_study, studies_of
from gsvr.model.slices import Stack
from tests.io.dicom.exports import SECRETS, export, labels, oblique_stacks, save


def first_slices(stack: Stack, n: int) -> Stack:
    return Stack(stack.name, stack.data[:, :, :n], stack.affine, stack.thickness, slice_times=stack.slice_times[:n])


def add_series(
    folder: Path,
    stack: Stack,
    examination: ExaminationLabels,
    number: int = 40,
    *,
    description: str = "T2 HASTE",
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M"),
    echo_time: float = 90.0,
    begin: float = 1000.0,
    **elements: object,
) -> list[Path]:
    series = SeriesLabels(
        number, description, begin=begin, image_type=image_type, echo_time=echo_time, elements=elements
    )
    return save(classic_series(stack, examination, series), folder / f"s{number}-{image_type[-1]}-{begin:g}")


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"description": "LOC 3 plane"}, "a localiser"),
        ({"description": "Localizer"}, "a localiser"),
        ({"description": "survey"}, "a localiser"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "a localiser"),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, "computed from other images"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "P")}, "no magnitude image"),
        ({"MRAcquisitionType": "3D"}, "acquired in three dimensions, not slice by slice"),
        ({"ScanningSequence": "EP"}, "another contrast: echo-planar or diffusion-weighted"),
        ({"DiffusionBValue": 700.0}, "another contrast: echo-planar or diffusion-weighted"),
        (
            {"ScanningSequence": "GR", "echo_time": 2.1},
            "another contrast: a gradient echo (such as balanced steady state)",
        ),
        ({"ScanningSequence": ["SE", "IR"]}, "another contrast: inversion recovery"),
        ({"echo_time": 12.0}, "another contrast: an echo time of 12 ms"),
        ({"echo_time": 900.0}, "another contrast: an echo time of 900 ms"),
        ({"SliceThickness": "40"}, "a slab of 40 mm"),
    ],
)
def test_other_series_are_left_out_with_a_reason(elements: dict, reason: str, tmp_path: Path) -> None:
    examination = labels()
    export(tmp_path / "good", oblique_stacks()[:3], examination=examination)
    add_series(tmp_path, oblique_stacks()[0], examination, **elements)
    study = read_study([tmp_path])
    assert [stack.first.series_number for stack in study.stacks] == [3, 4, 5]
    assert [(left.stack.first.series_number, left.reason) for left in study.left_out] == [(40, reason)]
    # who asks for it gets it all the same
    assert [stack.first.series_number for stack in read_study([tmp_path], [40, 3]).stacks] == [3, 40]


def test_a_series_of_three_orientations_is_a_localiser(tmp_path: Path) -> None:
    examination = labels()
    export(tmp_path / "good", oblique_stacks()[:3], examination=examination)
    instances = [
        instance
        for stack in oblique_stacks()[:3]
        for instance in classic_series(first_slices(stack, 6), examination, SeriesLabels(1, "HASTE"))
    ]
    for number, instance in enumerate(instances, 1):
        instance.InstanceNumber = number
        instance.SeriesInstanceUID = instances[0].SeriesInstanceUID
    save(instances, tmp_path / "localiser")
    study = read_study([tmp_path])
    assert [left.reason for left in study.left_out] == ["a localiser"] * 3
    assert [left.stack.name for left in study.left_out] == [
        "series-001-1-axial",
        "series-001-2-coronal",
        "series-001-3-sagittal",
    ]


def test_an_interrupted_series_is_left_out(tmp_path: Path) -> None:
    examination = labels()
    export(tmp_path / "good", oblique_stacks()[:3], examination=examination)
    add_series(tmp_path, first_slices(oblique_stacks()[0], 3), examination)
    assert [left.reason for left in read_study([tmp_path]).left_out] == ["only 3 slices next to each other"]


def test_of_two_reconstructions_of_one_acquisition_the_undistorted_one_is_used(tmp_path: Path) -> None:
    examination = labels()
    stack = oblique_stacks()[0]
    add_series(tmp_path, stack, examination, 7, image_type=("ORIGINAL", "PRIMARY", "M", "ND"))
    add_series(tmp_path, stack, examination, 8, image_type=("ORIGINAL", "PRIMARY", "M", "DIS2D"))
    # acquired again, and so another recording
    add_series(tmp_path, stack, examination, 9, image_type=("ORIGINAL", "PRIMARY", "M", "ND"), begin=2000.0)
    study = read_study([tmp_path])
    assert [stack.first.series_number for stack in study.stacks] == [8, 9]
    assert [left.reason for left in study.left_out] == [
        "the same acquisition as series-008-axial, reconstructed another way"
    ]


def test_repetitions_within_a_series_are_stacks_of_their_own(tmp_path: Path) -> None:
    examination = labels()
    stack = oblique_stacks()[3]
    first = add_series(tmp_path, stack, examination, 7, begin=0.0)
    import pydicom

    uid = pydicom.dcmread(first[0]).SeriesInstanceUID
    add_series(tmp_path, stack, examination, 7, begin=60.0, SeriesInstanceUID=uid)
    stacks = read_study([tmp_path]).stacks
    assert [stack.name for stack in stacks] == ["series-007-1-axial", "series-007-2-axial"]
    assert [stack.n_slices for stack in stacks] == [stack.n_slices] * 2
    begins = [min(frame.time for frame in found.frames if frame.time is not None) for found in stacks]
    assert begins[1] - begins[0] == pytest.approx(60.0)


def test_studies_and_patients_are_told_apart(tmp_path: Path) -> None:
    stacks = oblique_stacks()[:1]
    export(tmp_path / "a", stacks, examination=labels(date="20260301"))
    export(tmp_path / "b", stacks, examination=labels(date="20260201"))
    export(tmp_path / "c", stacks, examination=labels(date="20260215", patient_id="OTHER"))
    studies = studies_of(read_folder([tmp_path]))
    assert [(study.patient, study.session) for study in studies] == [(1, 1), (1, 2), (2, 1)]
    assert [study.stacks[0].first.study_time[:8] for study in studies] == ["20260201", "20260301", "20260215"]
    with pytest.raises(InputError, match="3 studies of 2 patients: give the folder of one"):
        read_study([tmp_path])


def test_a_series_that_is_not_there(tmp_path: Path) -> None:
    export(tmp_path, oblique_stacks()[:1])
    with pytest.raises(InputError, match="no stack in series 99"):
        read_study([tmp_path], [99])


def test_nothing_fit_for_use(tmp_path: Path) -> None:
    add_series(tmp_path, oblique_stacks()[0], labels(), echo_time=12.0)
    with pytest.raises(InputError, match="none of the series can be used"):
        read_study([tmp_path])


def test_reasons_tell_nothing_of_the_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    examination = labels()
    export(tmp_path, oblique_stacks()[:2], examination=examination)
    add_series(tmp_path, oblique_stacks()[0], examination, description="LOC HOPPER GRACE")
    with caplog.at_level(logging.DEBUG):
        read_study([tmp_path])
    assert "left out: a localiser" in caplog.text
    assert not [secret for secret in SECRETS if secret in caplog.text]
