"""One session of a dataset: its files, and when it counts as done."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

import gsvr.workflows.pipeline
import gsvr.workflows.provenance
from gsvr.errors import InputError
from gsvr.io.bids import BidsSelection
from gsvr.io.record import read_record
from gsvr.io.transforms import read_poses_json
from gsvr.workflows.bids_app import plan_examinations
from gsvr.workflows.bids_examination import BidsExamination, ReconstructionSettings, reconstruct_examination
from gsvr.workflows.bids_validation import find_validator, refuse_invalid_dataset, validation_errors
from gsvr.workflows.stored import stored_examination
from tests.bids_datasets import write_dataset
from tests.io.itk import read_itk_pose
from tests.moving_brain import SHORTEST_STAGES

SETTINGS = ReconstructionSettings(output_resolution=2.0, uncertainty=True)


@pytest.fixture(scope="module", autouse=True)
def _short():
    """Few rounds; and the same for every test here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gsvr.workflows.pipeline, "default_stages", lambda *_: SHORTEST_STAGES)
        yield


def plan(root: Path, settings: ReconstructionSettings = SETTINGS) -> BidsExamination:
    return plan_examinations(root, root / "derivatives" / "gsvr", BidsSelection(), settings, validate=False)[0]


@pytest.fixture(scope="module")
def done(_short: None, tmp_path_factory: pytest.TempPathFactory) -> BidsExamination:
    """Reconstructed; not to be changed."""
    examination = plan(write_dataset(tmp_path_factory.mktemp("bids"), [("01", "a")]))
    assert not examination.is_done()
    assert reconstruct_examination(examination) is not None
    return examination


@pytest.fixture
def copied(done: BidsExamination, tmp_path: Path) -> BidsExamination:
    """The same, to be changed."""
    return plan(Path(shutil.copytree(done.source, tmp_path / "moved")))


def test_files_have_the_names_of_bids(done: BidsExamination):
    files = {path.relative_to(done.output).as_posix() for path in done.output.rglob("*") if path.is_file()}
    stem = "sub-01/ses-a/anat/sub-01_ses-a_rec-gsvr"
    transforms = {file for file in files if file.startswith("sub-01/ses-a/xfm/")}
    assert files - transforms == {
        "dataset_description.json",
        ".bidsignore",
        "README.md",
        "sub-01_ses-a.html",
        "sub-01/figures/sub-01_ses-a_rec-gsvr_T2w.png",
        *(f"{stem}_T2w{suffix}" for suffix in (".nii.gz", ".json")),
        *(f"{stem}_desc-brain_mask{suffix}" for suffix in (".nii.gz", ".json")),
        *(f"{stem}_desc-uncertainty_T2w{suffix}" for suffix in (".nii.gz", ".json")),
        *(f"{stem}_{name}" for name in ("poses.json", "record.json", "field.safetensors")),
    }
    poses = read_poses_json(done.paths.poses)
    assert transforms == {
        f"sub-01/ses-a/xfm/{pose.stack.removesuffix('_T2w')}_from-gsvr_to-slice{pose.slice_index:03d}"
        "_mode-image_xfm.tfm"
        for pose in poses
    }
    pose = poses[7]
    name = f"{pose.stack.removesuffix('_T2w')}_from-gsvr_to-slice{pose.slice_index:03d}_mode-image_xfm.tfm"
    np.testing.assert_allclose(read_itk_pose(done.paths.transforms / name), pose.matrix, rtol=0, atol=1e-12)


def test_the_sidecars_tell_of_the_sources(done: BidsExamination):
    told = json.loads((done.output / "dataset_description.json").read_text())
    assert told["DatasetType"] == "derivative"
    assert told["GeneratedBy"][0]["Name"] == "gsvr"
    assert told["SourceDatasets"] == [{"URL": "../.."}]
    sidecar = json.loads(done.paths.volume.with_name("sub-01_ses-a_rec-gsvr_T2w.json").read_text())
    assert sidecar["SkullStripped"] is True
    root = done.output / told["DatasetLinks"]["raw"]
    assert [root / source.removeprefix("bids:raw:") for source in sidecar["Sources"]] == [
        root / path.relative_to(done.source) for path in done.stacks
    ]
    mask = json.loads(done.paths.mask.with_name("sub-01_ses-a_rec-gsvr_desc-brain_mask.json").read_text())
    assert mask["Type"] == "Brain"
    assert len(mask["Sources"]) == 6
    assert all((root / source.removeprefix("bids:raw:")).is_file() for source in mask["Sources"])


def test_input_and_output_are_valid(done: BidsExamination):
    validator = find_validator()
    if validator is None:
        pytest.skip("no BIDS validator (pip install bids-validator-deno)")
    assert validation_errors(validator, done.source) == []
    assert validation_errors(validator, done.output) == []
    assert refuse_invalid_dataset(done.source)


def test_an_invalid_dataset_is_refused_with_its_faults(copied: BidsExamination):
    if find_validator() is None:
        pytest.skip("no BIDS validator (pip install bids-validator-deno)")
    (copied.source / "sub-01" / "ses-a" / "anat" / "notes.doc").write_text("x")
    with pytest.raises(InputError, match=r"NOT_INCLUDED in sub-01/ses-a/anat/notes\.doc.*`skip_bids_validation`"):
        plan_examinations(copied.source, copied.output, BidsSelection(), SETTINGS)


def test_the_thickness_is_inherited_and_every_run_has_its_mask(done: BidsExamination):
    stacks = read_record(done.paths.record)["stacks"]
    assert [stack["thickness"] for stack in stacks] == [3.0, 3.0, 3.0]
    assert all(stack["mask_given"] for stack in stacks)


def test_nothing_names_a_folder_of_this_machine(done: BidsExamination):
    for path in (done.paths.record, done.paths.report, done.output / "dataset_description.json"):
        assert path is not None
        assert str(done.source.parent) not in path.read_text(encoding="utf-8")


def test_a_moved_dataset_is_still_done_and_can_be_shown_again(copied: BidsExamination):
    assert copied.is_done()
    assert reconstruct_examination(copied) is None
    shown = stored_examination(copied.paths.record)
    assert shown.acquisition is not None
    assert shown.uncertainty is not None


@pytest.mark.parametrize(
    "changed",
    [
        replace(SETTINGS, output_resolution=2.5),
        replace(SETTINGS, seed=1),
        replace(SETTINGS, slice_order="ascending"),
        replace(SETTINGS, find_masks=True),
        replace(SETTINGS, uncertainty=False),
        replace(SETTINGS, preset="fast"),
    ],
)
def test_other_settings_are_another_result(copied: BidsExamination, changed: ReconstructionSettings):
    assert not replace(copied, settings=changed).is_done()


def test_another_version_is_another_result(copied: BidsExamination, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gsvr.workflows.provenance, "__version__", "99")
    assert not copied.is_done()


@pytest.mark.parametrize("what", ["stack", "mask", "sidecar", "one run less", "another mask"])
def test_other_input_is_another_result(copied: BidsExamination, what: str):
    run = copied.session.runs[1]
    assert run.mask is not None
    if what == "stack":
        image = nibabel.load(run.path)
        data = np.asarray(image.dataobj).copy()  # pyright: ignore[reportAttributeAccessIssue]
        data[5, 5, 5] += 1
        nibabel.save(nibabel.Nifti1Image(data, image.affine), run.path)  # pyright: ignore[reportAttributeAccessIssue]
    elif what == "mask":
        run.mask.write_bytes(copied.session.runs[0].mask.read_bytes())  # pyright: ignore[reportOptionalMemberAccess]
    elif what == "sidecar":
        (copied.source / "T2w.json").write_text(json.dumps({"SliceThickness": 3.1}))
    elif what == "one run less":
        run.path.unlink()
    else:
        run.mask.unlink()
    assert not plan(copied.source).is_done()


def test_what_has_been_removed_or_cut_short_is_not_done(copied: BidsExamination):
    record = copied.paths.record.read_bytes()
    for path in copied.paths.written:
        if isinstance(path, Path):
            kept = path.with_name("kept")
            os.rename(path, kept)
            assert not copied.is_done(), path
            os.rename(kept, path)
            assert copied.is_done()
    copied.paths.record.write_bytes(record[: len(record) // 2])
    assert not copied.is_done()


def test_nothing_of_an_older_run_stays(copied: BidsExamination):
    """A run less, and no uncertainty: its transforms and the uncertainty would tell of another volume."""
    copied.session.runs[2].path.unlink()
    fewer = plan(copied.source, replace(SETTINGS, uncertainty=False))
    assert reconstruct_examination(fewer) is not None
    assert not list(copied.output.rglob("*run-3*"))
    assert not list(copied.output.rglob("*uncertainty*"))
    assert list(copied.output.rglob("*run-2_from-gsvr*"))
    assert fewer.is_done()


def test_masks_of_some_runs_stay_with_them(tmp_path: Path):
    """Runs of one grid: only the names tell whose the mask is."""
    from tests.moving_brain import moving_brain

    stacks = moving_brain().stacks
    examination = plan(write_dataset(tmp_path / "d", [("01", None)], [1], [stacks[0], stacks[0], *stacks[1:]]))
    assert [mask is not None for mask in examination.masks] == [False, True, False, False]
    assert reconstruct_examination(examination) is not None
    stacks_told = read_record(examination.paths.record)["stacks"]
    assert [stack["mask_given"] for stack in stacks_told] == [False, True, False, False]
    assert examination.paths.report == examination.output / "sub-01.html"


def test_json_and_back(done: BidsExamination):
    assert BidsExamination.from_json(json.loads(json.dumps(done.to_json()))) == done


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (ReconstructionSettings(preset="x"), "`preset` x"),
        (ReconstructionSettings(output_resolution=90.0), "90"),
        (ReconstructionSettings(slice_order="x"), "unknown slice order"),
        (ReconstructionSettings(preset="paper", uncertainty=True), "cannot go with `preset`"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, settings: ReconstructionSettings, sentence: str
):
    root = write_dataset(tmp_path / "d", [("01", "a")])
    with pytest.raises(InputError, match=sentence):
        plan(root, settings)
    assert not (root / "derivatives" / "gsvr").exists()


def test_the_dataset_itself_is_no_place_for_the_output(tmp_path: Path):
    root = write_dataset(tmp_path / "d", [("01", "a")])
    with pytest.raises(InputError, match="is the dataset itself"):
        plan_examinations(root, root / "sub-01" / "..", BidsSelection(), SETTINGS)


def test_axes_of_the_brain_are_another_result(copied: BidsExamination):
    assert copied.is_done()
    assert copied.paths.orientation is None
    settings = replace(SETTINGS, orientation="anatomical")
    turned = plan(copied.source, settings)
    assert not turned.is_done()
    assert reconstruct_examination(turned) is not None
    path = turned.output / "sub-01/ses-a/xfm/sub-01_ses-a_rec-gsvr_from-gsvr_to-scanner_mode-image_xfm.tfm"
    told = read_record(turned.paths.record)["orientation"]
    assert np.allclose(read_itk_pose(path), told["matrix"])
    assert turned.is_done()
    assert BidsExamination.from_json(json.loads(json.dumps(turned.to_json()))).settings == settings
    # and back: what belongs to the other one goes
    assert reconstruct_examination(copied) is not None
    assert not path.exists()


def test_a_template_is_found_from_any_folder(done: BidsExamination):
    settings = replace(SETTINGS, orientation="anatomical", orientation_template="template.nii.gz")
    again = BidsExamination.from_json(replace(done, settings=settings).to_json())
    assert again.settings.oriented.template == Path("template.nii.gz").absolute()
