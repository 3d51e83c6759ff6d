"""Whole rounds and whole reconstructions on a device against those of the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends.torch import lattice_tiles as tiles
from gsvr.evaluation import compare
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.render.volume import render_volume
from gsvr.solver import reconstruct as solver
from gsvr.solver.motion import displacements
from gsvr.solver.rounds import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State
from gsvr.workflows.pipeline import prepare_slices
from tests.acquisitions import small_slices
from tests.moving_brain import QUICK_STAGES, moving_brain, small_brain

torch = pytest.importorskip("torch", reason="the solver on a device needs PyTorch")
from gsvr.device_solver.device_rounds import DeviceChoices, DeviceStage  # noqa: E402
from gsvr.device_solver.device_stages import DeviceStages  # noqa: E402
from tests.backends.tiled_kernels import DEVICE, TRITON, kernels_named  # noqa: E402

OPTIONS = SolverOptions()
# A cut-off (standard deviations) beyond which nothing is left in float32
WIDE = 6.0
# Conjugate gradients magnify the rounding of float32: after eight steps on this problem the reference itself in
# float32 and in float64 differ by 4e-5, after four by 2e-6. So there are few steps here, and three rounds of them.
LIMIT = 2e-4


def wavy_slices() -> Slices:
    slices, _ = small_slices()
    x, y, z = slices.pixel_positions().T
    values = np.exp(-(x**2 + y**2 + 2 * z**2) / 60) + 0.5 * np.exp(-((x - y) ** 2) / 6)
    noise = np.random.default_rng(1).normal(0, 0.02, len(values))
    return replace(slices, values=(values + noise).astype(np.float32))


def first_state(slices: Slices, stage: Stage, poses: np.ndarray) -> State:
    """As `begin_stage` makes it, on reference kernels and with a cut-off that costs nothing."""
    state = begin_stage(slices, stage, OPTIONS, None, poses)
    operator = AcquisitionOperator(state.operator.lattice, slices, poses, state.gains, backend="reference", cutoff=WIDE)
    return replace(state, operator=operator)


def difference(slices: Slices, got: State, want: State) -> dict[str, float]:
    """Largest differences, of intensities as a share of the largest."""
    return {
        "amplitudes": float(np.abs(got.amplitudes - want.amplitudes).max() / np.abs(want.amplitudes).max()),
        "prediction": float(
            np.abs(got.prediction - want.prediction)[slices.mask].max() / np.abs(want.prediction).max()
        ),
        "poses (mm)": float(displacements(slices, got.poses, want.poses).max()),
        "gains": float(np.abs(got.gains - want.gains).max()),
        "pixel weights": float(np.abs(got.weights.pixels - want.weights.pixels).max()),
        "noise": abs(got.weights.noise / want.weights.noise - 1),
    }


@pytest.mark.parametrize(
    ("name", "motion"),
    [("plain", "none"), ("plain", "stacks"), ("plain", "slices"), pytest.param("triton", "slices", marks=TRITON.marks)],
)
def test_rounds_are_those_of_the_host(name: str, motion: str):
    """Float32 on both sides, with sums in other orders; the host on the reference kernels."""
    slices, stage = wavy_slices(), Stage("test", 3.0, 1, 1, 2, motion, 0.7)
    _, poses = small_slices()
    want = first_state(slices, stage, poses)
    choices = DeviceChoices(tiles=kernels_named(name))
    running = DeviceStage(slices, stage, OPTIONS, want, DEVICE, choices)
    for _ in range(1 if name == "triton" else 3):
        before, want = want.poses, advance(slices, stage, OPTIONS, want)
        moved = running.advance()
        assert moved == pytest.approx(np.median(displacements(slices, before, want.poses)), abs=1e-3)
        found = difference(slices, running.state(), want)
        assert all(value < LIMIT for value in found.values()), found


def test_the_diagonal_stays_until_slices_move():
    slices, (_, poses) = wavy_slices(), small_slices()
    for motion in ("none", "slices"):
        stage = Stage("test", 3.0, 1, 1, 2, motion, 0.7)
        running = DeviceStage(slices, stage, OPTIONS, first_state(slices, stage, poses), DEVICE)
        kept = []
        for _ in range(2):
            running.advance()
            kept.append(running.state().diagonal)
        if motion == "slices":
            assert kept == [None, None]
            continue
        assert np.array_equal(*kept)
        made_anew = running.operator.diagonal(running.weights.pixels).cpu().numpy()
        assert not np.array_equal(kept[1], made_anew)
        np.testing.assert_allclose(kept[1], made_anew, atol=0.5 * made_anew.max())


def test_deterministic_rounds_give_the_same_bits_again():
    slices, stage = wavy_slices(), Stage("test", 3.0, 1, 1, 4, "slices", 0.7)
    _, poses = small_slices()
    options, first = replace(OPTIONS, deterministic=True), first_state(slices, stage, poses)
    ends = []
    for _ in range(2):
        running = DeviceStage(slices, stage, options, first, DEVICE)
        assert running.operator.kernel.deterministic
        for _ in range(2):
            running.advance()
        ends.append(running.state())
    assert np.array_equal(ends[0].amplitudes, ends[1].amplitudes)
    assert np.array_equal(ends[0].poses, ends[1].poses)


def test_in_float32_throughout_as_on_apples_cards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiles, "exact_type", lambda _: torch.float32)
    slices, stage = wavy_slices(), Stage("test", 3.0, 1, 1, 2, "slices", 0.7)
    _, poses = small_slices()
    want = first_state(slices, stage, poses)
    running = DeviceStage(slices, stage, OPTIONS, want, DEVICE)
    assert running.operator.poses.dtype == torch.float32
    for _ in range(3):
        want = advance(slices, stage, OPTIONS, want)
        running.advance()
    found = difference(slices, running.state(), want)
    # poses and sums of float32 are good to a micrometre and a millionth; three rounds multiply that
    assert all(value < 2e-3 for value in found.values()), found


def test_a_reconstruction_is_as_good_as_on_the_host(monkeypatch: pytest.MonkeyPatch):
    simulation = moving_brain()
    slices, _ = prepare_slices(simulation.stacks, OPTIONS)
    stages = tuple(replace(stage, rounds=min(stage.rounds, 2)) for stage in QUICK_STAGES)
    options = replace(OPTIONS, stages=stages)
    want = solver.reconstruct(slices, options)

    monkeypatch.setattr(solver, "stages_of", lambda options: DeviceStages(options, DEVICE))
    told = []
    got = solver.reconstruct(slices, options, told.append)
    assert [entry.stage.name for entry in told if entry.stage_done] == [stage.name for stage in stages]
    assert told[-1].done == told[-1].total
    scores = [
        compare(render_volume(result.field, 0.8, result.mask), small_brain()).quality.psnr for result in (got, want)
    ]
    moved = displacements(want.slices, want.poses, got.poses)
    outside = ~want.slices.mask
    assert np.corrcoef(got.prediction[outside], want.prediction[outside])[0, 1] > 0.99  # every pixel is predicted
    assert abs(scores[0] - scores[1]) < 0.05
    # both together may lie a little elsewhere, which nobody can see
    assert np.percentile(moved, 90) < 0.1
