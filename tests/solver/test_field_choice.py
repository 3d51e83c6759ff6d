"""The field of the final volume is the one that predicts what it has not seen; the rest goes on as without a trial."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.slices import Slices
from gsvr.solver import field_choice
from gsvr.solver.checkpoint import Checkpoint
from gsvr.solver.field_choice import held_out
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import TRIAL_ITERATIONS, SolverOptions, Stage
from gsvr.solver.seeding import SeedOptions
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import moving_brain, true_poses

LATTICE = Stage("final", 1.5, 1, 4, 5, "none", 0.6)
FREE = replace(LATTICE, outer_iterations=3, free=True, alternative=LATTICE)
BEFORE = Stage("field", 2.5, 1, 3, 5, "none")
OPTIONS = SolverOptions(stages=(BEFORE, FREE))


@pytest.fixture(scope="module")
def slices() -> Slices:
    return prepare_slices(moving_brain().stacks, OPTIONS)


@pytest.fixture(scope="module")
def poses(slices: Slices) -> np.ndarray:
    return true_poses(slices, moving_brain())


def test_blocks_are_held_out_all_over_the_pixels_in_use(slices: Slices):
    held = held_out(slices, np.random.default_rng(0))
    assert not (held & ~slices.mask).any()
    assert held.sum() / slices.mask.sum() == pytest.approx(0.06, abs=0.01)
    shares = slices.sum_per_slice(held) / np.maximum(slices.sum_per_slice(slices.mask), 1)
    assert (shares[slices.sum_per_slice(slices.mask) > 500] > 0).all()
    # in squares: nearly all neighbours within one are held out as well
    image = slices.image(int(np.argmax(slices.sum_per_slice(held))), held)
    whole = [
        image[4 * r : 4 * r + 4, 4 * c : 4 * c + 4] for r in range(len(image) // 4) for c in range(image.shape[1] // 4)
    ]
    assert np.mean([block.all() for block in whole if block.any()]) > 0.5
    np.testing.assert_array_equal(held, held_out(slices, np.random.default_rng(0)))
    assert (held != held_out(slices, np.random.default_rng(1))).any()


@pytest.mark.parametrize(
    ("options", "kind", "field"),
    [
        # so few Gaussians predict nothing
        (replace(OPTIONS, seeds=SeedOptions(most=60)), "lattice", LatticeField),
        (
            replace(OPTIONS, stages=(BEFORE, replace(FREE, alternative=replace(LATTICE, spacing=5.0)))),
            "free",
            GaussianField,
        ),
    ],
)
def test_the_better_one_goes_on(slices: Slices, poses: np.ndarray, options: SolverOptions, kind: str, field: type):
    heard: list[tuple[int, int]] = []
    result = reconstruct(slices, options, lambda progress: heard.append((progress.iteration, progress.done)), poses)
    assert result.choice is not None
    assert result.choice.kind == kind == min(result.choice.errors, key=lambda name: result.choice.errors[name][-1])  # pyright: ignore[reportOptionalMemberAccess]
    assert {len(errors) for errors in result.choice.errors.values()} == {TRIAL_ITERATIONS}
    assert isinstance(result.field, field)
    assert heard[-1] == (4 if kind == "lattice" else 3, 6)
    # and is fitted to all pixels in the end
    assert result.slices.mask.sum() == slices.mask.sum()
    held = held_out(slices, np.random.default_rng(options.seed))
    residuals = np.abs(result.prediction - slices.values)
    assert residuals[held].mean() < 1.1 * residuals[slices.mask & ~held].mean()


@pytest.mark.parametrize(("lattice", "kind"), [(0.0502, "free"), (0.04980, "free"), (0.0494, "lattice")])
def test_free_gaussians_win_a_tie(
    slices: Slices, poses: np.ndarray, monkeypatch: pytest.MonkeyPatch, lattice: float, kind: str
):
    tried = field_choice._tried

    def pretended(slices, held, stage, options, previous):
        state, errors = tried(slices, held, stage, options, previous)
        return state, (*errors[:-1], 0.05 if stage.free else lattice)

    monkeypatch.setattr(field_choice, "_tried", pretended)
    result = reconstruct(slices, OPTIONS, poses=poses)
    assert result.choice is not None
    assert result.choice.kind == kind


def test_a_resumed_run_goes_on_with_what_was_chosen(slices: Slices, poses: np.ndarray):
    options, kept = replace(OPTIONS, seeds=SeedOptions(most=60)), list[Checkpoint]()

    def keep(progress: Progress) -> None:
        kept.append(progress.checkpoint())

    whole = reconstruct(slices, options, keep, poses)
    for checkpoint in (kept[0], kept[-2], kept[-1]):
        resumed = reconstruct(slices, options, checkpoint=checkpoint)
        np.testing.assert_array_equal(resumed.field.amplitudes, whole.field.amplitudes)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"free": False}, "an alternative is on a lattice, to free Gaussians"),
        ({"geometry_steps": 3}, "without geometry steps"),
        ({"outer_iterations": 2}, "more than 2 outer iterations"),
    ],
)
def test_a_stage_says_what_cannot_be_compared(wrong: dict[str, int], told: str):
    with pytest.raises(ValueError, match=told):
        replace(FREE, **wrong)  # pyright: ignore[reportArgumentType]
