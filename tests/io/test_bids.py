"""What is found in a BIDS dataset, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gsvr.errors import InputError
from gsvr.io.bids import BidsSelection, BidsSession, find_sessions


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Empty files: nothing is opened to find them."""
    touch(
        tmp_path,
        *(f"sub-01/ses-{s}/anat/sub-01_ses-{s}_acq-haste_run-{n}_T2w.nii.gz" for s in "ab" for n in (1, 2)),
        "sub-01/ses-a/anat/sub-01_ses-a_acq-trufi_run-1_T2w.nii",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz",
        "sub-02/anat/sub-02_run-1_T2w.nii.gz",
        "sub-02/anat/sub-02_run-2_T2w.nii.gz",
        "sub-03/anat/sub-03_T1w.nii.gz",
    )
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    return tmp_path


def names(session: BidsSession) -> list[str]:
    return [run.path.name.partition(f"{session.name}_")[2] for run in session.runs]


def masks(session: BidsSession) -> list[str | None]:
    return [None if run.mask is None else run.mask.name for run in session.runs]


def test_runs_are_grouped_by_session(root: Path):
    sessions = find_sessions(root)
    assert [session.name for session in sessions] == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]
    assert [session.folder for session in sessions] == [Path("sub-01/ses-a"), Path("sub-01/ses-b"), Path("sub-02")]
    assert names(sessions[0]) == [
        "acq-haste_run-1_T2w.nii.gz",
        "acq-haste_run-2_T2w.nii.gz",
        "acq-trufi_run-1_T2w.nii",
    ]
    assert names(sessions[2]) == ["run-1_T2w.nii.gz", "run-2_T2w.nii.gz"]


@pytest.mark.parametrize(
    ("selection", "found"),
    [
        (BidsSelection(("01",)), ["sub-01_ses-a", "sub-01_ses-b"]),
        (BidsSelection(("sub-01", "02")), ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]),
        (BidsSelection((), ("ses-b",)), ["sub-01_ses-b"]),
        (BidsSelection((), (), ("acq-trufi",)), ["sub-01_ses-a"]),
    ],
)
def test_selection(root: Path, selection: BidsSelection, found: list[str]):
    assert [session.name for session in find_sessions(root, selection)] == found


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (BidsSelection(("09",)), "`participant_label` 09: the dataset has no T2-weighted run with sub-09"),
        (BidsSelection((), ("c",)), "ses-c"),
        (BidsSelection((), (), ("x",)), "acq-x"),
        (BidsSelection(("02",), ("a",)), "holds no T2-weighted run"),
    ],
)
def test_what_is_not_there_is_refused(root: Path, selection: BidsSelection, sentence: str):
    with pytest.raises(InputError, match=sentence):
        find_sessions(root, selection)


def test_masks_go_to_the_run_of_their_name(root: Path):
    touch(
        root,
        "derivatives/masks/sub-01/ses-a/anat/sub-01_ses-a_acq-haste_run-2_desc-brain_mask.nii.gz",
        "derivatives/masks/sub-01/ses-a/anat/sub-01_ses-a_acq-trufi_run-1_space-orig_mask.nii.gz",
        "derivatives/masks/sub-01/ses-a/anat/sub-01_ses-a_acq-haste_run-1_desc-placenta_mask.nii.gz",
        "derivatives/masks/sub-01/ses-b/anat/sub-01_ses-b_rec-gsvr_desc-brain_mask.nii.gz",
    )
    first, second, _ = find_sessions(root)
    assert masks(first) == [
        None,
        "sub-01_ses-a_acq-haste_run-2_desc-brain_mask.nii.gz",
        "sub-01_ses-a_acq-trufi_run-1_space-orig_mask.nii.gz",
    ]
    assert masks(second) == [None, None]


def test_two_datasets_with_masks_of_one_run_need_a_word(root: Path):
    name = "sub-02/anat/sub-02_run-1_desc-brain_mask.nii.gz"
    touch(root, f"derivatives/a/{name}", f"derivatives/b/{name}")
    with pytest.raises(InputError, match="say with `derivatives` whose count"):
        find_sessions(root)
    for chosen in "ab":
        sessions = find_sessions(root, derivatives=[root / "derivatives" / chosen])
        assert sessions[2].runs[0].mask == root / "derivatives" / chosen / name
    sessions = find_sessions(root, derivatives=[root / "derivatives" / "b", root / "derivatives" / "a"])
    assert sessions[2].runs[0].mask == root / "derivatives" / "b" / name
    # one beside the run counts before them all
    touch(root, name)
    assert find_sessions(root)[2].runs[0].mask == root / name


def test_two_masks_of_one_run_in_a_dataset_are_refused(root: Path):
    stem = "derivatives/a/sub-02/anat/sub-02_run-1"
    touch(root, f"{stem}_desc-brain_mask.nii.gz", f"{stem}_mask.nii.gz")
    with pytest.raises(InputError, match="masks of the same run: remove one"):
        find_sessions(root)


def test_what_is_made_of_the_runs_is_left_out(root: Path):
    touch(root, "sub-02/anat/sub-02_rec-mialsrtk_T2w.nii.gz", "sub-02/anat/sub-02_run-1_part-phase_T2w.nii.gz")
    assert names(find_sessions(root)[2]) == ["run-1_T2w.nii.gz", "run-2_T2w.nii.gz"]


def test_runs_that_all_have_rec_are_taken(root: Path):
    shutil.rmtree(root / "sub-02")
    touch(root, *(f"sub-02/anat/sub-02_rec-norm_run-{n}_T2w.nii.gz" for n in (1, 2)))
    assert names(find_sessions(root)[2]) == ["rec-norm_run-1_T2w.nii.gz", "rec-norm_run-2_T2w.nii.gz"]


def test_a_run_in_the_folder_of_another_subject_is_left_out(root: Path, caplog: pytest.LogCaptureFixture):
    touch(root, "sub-02/anat/sub-01_run-3_T2w.nii.gz")
    assert names(find_sessions(root)[2]) == ["run-1_T2w.nii.gz", "run-2_T2w.nii.gz"]
    assert "sub-01_run-3_T2w.nii.gz is left out: it lies in the folder of another subject" in caplog.text


def test_what_is_no_dataset_is_refused(root: Path):
    with pytest.raises(InputError, match="does not exist"):
        find_sessions(root / "nowhere")
    with pytest.raises(InputError, match=r"holds no dataset_description\.json"):
        find_sessions(root / "sub-01")
    with pytest.raises(InputError, match="folder of a derivative"):
        find_sessions(root, derivatives=[root / "nowhere"])
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "DatasetType": "derivative"}))
    with pytest.raises(InputError, match="is a derivative"):
        find_sessions(root)
    (root / "dataset_description.json").write_text("{")
    with pytest.raises(InputError, match="not readable JSON"):
        find_sessions(root)
