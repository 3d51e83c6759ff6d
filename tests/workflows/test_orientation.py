"""A volume in the axes of the brain: everything that is written must still fit together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from gsvr.errors import InputError
from gsvr.evaluation.anatomical_axes import AnatomicalAxes
from gsvr.io.field import read_field
from gsvr.io.nifti import read_volume, write_volume
from gsvr.io.record import read_record
from gsvr.model.geometry import pose_about, transform_points
from gsvr.render.points import values_at
from gsvr.report.page import report_page
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows import orientation as module
from gsvr.workflows.orientation import Orientation, turned_result
from gsvr.workflows.outputs import OutputPaths, write_outputs
from gsvr.workflows.pipeline import Reconstruction, StackInputs, prepare, run
from gsvr.workflows.results import write_result
from gsvr.workflows.stored import stored_examination
from tests.moving_brain import QUICK_STAGES, moving_brain, small_brain
from tests.stack_files import masks_of, write_simulation

OPTIONS = SolverOptions(stages=QUICK_STAGES, uncertainty_samples=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[OutputPaths, Reconstruction, list[Path]]:
    """Outputs of a run with a template that is turned far from the stacks."""
    folder = tmp_path_factory.mktemp("oriented")
    stacks = write_simulation(folder / "stacks", moving_brain())
    brain, odd = small_brain(), pose_about(np.array([0.5, -0.4, 2.5]), np.array([3.0, 40.0, -5.0]), np.zeros(3))
    write_volume(folder / "template.nii.gz", brain.data, odd @ brain.affine)
    asked = Orientation("anatomical", folder / "template.nii.gz")
    job = prepare(StackInputs(stacks, masks_of(stacks)), OPTIONS, fit_stages=False, orientation=asked)
    reconstruction = run(job, 1.5)
    paths = OutputPaths.beside(
        *(folder / "out" / "brain.nii.gz", "anatomical"),
        **{"report": folder / "out" / "brain.html", "uncertainty": folder / "out" / "deviation.nii.gz"},
    )
    write_outputs(reconstruction, paths, {"input_stacks": stacks})
    return paths, reconstruction, stacks


def test_the_volume_lies_on_the_template(finished) -> None:
    paths, reconstruction, _ = finished
    assert reconstruction.turn.space == "anatomical"
    brain, volume = small_brain(), reconstruction.volume
    assert brain.mask is not None
    odd = pose_about(np.array([0.5, -0.4, 2.5]), np.array([3.0, 40.0, -5.0]), np.zeros(3))
    assert np.linalg.norm(volume.centre(volume.mask) - transform_points(odd, brain.centre(brain.mask))) < 2.0
    left = reconstruction.turn.matrix[:3, :3] @ odd[:3, :3].T
    assert np.degrees(np.arccos((np.trace(left) - 1) / 2)) < 4.0
    image = nibabel.Nifti1Image.from_filename(paths.volume)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (2, 2)


def test_everything_moved_together(finished) -> None:
    paths, reconstruction, stacks = finished
    turn = reconstruction.turn.matrix
    # the field at the voxels is the volume: it was sampled once
    stored, volume = read_field(paths.model), read_volume(paths.volume, paths.mask)
    assert volume.mask is not None
    inside = np.argwhere(volume.mask)[::50].astype(float)
    points = transform_points(volume.affine, inside)
    # what rendering leaves out is a share of the Gaussians' peaks, wherever the voxel; dark ones lie around zero
    difference = np.abs(values_at(stored.field, points) - volume.data[tuple(inside.astype(int).T)])
    assert difference.max() < 2e-5 * volume.data.max()
    deviation = read_volume(paths.uncertainty)
    assert np.array_equal(deviation.affine, volume.affine)
    assert (deviation.data[volume.mask] > 0).mean() > 0.95
    # poses and field: slices are predicted as they were before the turn
    acquisition = stored_examination(paths.record, stacks).acquisition
    assert acquisition is not None
    used = acquisition.slices.mask
    assert np.corrcoef(acquisition.prediction[used], acquisition.slices.values[used])[0, 1] > 0.9
    # the transform is that of the record, in ITK's world
    itk = SimpleITK.ReadTransform(str(paths.orientation))
    point = np.array([10.0, -20.0, 30.0])
    moved = np.array(itk.TransformPoint([-10.0, 20.0, 30.0])) * [-1, -1, 1]
    assert np.allclose(moved, transform_points(turn, point[None])[0])
    told = read_record(paths.record)["orientation"]
    assert np.allclose(told["matrix"], turn)
    assert told["template"] == "template.nii.gz"
    assert {"role": "template", "name": "template.nii.gz"}.items() <= read_record(paths.record)["inputs"][-1].items()


def test_the_report_speaks_of_the_axes_of_the_brain(finished) -> None:
    paths, reconstruction, stacks = finished
    page = report_page(stored_examination(paths.record, stacks))
    assert "turned to the axes of the brain" in page
    examination = stored_examination(paths.record, stacks)
    turned = examination.turned_stacks[0].affine
    assert np.allclose(turned, reconstruction.turn.matrix @ reconstruction.job.stacks[0].affine, atol=1e-4)
    # motion is small, however far the volume was turned
    moved = [pose.matrix @ np.linalg.inv(examination.turn) for pose in examination.slices]
    angles = [np.degrees(np.arccos(min(1.0, (np.trace(pose[:3, :3]) - 1) / 2))) for pose in moved]
    assert max(angles) < 20


def test_what_cannot_be_told_stays(finished, monkeypatch: pytest.MonkeyPatch, caplog, tmp_path: Path) -> None:
    _, reconstruction, _ = finished
    unclear = AnatomicalAxes(np.diag([-1.0, -1, 1, 1]), 0.9, 0.01, 0.9)
    monkeypatch.setattr(module, "anatomical_axes", lambda _: unclear)
    result, turn = turned_result(reconstruction.result, Orientation("anatomical"))
    assert result is reconstruction.result
    assert turn is not None
    assert turn.space == "scanner"
    assert "cannot be told" in caplog.text
    asked = Orientation("anatomical")
    written = write_result(tmp_path / "b.nii.gz", result, OPTIONS, output_resolution=2.0, orientation=asked)
    assert written.turn is not None
    assert np.array_equal(read_record(tmp_path / "b.json")["orientation"]["matrix"], np.eye(4))
    assert (tmp_path / "b_orientation.tfm").exists()
    write_result(tmp_path / "b.nii.gz", result, OPTIONS, output_resolution=2.0)  # of which the transform tells nothing
    assert "such as b_orientation.tfm" in caplog.text


def test_what_is_asked_for_is_checked(finished, tmp_path: Path) -> None:
    _, reconstruction, stacks = finished
    with pytest.raises(InputError, match="`orientation` anatomical"):
        Orientation(template=tmp_path / "template.nii.gz")
    with pytest.raises(InputError, match="does not exist"):
        prepare(StackInputs(stacks), OPTIONS, orientation=Orientation("anatomical", tmp_path / "nothing.nii.gz"))
    write_volume(tmp_path / "flat.nii.gz", np.pad(np.ones((9, 9, 9)), 3), np.eye(4))
    with pytest.raises(InputError, match=r"flat.nii.gz has no axes to be found .*: give another"):
        prepare(StackInputs(stacks), OPTIONS, orientation=Orientation("anatomical", tmp_path / "flat.nii.gz"))
    with pytest.raises(InputError, match="no axes to be found"):
        turned_result(reconstruction.result, Orientation("anatomical", tmp_path / "flat.nii.gz"))


def test_a_run_in_another_world_is_another_run(finished) -> None:
    _, reconstruction, _ = finished
    provenance = reconstruction.job.provenance
    elsewhere = replace(provenance, orientation=Orientation("anatomical"))
    plain = replace(provenance, orientation=Orientation())
    assert len({p.run_hash(0.8) for p in (elsewhere, plain)}) == 2


def test_a_notebook_shows_the_result(finished) -> None:
    _, reconstruction, _ = finished
    shown = reconstruction.result._repr_html_()
    assert shown.count("<img") == 1
    assert f"{reconstruction.result.field.n_gaussians:,} Gaussians" in shown
    assert reconstruction.iterations[-1].stage == OPTIONS.stages[-1].name
