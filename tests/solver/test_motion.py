"""Slice poses: steps that lead to known motion, an exact solve along time, and a prior that adapts to the motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.model.geometry import identity_poses, invert, parts_about, pose_about, transform_points
from gsvr.model.slices import Slices, slices_from_stacks
from gsvr.operators.acquisition import PoseEquations, moved_poses
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver import motion
from gsvr.solver.motion import (
    LEVER,
    SliceMotion,
    StackMotion,
    displacements,
    pose_parameters,
    stack_centres,
    time_links,
)
from tests.solver.oblique import ball_lattice, oblique_slices, oblique_stack, random_amplitudes, unequal_gains

FREE = SliceMotion(prior_share=0.0)
UNITS = np.array([LEVER] * 3 + [1.0] * 3)


class KnownField:
    """A field, slices recorded from it in known poses, and the normal equations of any other poses."""

    def __init__(self, backend: Backend) -> None:
        slices, self.true = oblique_slices()
        self.gains, lattice = unequal_gains(slices), ball_lattice()
        self.amplitudes = backend.array(random_amplitudes(lattice))
        recorded = LatticeOperator(lattice, slices, self.true, self.gains, backend=backend)
        self.slices = replace(slices, values=backend.host(recorded.predict(self.amplitudes)))
        self.operator = LatticeOperator(lattice, self.slices, self.true, self.gains, backend=backend)

    def equations(self, poses: np.ndarray) -> PoseEquations:
        operator, pixels = self.operator.with_poses(poses), self.operator.pixels
        return operator.pose_equations(self.amplitudes, pixels.values, pixels.coverage)

    def misfit(self, poses: np.ndarray) -> np.ndarray:
        pixels = self.operator.pixels
        residual = pixels.values - self.operator.with_poses(poses).predict(self.amplitudes)
        return pixels.sum_per_slice(pixels.coverage * residual * residual)

    def perturbed(self, size: float = 0.3, seed: int = 2) -> np.ndarray:
        steps = np.random.default_rng(seed).normal(scale=size, size=(self.slices.n_slices, 6))
        steps[:, :3] /= LEVER / 4
        return moved_poses(self.slices, self.true, steps)

    def away(self, poses: np.ndarray) -> np.ndarray:
        """Largest distance (mm) of the corners of every slice from where they belong."""
        extent = (self.slices.shapes - 1) * self.slices.pixel_spacings
        corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])[None] * extent[:, None]
        corners = np.concatenate([corners, np.zeros((*corners.shape[:2], 1))], axis=2)
        placed = [transform_points((at @ self.slices.frames)[:, None], corners) for at in (poses, self.true)]
        return np.linalg.norm(placed[0] - placed[1], axis=2).max(axis=1)


@pytest.fixture(scope="module")
def known(backend: Backend) -> KnownField:
    return KnownField(backend)


def test_steps_recover_a_known_perturbation(known: KnownField):
    poses = known.perturbed()
    before = known.away(poses)
    for _ in range(12):
        poses = FREE.moved(known.slices, poses, known.equations(poses), 1e-6)
    after = known.away(poses)
    assert np.median(before) > 0.5
    # slices at the ends of a stack show a few pixels only
    assert np.median(after) < 0.02
    assert np.all(after < 0.5 * before)


def test_at_the_true_poses_nothing_moves(known: KnownField):
    steps = FREE.steps(known.slices, known.true, known.equations(known.true), 1e-6)
    assert np.abs(steps).max() < 1e-4


def test_one_step_lowers_the_residual_of_every_slice(known: KnownField):
    poses = known.perturbed(0.15)
    moved = FREE.moved(known.slices, poses, known.equations(poses), 1e-6)
    assert np.all(known.misfit(moved) < known.misfit(poses))


def test_pose_equations_are_the_sums_over_the_pixels_of_each_slice(known: KnownField):
    rng = np.random.default_rng(1)
    operator, backend = known.operator.with_poses(known.perturbed()), known.operator.backend
    weights = rng.random(len(known.slices.values)).astype(np.float32)
    prediction, jacobian = operator.pose_derivatives(known.amplitudes)
    residual = known.slices.values - backend.host(prediction).astype(np.float64)
    jacobian = np.stack([backend.host(part) for part in jacobian]).astype(np.float64)
    got = operator.pose_equations(known.amplitudes, operator.pixels.values, backend.array(weights))
    for s in range(known.slices.n_slices):
        piece = known.slices.pixels_of(s)
        weighted = jacobian[:, piece] * weights[piece]
        for ours, expected in (
            (got.curvature, weighted @ jacobian[:, piece].T),
            (got.gradient, weighted @ residual[piece]),
        ):
            np.testing.assert_allclose(ours[s], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_steps_are_limited(known: KnownField):
    equations = known.equations(known.perturbed())
    huge = PoseEquations(equations.curvature, 1e6 * equations.gradient)
    for model in (FREE, SliceMotion()):
        steps = model.steps(known.slices, known.perturbed(), huge, 1e-6)
        assert np.abs(steps * UNITS).max() == pytest.approx(model.step_limit)


def test_displacements_are_those_of_the_centre_and_of_a_turn_at_the_lever():
    slices, poses = oblique_slices()
    n = slices.n_slices
    shift, turn = np.array([0.3, -0.4, 1.2]), np.array([0.02, 0.01, -0.02])
    moved = moved_poses(slices, poses, np.tile([0, 0, 0, *shift], (n, 1)))
    np.testing.assert_allclose(displacements(slices, poses, moved), 1.3, rtol=1e-9)
    moved = moved_poses(slices, poses, np.tile([*turn, 0, 0, 0], (n, 1)))
    np.testing.assert_allclose(displacements(slices, poses, moved), 0.03 * LEVER, rtol=1e-6)
    moved = moved_poses(slices, poses, np.tile([*turn, *shift], (n, 1)))
    np.testing.assert_allclose(displacements(slices, poses, moved), np.hypot(0.03 * LEVER, 1.3), rtol=1e-6)


def test_block_tridiagonal_solve_is_the_dense_one():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7):
        factor = rng.normal(size=(6 * n, 6 * n))
        near = np.abs(np.subtract.outer(np.arange(6 * n) // 6, np.arange(6 * n) // 6)) <= 1
        matrix = np.where(near, factor @ factor.T, 0) + 12 * n * np.eye(6 * n)
        right = rng.normal(size=(n, 6))
        blocks = matrix.reshape(n, 6, n, 6).swapaxes(1, 2)
        diagonal, upper = blocks[np.arange(n), np.arange(n)], blocks[np.arange(n - 1), np.arange(1, n)]
        got = motion._solve_block_tridiagonal(diagonal, upper, right)
        np.testing.assert_allclose(got.ravel(), np.linalg.solve(matrix, right.ravel()), rtol=1e-9, atol=1e-12)


def test_steps_to_parameters_is_the_limit_of_differences():
    slices, poses = oblique_slices()
    # far from the world's origin, so that a wrong lever shows
    shift = np.eye(4)
    shift[:3, 3] = [80.0, -50.0, 30.0]
    slices = replace(slices, frames=shift @ slices.frames)
    world = motion._to_world(slices, poses, stack_centres(slices))
    h = 1e-5
    for parameter in range(6):
        step = np.zeros((slices.n_slices, 6))
        step[:, parameter] = h / LEVER if parameter < 3 else h
        plus, minus = (pose_parameters(slices, moved_poses(slices, poses, s * step)) for s in (1, -1))
        # `pose_parameters` are those of the poses, whose rotation vectors bend where the rotation is large
        np.testing.assert_allclose(world[:, 3:, parameter], ((plus - minus) / (2 * h))[:, 3:], atol=1e-6)
    small = pose_about(1e-6 * parts_about(poses, slices.centres)[0], np.zeros((slices.n_slices, 3)), slices.centres)
    world = motion._to_world(slices, small, stack_centres(slices))
    for parameter in range(6):
        step = np.zeros((slices.n_slices, 6))
        step[:, parameter] = h / LEVER if parameter < 3 else h
        plus, minus = (pose_parameters(slices, moved_poses(slices, small, s * step)) for s in (1, -1))
        np.testing.assert_allclose(world[:, :, parameter], (plus - minus) / (2 * h), atol=1e-5)


def test_slices_are_linked_in_the_order_of_acquisition():
    slices, _ = oblique_slices()
    for order in time_links(slices):
        assert len(set(slices.stack_index[order].tolist())) == 1
        assert np.all(np.diff(slices.times[order]) > 0)
        expected = [0, 2, 4, 1, 3] if len(order) == 5 else [0, 2, 4, 1, 3, 5]
        assert slices.slice_index[order].tolist() == expected
    assert np.sort(np.concatenate(time_links(slices))).tolist() == list(range(slices.n_slices))


# --- damping, on slices whose data say what they want in every direction


def wanting(slices: Slices, information: np.ndarray, steps: np.ndarray) -> PoseEquations:
    """Equations of slices with as much information (1 / mm^2) on each parameter, that want these steps (mm)."""
    return PoseEquations((np.eye(6) * UNITS**2) * information[:, None, None], information[:, None] * steps * UNITS)


def test_a_step_is_damped_by_a_share_of_its_own_curvature_and_of_a_typical_one():
    slices, poses = oblique_slices()
    n = slices.n_slices
    rng = np.random.default_rng(3)
    information, steps = rng.uniform(10, 1000, n), rng.uniform(-1, 1, (n, 6))
    information[4] = 0.0
    model = SliceMotion(prior_share=0.0, relaxation=1.0)
    got = model.steps(slices, poses, wanting(slices, information, steps), 1 / model.model_noise) * UNITS
    ridge = model.damping * information + 0.01 * model.damping * np.median(information)
    np.testing.assert_allclose(got, (information / (information + ridge))[:, None] * steps, rtol=1e-6, atol=1e-12)
    relaxed = replace(model, relaxation=1.5).steps(slices, poses, wanting(slices, information, steps), 0.1) * UNITS
    np.testing.assert_allclose(relaxed, 1.5 * got, rtol=1e-9)


@pytest.mark.parametrize("prior_share", [0.0, 1.0])
def test_where_a_slice_shows_nothing_of_a_direction_it_does_not_move_there(prior_share: float):
    """Its curvature has no inverse."""
    slices, poses = oblique_slices()
    equations = wanting(slices, np.full(slices.n_slices, 100.0), np.full((slices.n_slices, 6), 0.1))
    equations.curvature[2, 5] = equations.curvature[2, :, 5] = 0
    equations.gradient[2, 5] = 0
    steps = SliceMotion(prior_share=prior_share).steps(slices, poses, equations, 0.1)
    assert np.isfinite(steps).all()
    if prior_share == 0:
        assert steps[2, 5] == 0
        assert np.all(steps[2, :5] > 0)


def test_a_whole_stack_is_damped_as_well():
    slices, _ = oblique_slices()
    poses = identity_poses(slices.n_slices)
    equations = wanting(slices, np.zeros(slices.n_slices), np.zeros((slices.n_slices, 6)))
    np.testing.assert_array_equal(StackMotion().moved(slices, poses, equations, 1.0), poses)
    # all slices of a stack want the same shift along the world's x
    local = np.einsum("nji,j->ni", slices.frames[:, :3, :3], [0.5, 0, 0])
    steps = np.concatenate([np.zeros_like(local), local], axis=1)
    model = StackMotion(damping=0.25)
    moved = model.moved(slices, poses, wanting(slices, np.full(slices.n_slices, 100.0), steps), 1.0)
    for order in time_links(slices):
        # the trace counts what the slices' levers add to the rotations
        assert 0 < moved[order[0], 0, 3] < 0.5 / 1.25 + 1e-9
    loose = StackMotion(damping=0.0).moved(slices, poses, wanting(slices, np.full(slices.n_slices, 100.0), steps), 1.0)
    np.testing.assert_allclose(loose[:, 0, 3], 0.5, atol=0.01)


# --- the prior in time, on a stack of many slices whose data say where they are


def long_stack(n: int = 40) -> Slices:
    """One stack of `n` slices, acquired in the order of place."""
    stack = oblique_stack(0)
    data = np.repeat(stack.data[:, :, 2:3], n, axis=2)
    mask = np.ones(data.shape, bool)
    return slices_from_stacks([replace(stack, data=data, mask=mask, slice_times=np.arange(float(n)))], [mask])


def pulled_to(slices: Slices, poses: np.ndarray, wanted: np.ndarray, information: np.ndarray) -> PoseEquations:
    """Normal equations of data that want each slice in the pose `wanted`, each with its information (1 / mm^2)."""
    local = invert(poses @ slices.frames) @ wanted @ slices.frames
    centres = transform_points(invert(slices.frames), slices.centres)
    rotation, translation = parts_about(local, centres)
    steps = np.concatenate([rotation * LEVER, translation], axis=1)
    return wanting(slices, information, steps)


def settle(slices: Slices, wanted: np.ndarray, information: np.ndarray, model: SliceMotion) -> np.ndarray:
    poses = identity_poses(slices.n_slices)
    noise_variance = 1 / model.model_noise
    for _ in range(30):
        equations = pulled_to(slices, poses, wanted, information)
        poses = model.moved(slices, poses, equations, noise_variance)
    return poses


def smooth_motion(slices: Slices) -> np.ndarray:
    time = slices.times[:, None] / slices.n_slices
    rotation = 0.1 * np.sin(2 * np.pi * time * [1.0, 0.7, 0.5] + [0, 1, 2])
    translation = 3 * np.cos(2 * np.pi * time * [0.8, 0.5, 1.0])
    return pose_about(rotation, translation, stack_centres(slices))


def test_a_slice_without_content_follows_its_neighbours_in_time():
    slices = long_stack()
    wanted = smooth_motion(slices)
    information = np.full(slices.n_slices, 400.0)
    information[20] = 0.0
    poses = settle(slices, wanted, information, SliceMotion())
    between = (pose_parameters(slices, wanted)[19] + pose_parameters(slices, wanted)[21]) / 2
    np.testing.assert_allclose(pose_parameters(slices, poses)[20], between, atol=0.15)
    alone = settle(slices, wanted, information, FREE)
    assert np.abs(pose_parameters(slices, alone)[20] - between).max() > 1


def test_neighbours_are_those_in_time_not_in_place():
    slices = long_stack()
    order = np.concatenate([np.arange(0, 40, 2), np.arange(1, 40, 2)])
    times = np.empty(40)
    times[order] = np.arange(40.0)
    slices = replace(slices, times=times)
    wanted = smooth_motion(slices)
    information = np.full(slices.n_slices, 400.0)
    information[20] = 0.0
    poses = settle(slices, wanted, information, SliceMotion())
    of_time = (pose_parameters(slices, wanted)[18] + pose_parameters(slices, wanted)[22]) / 2
    of_place = (pose_parameters(slices, wanted)[19] + pose_parameters(slices, wanted)[21]) / 2
    assert np.abs(of_time - of_place).max() > 1
    np.testing.assert_allclose(pose_parameters(slices, poses)[20], of_time, atol=0.2)


def noisy(slices: Slices, poses: np.ndarray, size: float, seed: int = 7) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(scale=size, size=(slices.n_slices, 6))
    noise[:, :3] /= LEVER
    return moved_poses(slices, poses, noise)


def test_smooth_motion_is_held_smooth():
    slices = long_stack()
    true = smooth_motion(slices)
    wanted, information = noisy(slices, true, 0.3), np.full(slices.n_slices, 1 / 0.3**2)
    with_prior, without = (settle(slices, wanted, information, model) for model in (SliceMotion(), FREE))

    def error(poses: np.ndarray) -> float:
        return float(np.sqrt(np.mean((pose_parameters(slices, poses) - pose_parameters(slices, true)) ** 2)))

    assert error(without) == pytest.approx(0.3, rel=0.2)
    assert error(with_prior) < 0.8 * error(without)


def test_independent_motion_is_left_nearly_alone():
    """Its steps are large, so the prior learns to be weak: estimates as good as these move by little."""
    slices = long_stack()
    wanted = noisy(slices, identity_poses(slices.n_slices), 3.0)
    information = np.full(slices.n_slices, 1 / 0.2**2)
    poses = settle(slices, wanted, information, SliceMotion())
    difference = pose_parameters(slices, poses) - pose_parameters(slices, wanted)
    assert np.sqrt(np.mean(difference**2)) < 0.06


def test_a_jump_between_two_slices_is_not_bent():
    slices = long_stack()
    jump = np.zeros((slices.n_slices, 3))
    jump[20:] = [6.0, 0, 0]
    wanted = noisy(slices, pose_about(np.zeros_like(jump), jump, slices.centres), 0.05)
    poses = settle(slices, wanted, np.full(slices.n_slices, 1 / 0.2**2), SliceMotion())
    x = pose_parameters(slices, poses)[:, 3]
    assert np.abs(x[17:20]).max() < 0.4
    assert np.abs(x[20:23] - 6).max() < 0.4


def test_what_slices_that_see_little_want_says_nothing_about_how_far_the_subject_moves():
    """Most links have an end that sees little and wants anything; the others are smooth."""
    slices = long_stack()
    true = smooth_motion(slices)
    information = np.full(slices.n_slices, 400.0)
    blind = np.arange(1, slices.n_slices, 5)
    blind = np.sort(np.concatenate([blind, blind + 2]))
    information[blind] = 4.0

    def away(model: SliceMotion, seed: int) -> float:
        """How far the slices that see little end up from where they are (mm)."""
        wanted = noisy(slices, true, 0.02, seed)
        wanted[blind] = noisy(slices, true, 1.0, seed + 100)[blind]
        poses = settle(slices, wanted, information, model)
        return float(np.median(np.abs(pose_parameters(slices, poses) - pose_parameters(slices, true))[blind]))

    # what a single draw gives varies by a fifth
    trusting, believing = (
        np.mean([away(model, seed) for seed in range(6)]) for model in (SliceMotion(), SliceMotion(trusted_share=0.0))
    )
    assert trusting < 0.2
    assert believing > 2 * trusting
