"""Pieces of a round: first gains, lattices of the stages, handing a field on, and what a round improves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gsvr.solver.rounds import advance, begin_stage, first_gains, refined_amplitudes, stage_lattice

from gsvr.model.fields import Lattice, LatticeField, sample_lattice
from gsvr.model.geometry import transform_points
from gsvr.model.slices import Slices
from gsvr.solver.priors.lattice import prior_energy
from gsvr.solver.schedule import SolverOptions, Stage
from tests.acquisitions import small_slices

STAGE = Stage("test", 2.5, 1, 1, 5)
OPTIONS = SolverOptions(stages=(STAGE,))


@pytest.fixture
def slices() -> Slices:
    """A smooth blob with a ridge, recorded without motion."""
    slices, _ = small_slices()
    x, y, z = slices.pixel_positions().T
    values = np.exp(-(x**2 + y**2 + 2 * z**2) / 60) + 0.5 * np.exp(-((x - y) ** 2) / 6)
    return replace(slices, values=values.astype(np.float32))


def scaled_stack(slices: Slices, factor: float) -> Slices:
    return replace(
        slices, values=slices.values * slices.per_pixel(np.where(slices.stack_index == 1, factor, 1)).astype(np.float32)
    )


def test_first_gains_have_weighted_mean_one_and_the_ratio_of_the_medians(slices: Slices):
    gains = first_gains(scaled_stack(slices, 3.0))
    first, second = gains[slices.stack_index == 0], gains[slices.stack_index == 1]
    assert np.ptp(first) == 0
    assert np.ptp(second) == 0
    medians = [np.median(slices.values[slices.mask & slices.per_pixel(slices.stack_index == k)]) for k in (0, 1)]
    assert second[0] / first[0] == pytest.approx(3 * medians[1] / medians[0], rel=1e-5)


def test_lattice_surrounds_every_pixel_in_use_where_its_pose_puts_it():
    slices, poses = small_slices()
    lattice = stage_lattice(slices, poses, STAGE, replace(OPTIONS, margin=4.0, gap=0.0))
    owner = slices.per_pixel(np.arange(slices.n_slices))[slices.mask]
    placed = transform_points(poses[owner], slices.pixel_positions()[slices.mask])
    index = (placed - lattice.origin) / lattice.spacing
    for corner in np.ndindex(2, 2, 2):
        site = np.floor(index).astype(int) + corner
        assert lattice.support[tuple(site.T)].all()
    sites = np.argwhere(lattice.support) * lattice.spacing + lattice.origin
    nearest = np.linalg.norm(sites[:, None] - placed, axis=2).min(axis=1)
    assert nearest.max() <= 4.0 + lattice.spacing * np.sqrt(3) / 2
    assert lattice.sigma == pytest.approx(STAGE.sigma_ratio * 2.5)


WAVE = np.array([0.18, 0.12, 0.12])  # 2 pi / mm: waves of 25 mm


def wavy_field(spacing: float, sigma: float) -> LatticeField:
    """A plane wave around one on a large lattice."""
    n = int(60 / spacing)
    index = np.moveaxis(np.indices((n, n, n)), 0, -1) * spacing
    level = (spacing / (sigma * np.sqrt(2 * np.pi))) ** 3
    lattice = Lattice(np.zeros(3), spacing, sigma, np.ones((n, n, n), bool))
    return LatticeField(lattice, ((1 + 0.3 * np.sin(index @ WAVE)) * level).astype(np.float32))


@pytest.mark.parametrize(("coarse", "fine"), [(5.0, 3.5), (3.5, 2.5), (2.5, 1.8), (1.8, 1.1)])
def test_a_field_is_handed_on_but_for_a_known_blur(coarse: float, fine: float):
    sigma = 0.7 * fine
    field = wavy_field(coarse, 0.7 * coarse)
    n = int(60 / fine)
    lattice = Lattice(np.zeros(3), fine, sigma, np.ones((n, n, n), bool))
    handed = LatticeField(lattice, refined_amplitudes(field, lattice))
    inside = np.linspace(18, 40, 12)
    before, after = (sample_lattice(f, (inside, inside, inside)) - 1 for f in (field, handed))
    assert np.abs([before.mean() - after.mean()]) < 0.01
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999
    # values at the sites, spread by the finer Gaussians once more: 19 % off waves of 25 mm at 3.5 mm, 2 % at 1.1 mm
    blur = np.exp(-0.5 * (WAVE @ WAVE) * sigma**2)
    assert after.std() / before.std() == pytest.approx(blur, abs=0.01)


def test_amplitudes_stay_on_the_support():
    field = wavy_field(5.0, 4.0)
    support = np.ones((20, 20, 20), bool)
    support[:5] = False
    handed = refined_amplitudes(field, Lattice(np.zeros(3), 2.0, 1.5, support))
    assert not handed[:5].any()
    assert handed[5:].any()


def residual_size(slices: Slices, prediction: np.ndarray) -> float:
    return float(np.sqrt(np.mean((slices.values - prediction)[slices.mask] ** 2)))


def test_rounds_fit_the_slices_ever_better(slices: Slices):
    stage = replace(STAGE, motion="none")
    state = begin_stage(slices, stage, OPTIONS, None)
    assert not state.field.amplitudes.any()
    sizes = [residual_size(slices, state.prediction)]
    for _ in range(5):
        state = advance(slices, stage, OPTIONS, state)
        sizes.append(residual_size(slices, state.prediction))
    assert sizes[1] < 0.2 * sizes[0]
    assert sizes[-1] < 0.7 * sizes[1]
    assert np.average(state.gains, weights=np.ones_like(state.gains)) == pytest.approx(1, abs=0.05)


def test_a_round_leaves_the_state_it_came_from_alone(slices: Slices):
    state = advance(slices, STAGE, OPTIONS, begin_stage(slices, STAGE, OPTIONS, None))
    kept = [
        a.copy() for a in (state.field.amplitudes, state.poses, state.gains, state.prediction, state.weights.pixels)
    ]
    values = slices.values.copy()
    advance(slices, STAGE, OPTIONS, state)
    now = (state.field.amplitudes, state.poses, state.gains, state.prediction, state.weights.pixels)
    for before, after in zip(kept, now, strict=True):
        np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(slices.values, values)


def test_the_next_stage_starts_where_the_last_one_ended(slices: Slices):
    state = begin_stage(slices, STAGE, OPTIONS, None)
    for _ in range(4):
        state = advance(slices, STAGE, OPTIONS, state)
    following = begin_stage(slices, replace(STAGE, spacing=2.0), OPTIONS, state)
    np.testing.assert_array_equal(following.poses, state.poses)
    np.testing.assert_array_equal(following.gains, state.gains)
    assert following.operator.lattice.spacing == 2.0
    assert residual_size(slices, following.prediction) < 0.2 * residual_size(slices, 0 * following.prediction)


def test_poses_given_are_the_first_ones():
    slices, poses = small_slices()
    state = begin_stage(slices, STAGE, OPTIONS, None, poses)
    np.testing.assert_array_equal(state.poses, poses)


def test_motion_none_moves_nothing_and_stacks_move_together(slices: Slices):
    state = begin_stage(slices, STAGE, OPTIONS, None)
    still = advance(slices, replace(STAGE, motion="none"), OPTIONS, advance(slices, STAGE, OPTIONS, state))
    again = advance(slices, replace(STAGE, motion="none"), OPTIONS, still)
    np.testing.assert_array_equal(again.poses, still.poses)
    moved = advance(
        slices,
        replace(STAGE, motion="stacks"),
        OPTIONS,
        advance(slices, replace(STAGE, motion="stacks"), OPTIONS, state),
    )
    for stack in (0, 1):
        of_stack = moved.poses[slices.stack_index == stack]
        np.testing.assert_allclose(of_stack, np.broadcast_to(of_stack[0], of_stack.shape), atol=1e-9)


def test_a_stronger_prior_gives_a_smoother_field(slices: Slices):
    energies = []
    for strength in (0.01, 10.0):
        options = replace(OPTIONS, prior=replace(OPTIONS.prior, strength=strength))
        state = begin_stage(slices, replace(STAGE, motion="none"), options, None)
        for _ in range(4):
            state = advance(slices, replace(STAGE, motion="none"), options, state)
        energies.append(prior_energy(state.operator.lattice, state.amplitudes, options.prior.edge))
    assert energies[1] < 0.8 * energies[0]


def test_zeros_inside_masks_say_nothing_about_a_stacks_level() -> None:
    """A skull-stripped stack with a box for a mask is mostly zero; its brain is as bright as that of the others."""
    slices, _ = small_slices()
    values = np.where(np.arange(len(slices.values)) % 3 == 0, slices.values + 1, 0).astype(np.float32)
    mixed = replace(slices, values=np.where(slices.per_pixel(slices.stack_index) == 0, values, slices.values + 1))
    gains = first_gains(mixed)
    assert 0.9 < gains[slices.stack_index == 0][0] / gains[slices.stack_index == 1][0] < 1.1
    assert np.array_equal(first_gains(replace(slices, values=np.zeros_like(values))), np.ones(slices.n_slices))
