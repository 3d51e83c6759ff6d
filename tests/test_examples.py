"""The examples run, and show what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import (
    demo,
    field_at_points,
    from_arrays,
    live_demo,
    reconstruct_step_by_step,
    save_and_resume,
    super_resolution,
)
from gsvr import Volume, brain_phantom
from gsvr.evaluation import compare
from gsvr.io.field import read_field
from gsvr.io.json_lines import read_json_lines
from gsvr.io.mask import read_mask
from gsvr.io.nifti import read_stack, read_volume
from gsvr.io.transforms import read_poses_json
from gsvr.operators.acquisition import PoseEquations, moved_poses
from gsvr.operators.lattice import LatticeOperator
from gsvr.simulation.simulate import Simulation, SimulationOptions, simulate
from tests.acquisitions import small_lattice, small_slices

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def simulated_once() -> Iterator[None]:
    """Examples that image the same phantom by the same options get the same acquisition."""
    made: dict[SimulationOptions, Simulation] = {}

    def simulate_once(volume: Volume, options: SimulationOptions, *rest: Any) -> Simulation:
        assert volume.data.shape == brain_phantom(spacing=2.0).data.shape
        if options not in made:
            made[options] = simulate(volume, options, *rest)
        return made[options]

    with pytest.MonkeyPatch.context() as patch:
        for example in (demo, from_arrays, reconstruct_step_by_step, save_and_resume, super_resolution):
            patch.setattr(example, "simulate", simulate_once)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def scores(folder: Path) -> dict[str, demo.Score]:
    return demo.main(folder, quick=True)


def test_the_demo_shows_that_correction_helps(scores: dict[str, demo.Score]):
    before, after = scores["uncorrected"], scores["reconstructed"]
    assert after.comparison.quality.psnr > before.comparison.quality.psnr + 3
    assert after.comparison.quality.ssim > before.comparison.quality.ssim + 0.15
    assert after.poses.median < 0.25 * before.poses.median


@pytest.mark.usefixtures("scores")
def test_the_demo_writes_what_it_names(folder: Path):
    volume = read_volume(folder / "reconstruction.nii.gz")
    assert read_mask(folder / "reconstruction_mask.nii.gz", volume).any()
    assert read_field(folder / "reconstruction_field.safetensors").mask is not None
    poses = read_poses_json(folder / "reconstruction_poses.json")
    assert {pose.stack for pose in poses} == {"stack-0", "stack-1", "stack-2"}
    stack = read_stack(folder / "stacks" / "stack-1.nii.gz", folder / "stacks" / "stack-1_mask.nii.gz")
    assert max(pose.slice_index for pose in poses if pose.stack == "stack-1") < stack.n_slices
    for name in ("comparison.png", "uncorrected.nii.gz", "truth.nii.gz", "reconstruction.json"):
        assert (folder / name).stat().st_size > 0


def test_step_by_step_tells_a_falling_residual_every_iteration():
    lines: list[str] = []
    residuals = reconstruct_step_by_step.main(lines.append)
    assert len(lines) == len(residuals) == sum(stage.outer_iterations for stage, _ in reconstruct_step_by_step.PLAN)
    start = 0
    for stage, _ in reconstruct_step_by_step.PLAN:  # only inside a stage: pixels of the next are finer and noisier
        assert residuals[start + stage.outer_iterations - 1] < 0.98 * residuals[start]
        start += stage.outer_iterations


def _operator_and_prediction() -> tuple[LatticeOperator, np.ndarray]:
    """Slices and a prediction that is flat but for one pixel, which is far off."""
    slices, poses = small_slices()
    prediction = np.full_like(slices.values, np.median(slices.values))
    prediction[np.flatnonzero(slices.mask)[0]] += 100
    return LatticeOperator(small_lattice(), slices, poses), prediction


def test_the_loss_of_step_by_step_is_hubers():
    operator, prediction = _operator_and_prediction()
    slices, loss = operator.slices, reconstruct_step_by_step.HuberLoss()
    weights = loss.weights(operator, prediction)
    pixels = weights.pixels / slices.per_pixel(weights.slices.astype(np.float32))
    width, residual = loss.width * weights.noise, np.abs(slices.values - prediction)
    np.testing.assert_allclose(pixels[slices.mask & (residual < width)], 1, rtol=1e-5)
    far = slices.mask & (residual > width)
    assert far.any()
    np.testing.assert_allclose((pixels * residual)[far], width, rtol=1e-4)
    assert not pixels[~slices.mask].any()


def test_the_motion_model_of_step_by_step_finds_shifts_and_turns_nothing():
    operator, _ = _operator_and_prediction()
    slices, poses = operator.slices, operator.poses
    rng = np.random.default_rng(0)
    shifts = rng.normal(size=(slices.n_slices, 6)) * [0, 0, 0, 1, 1, 1]
    root = rng.normal(size=(slices.n_slices, 6, 6))
    curvature = root @ root.transpose(0, 2, 1) + 5 * np.eye(6)
    equations = PoseEquations(curvature, np.einsum("nij,nj->ni", curvature, shifts))
    moved = reconstruct_step_by_step.ShiftsOnly(damping=0.0).moved(slices, poses, equations, 1.0)
    np.testing.assert_allclose(moved, moved_poses(slices, poses, shifts), atol=1e-9)


def test_arrays_become_a_volume():
    quality = compare(from_arrays.main(), brain_phantom(spacing=2.0)).quality
    # measured: 24.1 and 0.83; stacks that are not put in place give less than 20 and 0.6
    assert quality.psnr > 23
    assert quality.ssim > 0.78


def test_thick_volumes_of_a_brain_at_rest_become_one_that_beats_their_average(tmp_path: Path):
    mean, ours = (comparison.quality for comparison in super_resolution.main(tmp_path, quick=True).values())
    # measured: 3.3 dB and 0.05
    assert ours.psnr > mean.psnr + 2
    assert ours.ssim > mean.ssim + 0.03
    assert (tmp_path / "comparison.png").stat().st_size > 0


def test_points_that_follow_the_gradient_rise():
    before, after = field_at_points.main()
    assert after.mean() > 3 * before.mean()
    assert (after > before).mean() > 0.95


def test_what_is_taken_up_again_ends_with_the_same_bits():
    resumed, whole = save_and_resume.main()
    np.testing.assert_array_equal(resumed.field.amplitudes, whole.field.amplitudes)
    np.testing.assert_array_equal(resumed.poses, whole.poses)


def test_training_through_the_operator_finds_the_motion():
    pytest.importorskip("torch", reason="autograd is PyTorch's")
    from examples import train_through_the_operator

    scores = train_through_the_operator.main()
    assert scores["unexplained"] < 0.05 * scores["unexplained without motion"]
    assert scores["distance"] < 0.6 * scores["distance before"]


def test_the_live_demo_takes_what_its_scanner_sends(tmp_path: Path):
    for package in ("pynetdicom", "starlette", "uvicorn"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'gsvr[live]'")
    assert live_demo.main(tmp_path, pace=0.0, quick=True, linger=0.5) == 143
    (events,) = tmp_path.glob("volumes/study-*/events.jsonl")
    kinds = [event["event"] for event in read_json_lines(events)]
    assert kinds.count("stack") >= 2
    assert "volume" in kinds
    assert "error" not in kinds
