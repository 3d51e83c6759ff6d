"""Slice poses: steps that lead to known motion, an exact solve along time, and a prior that adapts to the motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gsvr.solver.pose_equations import pose_equations

from gsvr.model.geometry import identity_poses, invert, parts_about, pose_about, transform_points
from gsvr.model.slices import Slices, slices_from_stacks
from gsvr.operators.acquisition import AcquisitionOperator, moved_poses
from gsvr.solver import motion
from gsvr.solver.motion import (
    LEVER,
    MotionOptions,
    NormalEquations,
    pose_normal_equations,
    pose_parameters,
    solve_stack_steps,
    solve_steps,
    stack_centres,
    time_links,
)
from tests.acquisitions import random_amplitudes, small_lattice, small_slices, small_stack

FREE = MotionOptions(prior_share=0.0)


def displacements(slices: Slices, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Largest distance (mm) between the places that two sets of poses give the corners of every slice."""
    extent = (slices.shapes - 1) * slices.pixel_spacings
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])[None] * extent[:, None]
    corners = np.concatenate([corners, np.zeros((*corners.shape[:2], 1))], axis=2)
    placed = [transform_points((poses @ slices.frames)[:, None], corners) for poses in (first, second)]
    return np.linalg.norm(placed[0] - placed[1], axis=2).max(axis=1)


class KnownField:
    """A field, slices recorded from it in known poses, and their normal equations in any other."""

    def __init__(self) -> None:
        self.slices, self.true = small_slices()
        self.lattice = small_lattice()
        self.amplitudes = random_amplitudes(self.lattice)
        values = self._operator(self.true).predict(self.amplitudes)
        self.slices = replace(self.slices, values=values)

    def _operator(self, poses: np.ndarray) -> AcquisitionOperator:
        return AcquisitionOperator(self.lattice, self.slices, poses)

    def equations(self, poses: np.ndarray) -> NormalEquations:
        prediction, jacobian = self._operator(poses).pose_derivatives(self.amplitudes)
        weights = self.slices.coverage * self.slices.mask
        return pose_normal_equations(self.slices, self.slices.values - prediction, jacobian, weights)

    def perturbed(self, size: float = 0.3, seed: int = 2) -> np.ndarray:
        steps = np.random.default_rng(seed).normal(scale=size, size=(self.slices.n_slices, 6))
        steps[:, :3] /= LEVER / 4
        return moved_poses(self.slices, self.true, steps)


@pytest.fixture(scope="module")
def known() -> KnownField:
    return KnownField()


def test_steps_recover_a_known_perturbation(known: KnownField):
    poses = known.perturbed()
    before = displacements(known.slices, poses, known.true)
    for _ in range(12):
        steps = solve_steps(known.slices, poses, known.equations(poses), 1e-6, FREE)
        poses = moved_poses(known.slices, poses, steps)
    after = displacements(known.slices, poses, known.true)
    assert np.median(before) > 0.5
    # slices at the ends of a stack show a few pixels only
    assert np.median(after) < 0.02
    assert np.all(after < 0.5 * before)


def test_at_the_true_poses_nothing_moves(known: KnownField):
    steps = solve_steps(known.slices, known.true, known.equations(known.true), 1e-6, FREE)
    assert np.abs(steps).max() < 1e-4


def test_one_step_lowers_the_residual_of_every_slice(known: KnownField):
    poses = known.perturbed(0.15)
    steps = solve_steps(known.slices, poses, known.equations(poses), 1e-6, FREE)

    def misfit(at: np.ndarray) -> np.ndarray:
        residual = known.slices.values - known._operator(at).predict(known.amplitudes)
        return known.slices.sum_per_slice(known.slices.mask * residual**2)

    assert np.all(misfit(moved_poses(known.slices, poses, steps)) < misfit(poses))


def test_sums_made_pixel_by_pixel_are_those_of_the_jacobian(known: KnownField):
    rng = np.random.default_rng(1)
    weights = rng.random(len(known.slices.values)).astype(np.float32)
    gains = 1 + 0.3 * rng.random(known.slices.n_slices)
    operator = known._operator(known.perturbed()).with_gains(gains)
    prediction, jacobian = operator.pose_derivatives(known.amplitudes)
    expected = pose_normal_equations(known.slices, known.slices.values - prediction, jacobian, weights)
    got = pose_equations(operator, known.amplitudes, known.slices.values, weights)
    for name in ("curvature", "gradient"):
        want = getattr(expected, name)
        np.testing.assert_allclose(getattr(got, name), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


def test_normal_equations_are_sums_over_pixels(known: KnownField):
    rng = np.random.default_rng(0)
    n = len(known.slices.values)
    jacobian = rng.normal(size=(6, n)).astype(np.float32)
    residual, weights = (rng.normal(size=n).astype(np.float32) for _ in range(2))
    equations = pose_normal_equations(known.slices, residual, jacobian, weights)
    unit = np.array([1 / LEVER] * 3 + [1] * 3)
    for s in range(known.slices.n_slices):
        piece = known.slices.pixels_of(s)
        scaled = jacobian[:, piece] * unit[:, None]
        np.testing.assert_allclose(equations.curvature[s], (scaled * weights[piece]) @ scaled.T, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            equations.gradient[s], scaled @ (weights[piece] * residual[piece]), rtol=1e-3, atol=1e-4
        )


def test_steps_are_limited(known: KnownField):
    equations = known.equations(known.perturbed())
    huge = NormalEquations(equations.curvature, 1e6 * equations.gradient)
    for options in (FREE, MotionOptions()):
        steps = solve_steps(known.slices, known.perturbed(), huge, 1e-6, options)
        units = np.array([LEVER] * 3 + [1] * 3)
        assert np.abs(steps * units).max() <= options.step_limit + 1e-9


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
    slices, poses = small_slices()
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
    slices, _ = small_slices()
    for order in time_links(slices):
        assert len(set(slices.stack_index[order].tolist())) == 1
        assert np.all(np.diff(slices.times[order]) > 0)
        assert slices.slice_index[order].tolist() == [0, 2, 4, 1, 3]
    assert np.sort(np.concatenate(time_links(slices))).tolist() == list(range(slices.n_slices))


# --- the prior in time, on a stack of many slices whose data say where they are


def long_stack(n: int = 40) -> Slices:
    """One stack of `n` slices, acquired in the order of place."""
    stack = small_stack("long", np.eye(3), (1.1, 1.1, 3.0), 3.0, 0)
    data = np.repeat(stack.data[:, :, 2:3], n, axis=2)
    mask = np.ones(data.shape, bool)
    return slices_from_stacks([replace(stack, data=data, mask=mask, slice_times=np.arange(float(n)))], [mask])


def pulled_to(slices: Slices, poses: np.ndarray, wanted: np.ndarray, information: np.ndarray) -> NormalEquations:
    """Normal equations of data that want each slice in the pose `wanted`, each with its information (1 / mm^2)."""
    local = invert(poses @ slices.frames) @ wanted @ slices.frames
    centres = transform_points(invert(slices.frames), slices.centres)
    rotation, translation = parts_about(local, centres)
    steps = np.concatenate([rotation * LEVER, translation], axis=1)
    curvature = np.eye(6) * information[:, None, None]
    return NormalEquations(curvature, information[:, None] * steps)


def settle(slices: Slices, wanted: np.ndarray, information: np.ndarray, options: MotionOptions) -> np.ndarray:
    poses = identity_poses(slices.n_slices)
    noise_variance = 1 / options.model_noise
    for _ in range(30):
        equations = pulled_to(slices, poses, wanted, information)
        poses = moved_poses(slices, poses, solve_steps(slices, poses, equations, noise_variance, options))
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
    poses = settle(slices, wanted, information, MotionOptions())
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
    poses = settle(slices, wanted, information, MotionOptions())
    of_time = (pose_parameters(slices, wanted)[18] + pose_parameters(slices, wanted)[22]) / 2
    of_place = (pose_parameters(slices, wanted)[19] + pose_parameters(slices, wanted)[21]) / 2
    assert np.abs(of_time - of_place).max() > 1
    np.testing.assert_allclose(pose_parameters(slices, poses)[20], of_time, atol=0.2)


def noisy(slices: Slices, poses: np.ndarray, size: float) -> np.ndarray:
    noise = np.random.default_rng(7).normal(scale=size, size=(slices.n_slices, 6))
    noise[:, :3] /= LEVER
    return moved_poses(slices, poses, noise)


def test_smooth_motion_is_held_smooth():
    slices = long_stack()
    true = smooth_motion(slices)
    wanted, information = noisy(slices, true, 0.3), np.full(slices.n_slices, 1 / 0.3**2)
    with_prior, without = (settle(slices, wanted, information, options) for options in (MotionOptions(), FREE))

    def error(poses: np.ndarray) -> float:
        return float(np.sqrt(np.mean((pose_parameters(slices, poses) - pose_parameters(slices, true)) ** 2)))

    assert error(without) == pytest.approx(0.3, rel=0.2)
    assert error(with_prior) < 0.8 * error(without)


def test_independent_motion_is_left_nearly_alone():
    """Its steps are large, so the prior learns to be weak: estimates as good as these move by little."""
    slices = long_stack()
    wanted = noisy(slices, identity_poses(slices.n_slices), 3.0)
    information = np.full(slices.n_slices, 1 / 0.2**2)
    poses = settle(slices, wanted, information, MotionOptions())
    difference = pose_parameters(slices, poses) - pose_parameters(slices, wanted)
    assert np.sqrt(np.mean(difference**2)) < 0.06


def test_a_jump_between_two_slices_is_not_bent():
    slices = long_stack()
    jump = np.zeros((slices.n_slices, 3))
    jump[20:] = [6.0, 0, 0]
    wanted = noisy(slices, pose_about(np.zeros_like(jump), jump, slices.centres), 0.05)
    poses = settle(slices, wanted, np.full(slices.n_slices, 1 / 0.2**2), MotionOptions())
    x = pose_parameters(slices, poses)[:, 3]
    assert np.abs(x[17:20]).max() < 0.4
    assert np.abs(x[20:23] - 6).max() < 0.4


# --- whole stacks


def test_stacks_move_as_rigid_bodies(known: KnownField):
    poses = known.perturbed()
    moved = solve_stack_steps(known.slices, poses, known.equations(poses), MotionOptions())
    changes = moved @ invert(poses)
    for order in time_links(known.slices):
        np.testing.assert_allclose(changes[order], np.broadcast_to(changes[order[0]], (len(order), 4, 4)), atol=1e-9)
    assert np.abs(changes[0] - changes[-1]).max() > 1e-3


def test_a_misplaced_stack_is_brought_back(known: KnownField):
    members = known.slices.stack_index == 1
    offset = pose_about(np.array([0.06, -0.04, 0.05]), np.array([0.6, -0.5, 0.4]), np.zeros(3))
    poses = known.true.copy()
    poses[members] = offset @ poses[members]
    before = displacements(known.slices, poses, known.true)[members].max()
    for _ in range(12):
        poses = solve_stack_steps(known.slices, poses, known.equations(poses), MotionOptions())
    assert before > 0.8
    assert displacements(known.slices, poses, known.true).max() < 0.05
