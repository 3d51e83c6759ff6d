"""Outer iterations: how stages begin, what each iteration improves, and parts that are replaced by others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from jaxtyping import Float

from gsvr.backends import Backend
from gsvr.backends.protocol import Array
from gsvr.errors import InputError
from gsvr.model.fields import GaussianField, Lattice, LatticeField, lattice_values
from gsvr.model.geometry import identity_poses, transform_points
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator, PoseEquations
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.amplitudes import refit
from gsvr.solver.checkpoint import Checkpoint
from gsvr.solver.gains import slice_levels
from gsvr.solver.loss import Weights
from gsvr.solver.motion import displacements
from gsvr.solver.outer_iteration import advance, begin_stage, resampled_amplitudes, reweighted, stage_lattice
from gsvr.solver.priors.lattice import LatticePrior
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State
from tests.solver.oblique import oblique_slices, recorded_scene, same_array
from tests.solver.priors.energy import prior_energy

MOVING = Stage("moving", 2.5, 1, 1, 5)
STACKS = replace(MOVING, motion="stacks")
STILL = replace(MOVING, motion="none")
FREE = replace(STILL, name="free", spacing=2.0, free=True)
SLICES = recorded_scene()


def options_on(backend: Backend) -> SolverOptions:
    return SolverOptions(stages=(MOVING,), backend=backend.name)


@pytest.fixture(scope="module")
def options(backend: Backend) -> SolverOptions:
    return options_on(backend)


@pytest.fixture(scope="module")
def first(options: SolverOptions) -> State:
    """At the start of the first stage."""
    return begin_stage(SLICES, MOVING, options)


@pytest.fixture(scope="module")
def settled(options: SolverOptions, first: State) -> State:
    """After four outer iterations."""
    return advanced(MOVING, options, first, 4)


def advanced(stage: Stage, options: SolverOptions, state: State, count: int) -> State:
    for _ in range(count):
        state = advance(stage, options, state)
    return state


def residual_size(state: State, prediction: Array | None = None) -> float:
    prediction = state.operator.backend.host(state.prediction if prediction is None else prediction)
    return float(np.sqrt(np.mean((SLICES.values - prediction)[SLICES.mask] ** 2)))


# --- how a stage begins


def test_lattice_surrounds_every_pixel_in_use_where_its_pose_puts_it():
    slices, poses = oblique_slices()
    lattice = stage_lattice(slices, poses, MOVING, SolverOptions(margin=4.5, gap=0.0))
    owner = slices.per_pixel(np.arange(slices.n_slices))[slices.mask]
    placed = transform_points(poses[owner], slices.pixel_positions()[slices.mask])
    index = (placed - lattice.origin) / lattice.spacing
    for corner in np.ndindex(2, 2, 2):
        site = np.floor(index).astype(int) + corner
        assert lattice.support[tuple(site.T)].all()
    sites = np.argwhere(lattice.support) * lattice.spacing + lattice.origin
    nearest = np.linalg.norm(sites[:, None] - placed, axis=2).min(axis=1)
    assert nearest.max() <= 4.5 + lattice.spacing * np.sqrt(3) / 2
    assert lattice.sigma == pytest.approx(MOVING.sigma_ratio * 2.5)


def test_the_first_state_knows_nothing(first: State):
    assert not first.has_field
    assert not bool(first.prediction.any())
    np.testing.assert_array_equal(first.poses, identity_poses(SLICES.n_slices))
    np.testing.assert_array_equal(first.gains, slice_levels(SLICES))
    np.testing.assert_array_equal(first.weights.slices, 1)
    np.testing.assert_array_equal(first.operator.backend.host(first.weights.pixels), SLICES.coverage * SLICES.mask)


def test_poses_given_are_the_first_ones(options: SolverOptions):
    slices, poses = oblique_slices()
    np.testing.assert_array_equal(begin_stage(slices, MOVING, options, None, poses).poses, poses)


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
    handed = LatticeField(lattice, resampled_amplitudes(field, lattice))
    inside = np.linspace(18, 40, 12)
    before, after = (lattice_values(f, (inside, inside, inside)) - 1 for f in (field, handed))
    assert np.abs([before.mean() - after.mean()]) < 0.01
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999
    # values at the sites, spread by the finer Gaussians once more: 19 % off waves of 25 mm at 3.5 mm, 2 % at 1.1 mm
    blur = np.exp(-0.5 * (WAVE @ WAVE) * sigma**2)
    assert after.std() / before.std() == pytest.approx(blur, abs=0.01)


def test_sites_that_lattices_share_keep_their_amplitudes():
    field = wavy_field(2.0, 1.4)
    n = field.lattice.shape[0]
    other = Lattice(np.array([6.0, -4.0, 10.0]), 2.0, 1.4, np.ones((n, n, n), bool))
    handed = resampled_amplitudes(field, other)
    np.testing.assert_array_equal(handed[: n - 3, 2:, : n - 5], field.amplitudes[3:, : n - 2, 5:])
    assert not handed[n - 3 :].any()
    assert not handed[:, :2].any()
    assert not handed[:, :, n - 5 :].any()
    np.testing.assert_array_equal(resampled_amplitudes(field, field.lattice), field.amplitudes)
    far = Lattice(np.full(3, 1000.0), 2.0, 1.4, np.ones((3, 3, 3), bool))
    assert not resampled_amplitudes(field, far).any()


def test_amplitudes_stay_on_the_support():
    field = wavy_field(5.0, 4.0)
    support = np.ones((20, 20, 20), bool)
    support[:5] = False
    handed = resampled_amplitudes(field, Lattice(np.zeros(3), 2.0, 1.5, support))
    assert not handed[:5].any()
    assert handed[5:].any()


def test_the_next_stage_starts_where_the_last_one_ended(options: SolverOptions, settled: State):
    following = begin_stage(SLICES, replace(MOVING, spacing=2.0), options, settled)
    np.testing.assert_array_equal(following.poses, settled.poses)
    np.testing.assert_array_equal(following.gains, settled.gains)
    assert following.weights is settled.weights
    lattice = following.operator.primitives
    assert isinstance(lattice, Lattice)
    assert lattice.spacing == 2.0
    assert same_array(
        following.prediction, following.operator.predict(following.amplitudes), following.operator.backend
    )
    assert residual_size(following) < 0.2 * residual_size(following, 0 * following.prediction)


def test_free_gaussians_start_where_the_lattice_ended(options: SolverOptions, settled: State):
    free = begin_stage(SLICES, FREE, options, settled)
    assert isinstance(free.field, GaussianField)
    np.testing.assert_array_equal(free.poses, settled.poses)
    np.testing.assert_array_equal(free.gains, settled.gains)
    assert same_array(free.prediction, free.operator.predict(free.amplitudes), free.operator.backend)
    # seeds are to be fitted yet: where their density changes, as at the rim, they are only about right
    assert residual_size(free) < 0.6 * residual_size(free, 0 * free.prediction)


def test_free_gaussians_start_from_a_lattice_and_come_last(options: SolverOptions, settled: State):
    with pytest.raises(ValueError, match=r"stage 'free': free Gaussians need a field on a lattice to start from$"):
        begin_stage(SLICES, FREE, options)
    free = begin_stage(SLICES, FREE, options, settled)
    for stage in (STILL, FREE):
        with pytest.raises(ValueError, match=rf"^stage '{stage.name}' needs a field on a lattice.*come last$"):
            begin_stage(SLICES, stage, options, free)


# --- what an outer iteration does


def test_outer_iterations_fit_the_slices_ever_better(options: SolverOptions, first: State):
    state, sizes = first, [residual_size(first)]
    for _ in range(5):
        state = advance(STILL, options, state)
        sizes.append(residual_size(state))
    assert sizes[1] < 0.2 * sizes[0]
    assert sizes[-1] < 0.7 * sizes[1]
    assert np.average(state.gains) == pytest.approx(1, abs=0.05)


def test_from_nothing_amplitudes_take_twice_the_steps_and_weights_come_next(options: SolverOptions, first: State):
    backend = first.operator.backend
    once = advance(STILL, options, first)
    assert same_array(once.amplitudes, refit(first, 2 * STILL.inner_iterations).amplitudes, backend)
    assert not same_array(once.amplitudes, refit(first, STILL.inner_iterations).amplitudes, backend)
    assert once.weights is first.weights
    twice = advance(STILL, options, once)
    assert same_array(twice.amplitudes, refit(reweighted(options, once), STILL.inner_iterations).amplitudes, backend)
    assert twice.weights.slices.min() < 1


def test_weights_and_gains_are_those_of_the_last_prediction(options: SolverOptions, settled: State):
    backend, operator = settled.operator.backend, settled.operator
    state = reweighted(options, settled)
    weights = options.loss.weights(operator, settled.prediction)
    assert same_array(state.weights.pixels, weights.pixels, backend)
    gains = options.intensity.gains(operator, operator.without_gains(settled.prediction), weights.pixels)
    np.testing.assert_array_equal(state.gains, gains)
    assert same_array(state.amplitudes, settled.amplitudes, backend)
    at_gains = state.operator.predict(state.amplitudes)
    # the prediction was carried along by conjugate gradients and made anew only when poses changed
    assert float(abs(state.prediction - at_gains).max()) < 1e-5 * float(abs(at_gains).max())


def test_an_outer_iteration_leaves_the_state_it_came_from_alone(options: SolverOptions, settled: State):
    def parts() -> list[np.ndarray]:
        host = settled.operator.backend.host
        on_host = (settled.poses, settled.gains, SLICES.values)
        return [
            np.copy(part)
            for part in (*map(host, (settled.amplitudes, settled.prediction, settled.weights.pixels)), *on_host)
        ]

    before = parts()
    advance(MOVING, options, settled)
    for kept, now in zip(before, parts(), strict=True):
        np.testing.assert_array_equal(now, kept)


def test_motion_none_moves_nothing_and_stacks_move_together(options: SolverOptions, first: State, settled: State):
    still = advanced(STILL, options, settled, 2)
    np.testing.assert_array_equal(still.poses, settled.poses)
    moved = advanced(STACKS, options, first, 2)
    for stack in (0, 1):
        of_stack = moved.poses[SLICES.stack_index == stack]
        np.testing.assert_allclose(of_stack, np.broadcast_to(of_stack[0], of_stack.shape), atol=1e-9)
    assert np.abs(moved.poses - first.poses).max() > 1e-4
    assert np.ptp(displacements(SLICES, first.poses, settled.poses)) > 1e-3


def test_the_prediction_is_that_of_the_new_poses(options: SolverOptions, settled: State):
    state = advance(MOVING, options, settled)
    assert np.abs(state.poses - settled.poses).max() > 1e-6
    assert same_array(state.prediction, state.operator.predict(state.amplitudes), state.operator.backend)
    assert state.diagonal is None  # the poses it was of are gone


@pytest.mark.parametrize("free", [False, True])
def test_every_outer_iteration_lowers_what_it_minimises(options: SolverOptions, settled: State, free: bool):
    stage = FREE if free else STILL
    state = begin_stage(SLICES, stage, options, settled)
    backend = state.operator.backend
    for _ in range(3):
        after = advance(stage, options, state)
        assert state.prior is not None
        strength, costs = state.prior.strength * after.weights.white_noise**2, []
        for amplitudes in (state.amplitudes, after.amplitudes):
            residual = (after.operator.pixels.values - after.operator.predict(amplitudes)) ** 2
            energy = (amplitudes * state.prior.at(state.amplitudes).apply(amplitudes, strength)).sum()
            costs.append(float((after.weights.pixels * residual).sum()) + float(energy))
        assert costs[1] < 0.999 * costs[0]
        at_end = after.operator.predict(after.amplitudes)
        assert np.abs(backend.host(after.prediction - at_end)).max() < 1e-4
        state = after


def test_a_stronger_prior_gives_a_smoother_field(options: SolverOptions):
    energies = []
    for strength in (0.01, 10.0):
        asked = replace(options, prior=LatticePrior(strength=strength))
        field = advanced(STILL, asked, begin_stage(SLICES, STILL, asked), 4).field
        assert isinstance(field, LatticeField)
        energies.append(prior_energy(field.lattice, field.amplitudes, LatticePrior().edge))
    assert energies[1] < 0.8 * energies[0]


# --- backends


def on_backend(state: State, options: SolverOptions) -> State:
    """The same state on another backend, with a cut-off so wide that what backends leave out is nothing."""
    bias = np.zeros((len(SLICES.stack_names), 9))
    kept = Checkpoint.of("any", 1, False, state, SLICES.mask, bias).state(SLICES, options, STILL)
    rest = (SLICES, kept.poses, kept.gains, options.profile, options.backend, 6.0)
    field = kept.own_field
    operator = (
        LatticeOperator(field.lattice, *rest) if isinstance(field, LatticeField) else GaussianOperator(field, *rest)
    )
    return replace(kept, operator=operator, prediction=operator.predict(kept.amplitudes), diagonal=None)


@pytest.mark.parametrize("stage", [MOVING, FREE])
def test_all_backends_give_the_same_state(backend: Backend, stage: Stage):
    """Float32 sums in another order differ by some 1e-7 each, which a few iterations of weights and poses amplify."""
    on_cpu = SolverOptions(stages=(MOVING,), backend="cpu")
    start = advanced(MOVING, on_cpu, begin_stage(SLICES, MOVING, on_cpu), 1)
    start = begin_stage(SLICES, stage, on_cpu, start)
    found, want = (advanced(stage, options, on_backend(start, options), 3) for options in (options_on(backend), on_cpu))
    assert displacements(SLICES, found.poses, want.poses).max() < 1e-3
    np.testing.assert_allclose(found.gains, want.gains, atol=1e-4)
    np.testing.assert_allclose(found.weights.slices, want.weights.slices, atol=2e-3)
    assert found.weights.white_noise == pytest.approx(want.weights.white_noise, rel=1e-3)
    for got, expected in ((found.amplitudes, want.amplitudes), (found.prediction, want.prediction)):
        np.testing.assert_allclose(backend.host(got), expected, atol=2e-3 * np.abs(expected).max())


# --- parts of one's own


@dataclass(frozen=True)
class FirstSliceOnly:
    """A loss: nothing but the first slice of each stack is believed."""

    def weights(self, operator: AcquisitionOperator, prediction: Array) -> Weights:
        believed = (operator.slices.slice_index == 0).astype(np.float64) + 1e-3
        pixels = operator.pixels
        return Weights(pixels.coverage * pixels.per_pixel(believed), believed, 0.01, 0.01, 0 * believed)


@dataclass(frozen=True)
class HalfAsBright:
    """An intensity model: odd slices are half as bright as even ones."""

    def gains(self, operator: AcquisitionOperator, plain: Array, weights: Array, mean_one: bool = True) -> np.ndarray:
        return np.where(operator.slices.slice_index % 2, 0.5, 1.0)


@dataclass(frozen=True)
class Sideways:
    """A motion model: everything moves by a mm along x, whatever the equations say."""

    def moved(
        self, slices: Slices, poses: Float[np.ndarray, "n 4 4"], equations: PoseEquations, noise_variance: float
    ) -> Float[np.ndarray, "n 4 4"]:
        assert equations.gradient.shape == (slices.n_slices, 6)
        shift = np.eye(4)
        shift[0, 3] = 1.0
        return shift @ poses


class Ridge:
    """A prior, and its quadratic form: L = 1."""

    strength = 1e6

    def on(self, operator: AcquisitionOperator, level: float = 1.0) -> Ridge:
        return self

    def at(self, amplitudes: Array) -> Ridge:
        return self

    def apply(self, values: Array, factor: float = 1.0, start: Array | None = None) -> Array:
        return factor * values if start is None else start + factor * values

    def preconditioner(self, diagonal: Array, strength: float):
        inverse = 1 / (diagonal + strength)
        return lambda gradient: inverse * gradient

    def noise(self, strength: float, rng: np.random.Generator) -> Array:
        raise NotImplementedError


def test_a_loss_of_ones_own_decides_what_is_believed(options: SolverOptions, settled: State):
    state = advanced(STILL, replace(options, loss=FirstSliceOnly()), settled, 3)
    residual = abs(state.prediction - state.operator.pixels.values) * state.operator.pixels.coverage
    sizes = state.operator.pixels.sum_per_slice(residual) / SLICES.sum_per_slice(SLICES.mask)
    usual = advanced(STILL, options, settled, 3)
    residual = abs(usual.prediction - usual.operator.pixels.values) * usual.operator.pixels.coverage
    before = usual.operator.pixels.sum_per_slice(residual) / SLICES.sum_per_slice(SLICES.mask)
    believed = SLICES.slice_index == 0
    assert np.all(sizes[believed] < before[believed])
    assert np.median(sizes[~believed]) > np.median(before[~believed])


def test_an_intensity_model_of_ones_own_decides_the_gains(options: SolverOptions, settled: State):
    state = advance(STILL, replace(options, intensity=HalfAsBright()), settled)
    np.testing.assert_array_equal(state.gains, np.where(SLICES.slice_index % 2, 0.5, 1.0))
    assert np.abs(state.operator.backend.host(state.prediction - state.operator.predict(state.amplitudes))).max() < 1e-5


@pytest.mark.parametrize(("stage", "part"), [(MOVING, "motion"), (STACKS, "stack_motion")])
def test_a_motion_model_of_ones_own_moves_the_slices(options: SolverOptions, settled: State, stage: Stage, part: str):
    state = advance(stage, replace(options, **{part: Sideways()}), settled)
    expected = settled.poses.copy()
    expected[:, 0, 3] += 1
    np.testing.assert_allclose(state.poses, expected, atol=1e-12)


@pytest.mark.parametrize(("stage", "part"), [(STILL, "prior"), (FREE, "neighbours")])
def test_a_prior_of_ones_own_holds_the_amplitudes(options: SolverOptions, settled: State, stage: Stage, part: str):
    """So strong that next to the noise of the pixels little is left of the field."""
    ours, usual = (
        advance(stage, asked, begin_stage(SLICES, stage, asked, settled))
        for asked in (replace(options, **{part: Ridge()}), options)
    )
    assert isinstance(ours.prior, Ridge)
    assert 0 < float(abs(ours.amplitudes).max()) < 0.2 * float(abs(usual.amplitudes).max())


def test_a_field_that_came_to_nothing_is_told_in_one_sentence():
    """Damaged intensities can leave all amplitudes zero; then there are no weights to go on with."""
    options = SolverOptions()
    settled = begin_stage(SLICES, MOVING, options)
    with pytest.raises(InputError, match="no volume explains any of the slices"):
        begin_stage(SLICES, replace(MOVING, spacing=2.0), options, settled)
    with pytest.raises(InputError, match="do not agree on where anything is"):
        begin_stage(SLICES.with_mask(np.zeros_like(SLICES.mask)), MOVING, options)
