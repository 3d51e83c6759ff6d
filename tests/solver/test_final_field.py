"""The final field is what predicts what it has not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gsvr.io.checkpoint import read_checkpoint, write_checkpoint
from gsvr.model.fields import GaussianField, LatticeField, SumField
from gsvr.model.geometry import pose_from_parts, rotation_from_vector, transform_points
from gsvr.model.slices import Slices
from gsvr.operators.any_field import predicted
from gsvr.render.points import values_at
from gsvr.render.volume import render_volume
from gsvr.solver.checkpoint import Checkpoint
from gsvr.solver.held_out import held_out
from gsvr.solver.noise_floor import noise_floor
from gsvr.solver.outer_iteration import advance
from gsvr.solver.priors.lattice import LatticePrior
from gsvr.solver.reconstruct import Earlier, Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.seeding import SeedOptions
from gsvr.solver.state import FieldChoice, State
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import moving_brain, true_poses

LATTICE = Stage("final", 1.5, 1, 6, 3, "none", 0.6, sharpened=True)
FREE = replace(LATTICE, outer_iterations=5, free=True, alternative=LATTICE)
BEFORE = Stage("field", 2.5, 1, 3, 5, "none")
OPTIONS = SolverOptions(stages=(BEFORE, FREE))


@pytest.fixture(scope="module")
def slices() -> Slices:
    return prepare_slices(moving_brain().stacks, OPTIONS)


@pytest.fixture(scope="module")
def poses(slices: Slices) -> np.ndarray:
    return true_poses(slices, moving_brain())


# so few Gaussians predict nothing
LATTICE_ALONE = replace(OPTIONS, seeds=SeedOptions(most=60))
# nor does so coarse a lattice
FREE_ALONE = replace(OPTIONS, stages=(BEFORE, replace(FREE, alternative=replace(LATTICE, spacing=5.0))))


@pytest.mark.parametrize(
    ("options", "kind"), [(LATTICE_ALONE, LatticeField), (FREE_ALONE, GaussianField), (OPTIONS, SumField)]
)
def test_what_predicts_best_goes_on(slices: Slices, poses: np.ndarray, options: SolverOptions, kind: type):
    heard: list[tuple[int, int]] = []
    result = reconstruct(slices, options, lambda progress: heard.append((progress.iteration, progress.done)), poses)
    choice = result.choice
    assert choice is not None
    assert isinstance(result.field, kind)
    assert choice.share in {LatticeField: [0.0], GaussianField: [1.0]}.get(kind, [choice.share])
    assert 0 <= choice.share <= 1
    assert len(choice.errors["free"]) == len(choice.errors["average"]) <= FREE.trial_iterations
    assert len(choice.errors["lattice"]) <= LATTICE.trial_iterations
    alone = min(errors[-1] for name, errors in choice.errors.items() if name != "average")
    assert choice.errors["average"][-1] < 1.005 * alone
    assert heard[-1] == (6 if kind is LatticeField else 5, 8)
    # and is fitted to all pixels in the end
    assert result.slices.mask.sum() == slices.mask.sum()
    held = held_out(slices, np.random.default_rng(options.seed))
    residuals = np.abs(result.prediction - slices.values)
    assert residuals[held].mean() < 1.1 * residuals[slices.mask & ~held].mean()
    # what is told of the volume is what the volume shows
    field = result.field
    shown = predicted(field, result.slices, result.poses, result.gains, options.profile) + noise_floor(slices)
    used = result.slices.mask & (slices.per_pixel(result.slice_weights) > 0)
    np.testing.assert_allclose(shown[used], result.prediction[used], rtol=0.01, atol=0.01 * slices.values.max())


def test_fits_end_once_that_lowers_the_error_no_longer(slices: Slices, poses: np.ndarray):
    patient = replace(FREE, outer_iterations=40, alternative=replace(LATTICE, outer_iterations=40))
    choice = reconstruct(slices, replace(OPTIONS, stages=(BEFORE, patient)), poses=poses).choice
    assert choice is not None
    for name in ("lattice", "average"):
        falls = 1 - np.array(choice.errors[name][1:]) / choice.errors[name][:-1]
        assert 1 <= len(falls) < 30
        assert (falls[:-1] >= 0.001).all()
        assert falls[-1] < 0.001


@pytest.mark.parametrize(("share", "n_free", "n_lattice"), [(0.4, 5, 6), (1.0, 5, 4), (0.0, 0, 6)])
def test_what_is_known_is_not_tried_again(
    slices: Slices,
    poses: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    n_free: int,
    n_lattice: int,
):
    taken: list[tuple[str, float]] = []

    def counted(stage: Stage, options: SolverOptions, state: State) -> State:
        taken.append(("free" if stage.free else stage.name, state.prior_factor))
        return advance(stage, options, state)

    monkeypatch.setattr("gsvr.solver.final_field.advance", counted)
    monkeypatch.setattr("gsvr.solver.reconstruct.advance", counted)
    start = reconstruct(slices, replace(OPTIONS, stages=(BEFORE,)), poses=poses).field
    assert isinstance(start, LatticeField)
    taken.clear()
    earlier = Earlier(start, {}, FieldChoice(share, 0.25, 7, {"free": (0.1,)}))
    result = reconstruct(slices, OPTIONS, poses=poses, earlier=earlier)
    assert result.choice == earlier.choice
    assert taken.count(("free", 0.25)) == n_free
    assert taken.count(("final", 0.25)) == n_lattice
    assert len([name for name, _ in taken if name != "field"]) == n_free + n_lattice


def test_an_average_predicts_better_than_either(slices: Slices, poses: np.ndarray):
    choice = reconstruct(slices, OPTIONS, poses=poses).choice
    assert choice is not None
    assert 0 < choice.share < 1
    assert choice.errors["average"][-1] < min(choice.errors["free"][-1], choice.errors["lattice"][-1])


def test_the_difference_is_that_of_the_two_fields(slices: Slices, poses: np.ndarray):
    states: list[State] = []
    result = reconstruct(slices, OPTIONS, lambda progress: states.append(progress.state), poses)
    last = states[-1]
    assert last.partner is not None
    assert result.difference is not None
    points = np.array([12.0, -7.0, 20.0]) + np.random.default_rng(0).uniform(-15, 15, (50, 3))
    free, lattice = (values_at(state.own_field, points) for state in (last, last.partner))
    shown = values_at(result.difference, points)
    scale = np.vdot(shown, free - lattice) / np.vdot(shown, shown)  # of intensities
    np.testing.assert_allclose(scale * shown, free - lattice, atol=0.02)
    # and moves with the volume
    pose = pose_from_parts(rotation_from_vector(np.array([0.0, 0.0, 0.4])), np.array([3.0, 0.0, 0.0]))
    moved = result.turned(pose).difference
    assert moved is not None
    np.testing.assert_allclose(values_at(moved, transform_points(pose, points)), shown, atol=1e-3 * np.abs(shown).max())


def test_the_volume_is_as_bright_as_its_slices(slices: Slices, poses: np.ndarray):
    result = reconstruct(slices, OPTIONS, poses=poses)
    whole = predicted(result.field, result.slices, result.poses, result.gains, result.profile)
    if result.bias is not None:
        whole *= result.bias.at(result.slices)
    whole += noise_floor(slices)
    used = result.slices.mask
    assert whole[used].mean() == pytest.approx(result.prediction[used].mean(), rel=1e-3)


def test_a_prior_that_is_too_strong_is_made_weaker(slices: Slices, poses: np.ndarray):
    strong = replace(OPTIONS, prior=LatticePrior(strength=0.8))
    choice = reconstruct(slices, strong, poses=poses).choice
    assert choice is not None
    assert choice.prior_factor == 0.125
    assert choice.errors["lattice, prior x 0.125"][-1] < 0.98 * choice.errors["lattice"][-1]


def test_samples_are_of_the_average(slices: Slices, poses: np.ndarray):
    result = reconstruct(slices, replace(OPTIONS, uncertainty_samples=2), poses=poses)
    parts: list[np.ndarray] = []
    for sample in result.deviations:
        assert isinstance(sample, SumField)
        parts += [render_volume(part, 2.0, result.mask).data.ravel() for part in sample.parts]
    alike = np.corrcoef(parts)
    # noise of the pixels is the same for both fields, so that their samples resemble each other, and no other
    assert min(alike[0, 1], alike[2, 3]) > 0.2
    assert np.abs(alike[:2, 2:]).max() < 0.1


@pytest.mark.parametrize("options", [LATTICE_ALONE, OPTIONS])
def test_a_resumed_run_goes_on_with_what_was_chosen(
    slices: Slices, poses: np.ndarray, tmp_path: Path, options: SolverOptions
):
    kept: list[Checkpoint] = []

    def keep(progress: Progress) -> None:
        kept.append(progress.checkpoint())

    whole = reconstruct(slices, options, keep, poses)
    for checkpoint in (kept[0], kept[-2], kept[-1]):
        write_checkpoint(tmp_path / "run.safetensors", checkpoint)
        resumed = reconstruct(slices, options, checkpoint=read_checkpoint(tmp_path / "run.safetensors"))
        np.testing.assert_array_equal(resumed.field.amplitudes, whole.field.amplitudes)
        np.testing.assert_array_equal(resumed.prediction, whole.prediction)
        assert resumed.choice == whole.choice


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"free": False}, "an alternative is on a lattice, to free Gaussians"),
        ({"geometry_steps": 3}, "without geometry steps"),
        ({"outer_iterations": 1}, "a trial needs more than 1 outer iteration, and 2 on the lattice"),
        ({"alternative": replace(LATTICE, outer_iterations=2)}, "a trial needs more than 1 outer iteration"),
    ],
)
def test_a_stage_says_what_cannot_be_compared(wrong: dict[str, int], told: str):
    with pytest.raises(ValueError, match=told):
        replace(FREE, **wrong)  # pyright: ignore[reportArgumentType]
