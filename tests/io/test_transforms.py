from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsvr.errors import InputError
from gsvr.io.transforms import (
    SlicePose,
    read_poses_json,
    write_itk_transform,
    write_poses_json,
)
from gsvr.model.geometry import pose_from_parts, rotation_from_vector, transform_points
from tests.io.itk import read_itk_pose

component = st.floats(-np.pi, np.pi)
millimetres = st.floats(-300, 300)
poses = st.builds(
    lambda vector, translation: pose_from_parts(rotation_from_vector(np.array(vector)), np.array(translation)),
    st.tuples(component, component, component),
    st.tuples(millimetres, millimetres, millimetres),
)
POINTS = np.array([[0.0, 0, 0], [10, 20, -30], [-80, 5, 60]])
POSE = pose_from_parts(rotation_from_vector(np.array([0.3, -0.5, 0.2])), np.array([4.0, -7.0, 11.0]))


def in_lps(points: np.ndarray) -> np.ndarray:
    return points * [-1, -1, 1]


@settings(max_examples=50, deadline=None)
@given(pose=poses)
def test_itk_round_trip_is_exact(pose: np.ndarray):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slice.tfm"
        write_itk_transform(path, pose)
        np.testing.assert_array_equal(read_itk_pose(path), pose)


def test_itk_file_by_hand(tmp_path: Path):
    # 90 degrees about S: R -> A, A -> L; then 1 mm right, 2 mm anterior, 3 mm up.
    pose = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    path = tmp_path / "slice.tfm"
    write_itk_transform(path, pose)
    assert path.read_text() == (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        "Parameters: 0.0 -1.0 0.0 1.0 0.0 0.0 0.0 0.0 1.0 -1.0 -2.0 3.0\nFixedParameters: 0 0 0\n"
    )


@settings(max_examples=20, deadline=None)
@given(pose=poses)
def test_simpleitk_maps_points_as_the_pose_does(pose: np.ndarray):
    sitk = pytest.importorskip("SimpleITK")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slice.tfm"
        write_itk_transform(path, pose)
        transform = sitk.ReadTransform(str(path))
    for point in POINTS:
        mapped = in_lps(np.array(transform.TransformPoint(in_lps(point).tolist())))
        np.testing.assert_allclose(mapped, transform_points(pose, point), atol=1e-9)


def test_missing_files(tmp_path: Path):
    with pytest.raises(InputError, match=r"absent.*does not exist"):
        read_poses_json(tmp_path / "absent")


@settings(max_examples=30, deadline=None)
@given(matrices=st.lists(poses, max_size=4))
def test_json_round_trip_is_exact(matrices: list[np.ndarray]):
    records = [
        SlicePose(f"run-{k % 2}", k, matrix, {"weight": k / 3, "used": k > 1, "note": "é"})
        for k, matrix in enumerate(matrices)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "poses.json"
        write_poses_json(path, records)
        found = read_poses_json(path)
    assert len(found) == len(records)
    for before, after in zip(records, found, strict=True):
        assert (after.stack, after.slice_index, after.details) == (
            before.stack,
            before.slice_index,
            before.details,
        )
        np.testing.assert_array_equal(after.matrix, before.matrix)


def test_json_is_ras_with_rows_first(tmp_path: Path):
    path = tmp_path / "poses.json"
    write_poses_json(path, [SlicePose("run-1", 4, POSE, {"residual": np.nan})])
    content = json.loads(path.read_text())
    assert content["format"] == "gsvr-poses"
    assert content["version"] == 1
    assert "acquired world to volume world" in content["convention"]
    (entry,) = content["slices"]
    assert entry["stack"] == "run-1"
    assert entry["slice_index"] == 4
    assert entry["residual"] is None
    np.testing.assert_array_equal([row[3] for row in entry["matrix"]], [4, -7, 11, 1])
    assert np.isnan(read_poses_json(path)[0].details["residual"])


def test_records_that_contradict_themselves(tmp_path: Path):
    path = tmp_path / "poses.json"
    with pytest.raises(ValueError, match="two poses"):
        write_poses_json(path, [SlicePose("run-1", 0, POSE), SlicePose("run-1", 0, np.eye(4))])
    with pytest.raises(ValueError, match="not rigid"):
        write_poses_json(path, [SlicePose("run-1", 0, np.diag([2.0, 1, 1, 1]))])
    with pytest.raises(ValueError, match="matrix"):
        write_poses_json(path, [SlicePose("run-1", 0, POSE, {"matrix": 1.0})])
    with pytest.raises(ValueError, match="rigid"):
        write_itk_transform(path, np.diag([2.0, 1, 1, 1]))
    assert list(tmp_path.iterdir()) == []


def entry(**changes: object) -> dict[str, object]:
    return {"stack": "run-1", "slice_index": 0, "matrix": np.eye(4).tolist()} | changes


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"format": "gsvr-poses", "version": 2, "slices": []}),
        json.dumps({"format": "gsvr-poses", "version": 1}),
        *(
            json.dumps({"format": "gsvr-poses", "version": 1, "slices": [bad]})
            for bad in (
                1,
                {"stack": "run-1", "slice_index": 0},
                entry(stack=3),
                entry(slice_index="0"),
                entry(slice_index=True),
                entry(matrix=[[1, 0], [0, 1]]),
                entry(matrix=[[1, 0, 0, 0], [0, 1, 0]]),
                entry(matrix="identity"),
                entry(matrix=np.diag([1.0, 1, -1, 1]).tolist()),
                entry(matrix=np.full((4, 4), None).tolist()),
            )
        ),
    ],
)
def test_bad_pose_file_is_named(tmp_path: Path, content: str):
    path = tmp_path / "poses.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"poses\.json") as caught:
        read_poses_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["\ud800", "a\udc80", "a\0b"])
def test_names_that_cannot_be_written_are_refused(tmp_path: Path, name: str):
    path = tmp_path / "poses.json"
    write_poses_json(path, [SlicePose("stack", 3, np.eye(4))])
    content = json.loads(path.read_text())
    content["slices"][0]["stack"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="entry 0 names no slice"):
        read_poses_json(path)
