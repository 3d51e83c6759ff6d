"""Slices are taken for as thick as they look, where that is not what was said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gsvr.model.geometry import identity_poses
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.simulation.simulate import SimulationOptions, simulate
from gsvr.solver.checkpoint import Checkpoint
from gsvr.solver.held_out import HeldOut
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import Result, State
from gsvr.solver.thickness import estimated_thickness
from gsvr.workflows.pipeline import prepare_slices

LATTICE = Stage("final", 1.5, 1, 4, 5, "none", 0.6)
FREE = replace(LATTICE, free=True, alternative=LATTICE)
OPTIONS = SolverOptions(stages=(Stage("field", 1.5, 1, 4, 5, "none"), FREE))


def simulated(**options_given: Any) -> Slices:
    """Of a ball full of blobs that are wider than Gaussians of the lattice, and narrower than slices are thick."""
    shape = (52, 52, 52)
    blobs = gaussian_filter(np.random.default_rng(0).standard_normal(shape), 2.0)
    inside = np.linalg.norm(np.indices(shape) - 25.5, axis=0) < 22
    affine = np.eye(4)
    affine[:3, 3] = -25.5
    volume = Volume(((2 + blobs / blobs.std()).clip(0) * inside).astype(np.float32), affine, inside)
    options = SimulationOptions(
        n_stacks=3, in_plane_spacing=1.5, thickness=4.0, motion="none", gain=0.0, signal_loss=0.0
    )
    options = replace(options, **options_given)
    return prepare_slices(simulate(volume, options).stacks, OPTIONS)


@pytest.fixture(scope="module")
def slices() -> Slices:
    return simulated()


def told(slices: Slices, factor: float) -> Slices:
    return replace(slices, thicknesses=factor * slices.thicknesses)


def reconstructed(slices: Slices, options: SolverOptions = OPTIONS) -> Result:
    return reconstruct(slices, options, poses=identity_poses(slices.n_slices))


def test_what_is_held_out_is_not_remembered(slices: Slices, monkeypatch: pytest.MonkeyPatch):
    """Fits start from one whose amplitudes do not depend on those pixels."""
    begun: list[State] = []

    class Kept(Exception):  # noqa: N818, it ends the estimate
        pass

    def keep(_: Slices, unseen: HeldOut, __: Stage, ___: SolverOptions, state: State) -> None:
        begun.append(state)
        held[:] = [unseen.pixels]
        raise Kept

    held: list[np.ndarray] = []
    monkeypatch.setattr("gsvr.solver.thickness._Fits", keep)
    stage, everything = OPTIONS.stages[0], np.ones_like(slices.mask)
    before = advance(stage, OPTIONS, begin_stage(slices, stage, OPTIONS, None, identity_poses(slices.n_slices)))
    for _ in range(2):
        changed = slices.values.copy()
        if held:
            changed[held[0]] += 3
        with pytest.raises(Kept):
            estimated_thickness(replace(slices, values=changed), everything, stage, OPTIONS, before)
    np.testing.assert_allclose(begun[1].amplitudes, begun[0].amplitudes, atol=1e-4)


@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_a_thickness_that_is_said_wrong_is_found(slices: Slices, factor: float):
    result = reconstructed(told(slices, factor))
    assert result.thickness is not None
    assert result.thickness.used
    np.testing.assert_allclose(result.slices.thicknesses, slices.thicknesses, rtol=0.05)
    assert abs(np.log(result.thickness.factor * factor)) < 0.05


def test_what_is_said_right_stays(slices: Slices):
    result = reconstructed(slices)
    assert result.thickness is not None
    assert not result.thickness.used
    assert result.thickness.factor == pytest.approx(1, abs=0.05)
    assert 0 < result.thickness.deviation < 0.05
    np.testing.assert_array_equal(result.slices.thicknesses, slices.thicknesses)


def test_a_gaussian_profile_is_told_from_a_slab(slices: Slices):
    gaussian = simulated(profile="gaussian")
    result = reconstructed(gaussian)
    assert result.thickness is not None
    assert result.thickness.gaussian
    assert result.profile == "gaussian"
    assert abs(np.log(result.thickness.factor)) < 0.05
    for slab in (slices, told(slices, 0.75)):
        other = reconstructed(slab)
        assert other.thickness is not None
        assert any(name.startswith("Gaussian") for name in other.thickness.errors)
        assert (other.thickness.gaussian, other.profile) == (False, "slab")


def test_two_stacks_do_not_tell(slices: Slices):
    two = slices.subset(slices.stack_index < 2)
    assert reconstructed(told(two, 0.75)).thickness is None


def test_nor_does_a_lattice_nearly_as_coarse_as_slices_are_thick(slices: Slices):
    coarse = replace(OPTIONS, stages=(replace(OPTIONS.stages[0], spacing=3.2), FREE))
    assert reconstructed(slices, coarse).thickness is None


def test_headers_may_be_trusted(slices: Slices):
    wrong = told(slices, 0.75)
    result = reconstructed(wrong, replace(OPTIONS, estimate_thickness=False))
    assert result.thickness is None
    np.testing.assert_array_equal(result.slices.thicknesses, wrong.thicknesses)


def test_a_resumed_run_goes_on_with_the_thickness_that_was_found(slices: Slices):
    kept: list[Checkpoint] = []

    def keep(progress: Progress) -> None:
        kept.append(progress.checkpoint())

    wrong = told(slices, 0.75)
    whole = reconstruct(wrong, OPTIONS, keep, identity_poses(slices.n_slices))
    for checkpoint in (kept[0], kept[-1]):
        resumed = reconstruct(wrong, OPTIONS, checkpoint=checkpoint)
        np.testing.assert_array_equal(resumed.slices.thicknesses, whole.slices.thicknesses)
        np.testing.assert_array_equal(resumed.field.amplitudes, whole.field.amplitudes)
        assert (resumed.thickness, resumed.choice) == (whole.thickness, whole.choice)
