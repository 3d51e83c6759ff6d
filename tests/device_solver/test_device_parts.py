"""Pieces of the solver on a device against those of the host: geometry, medians, weights, gains and steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model import geometry
from gsvr.model.slices import Slices, slices_from_stacks
from gsvr.operators.acquisition import AcquisitionOperator, moved_poses
from gsvr.solver import motion, weights
from gsvr.solver.amplitudes import solve_amplitudes
from gsvr.solver.motion import MotionOptions, NormalEquations
from gsvr.solver.priors.lattice import quadratic_prior
from gsvr.solver.weights import WeightOptions
from tests.acquisitions import random_amplitudes, small_lattice, small_slices, small_stack

torch = pytest.importorskip("torch", reason="the solver on a device needs PyTorch")
from torch import Tensor  # noqa: E402

from gsvr.device_solver import (  # noqa: E402
    device_motion,
    device_weights,
    order_statistics,
    rigid,
)
from gsvr.device_solver.device_amplitudes import ConjugateGradients  # noqa: E402
from gsvr.device_solver.device_operator import DeviceOperator  # noqa: E402
from gsvr.device_solver.device_prior import DevicePrior  # noqa: E402
from gsvr.device_solver.device_slices import DeviceSlices  # noqa: E402
from tests.backends.tiled_kernels import DEVICE  # noqa: E402

# float64 on both sides: rounding of some hundred operations
EXACT = 1e-9


def tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values).to(DEVICE)


def array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()


def vectors() -> np.ndarray:
    """Rotation vectors of every size, to just below pi, and about every axis."""
    rng = np.random.default_rng(0)
    directions = np.concatenate([rng.normal(size=(20, 3)), np.eye(3), -np.eye(3)])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    angles = [0.0, 1e-12, 1e-6, 1e-4, 0.1, 1.0, 2.0, 3.0, np.pi - 1e-6]
    return np.concatenate([angle * directions for angle in angles])


def test_rotations_and_their_logarithms():
    rotation = geometry.rotation_from_vector(vectors())
    np.testing.assert_allclose(array(rigid.rotation_from_vector(tensor(vectors()))), rotation, atol=1e-14)
    np.testing.assert_allclose(array(rigid.vector_from_rotation(tensor(rotation))), vectors(), atol=1e-8)


def test_poses_and_points():
    rng = np.random.default_rng(1)
    vector, shift, centre, points = rng.normal(size=(4, 30, 3))
    pose = geometry.pose_about(vector, shift, centre)
    np.testing.assert_allclose(array(rigid.pose_about(tensor(vector), tensor(shift), tensor(centre))), pose, atol=1e-13)
    np.testing.assert_allclose(array(rigid.invert(tensor(pose))), geometry.invert(pose), atol=1e-13)
    np.testing.assert_allclose(
        array(rigid.transform_points(tensor(pose), tensor(points))), geometry.transform_points(pose, points), atol=1e-13
    )


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_medians(n: int):
    values = np.random.default_rng(n).normal(size=(3, n))
    assert float(order_statistics.median(tensor(values[0]))) == np.median(values[0])
    kept = np.random.default_rng(9).random((3, n)) < 0.6
    got = array(order_statistics.masked_median(tensor(values), tensor(kept)))
    for row, use, found in zip(values, kept, got, strict=True):
        assert found == (np.median(row[use]) if use.any() else 0)
    assert float(order_statistics.median(tensor(np.zeros(0)))) == 0


def three_stacks() -> tuple[Slices, np.ndarray]:
    """Stacks of different lengths, one of a single slice."""
    turned = np.eye(3)[:, [1, 2, 0]]
    stacks = [
        small_stack("a", np.eye(3), (1.1, 1.1, 3.0), 3.0, 0),
        small_stack("b", turned, (1.0, 1.4, 3.3), 2.5, 1),
        small_stack("c", turned[:, [1, 2, 0]], (1.2, 1.2, 3.0), 3.0, 2),
    ]
    masks = [np.asarray(stack.mask).copy() for stack in stacks]
    masks[1][:, :, :2] = False
    masks[2][:, :, np.arange(5) != 2] = False
    slices = slices_from_stacks(stacks, masks)
    rng = np.random.default_rng(3)
    poses = geometry.pose_about(
        rng.normal(size=(slices.n_slices, 3)) * 0.1, rng.normal(size=(slices.n_slices, 3)), slices.centres
    )
    return slices, poses


def prediction_of(slices: Slices, poses: np.ndarray) -> np.ndarray:
    lattice = small_lattice()
    return AcquisitionOperator(lattice, slices, poses).predict(random_amplitudes(lattice))


def test_weights_and_gains_are_those_of_the_host():
    slices, poses = three_stacks()
    prediction = prediction_of(slices, poses)
    values = prediction * slices.per_pixel(np.linspace(0.5, 2, slices.n_slices)).astype(np.float32)
    values += np.random.default_rng(4).standard_cauchy(len(values)).astype(np.float32) * 0.05
    slices = replace(slices, values=values)
    options = WeightOptions()
    want = weights.robust_weights(slices, prediction, options)
    on_device = DeviceSlices.of(slices, DEVICE)
    got = device_weights.robust_weights(on_device, tensor(prediction), options)
    # medians are of float32 residuals
    assert float(got.noise) == pytest.approx(want.noise, rel=1e-6)
    assert float(got.white_noise) == pytest.approx(want.white_noise, rel=1e-6)
    np.testing.assert_allclose(array(got.residuals), want.residuals, rtol=1e-6)
    np.testing.assert_allclose(array(got.slices), want.slices, rtol=1e-5)
    np.testing.assert_allclose(array(got.pixels), want.pixels, rtol=1e-5, atol=1e-7)
    gains = weights.fit_gains(slices, prediction, want.pixels, options)
    found = device_weights.fit_gains(on_device, tensor(prediction), tensor(want.pixels), options)
    np.testing.assert_allclose(array(found), gains, rtol=1e-6)
    assert np.ptp(gains) > 0.3


def equations_of(slices: Slices, seed: int = 5) -> NormalEquations:
    """Positive definite, of very different size from slice to slice."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(slices.n_slices, 6, 12))
    size = 10 ** rng.uniform(1, 4, slices.n_slices)
    gradient = rng.normal(size=(slices.n_slices, 6)) * size[:, None] * 0.4
    return NormalEquations(parts @ np.swapaxes(parts, 1, 2) * size[:, None, None], gradient)


@pytest.mark.parametrize(
    "options", [MotionOptions(), MotionOptions(prior_share=0.0), MotionOptions(trusted_share=5.0, step_limit=0.3)]
)
def test_steps_of_slices_are_those_of_the_host(options: MotionOptions):
    slices, poses = three_stacks()
    equations = equations_of(slices)
    want = motion.solve_steps(slices, poses, equations, 0.7, options)
    on_device = DeviceSlices.of(slices, DEVICE)
    systems = device_motion.DeviceEquations(tensor(equations.curvature), tensor(equations.gradient))
    noise = torch.tensor(0.7, dtype=torch.float64, device=DEVICE)
    got = device_motion.solve_steps(on_device, tensor(poses), systems, noise, options)
    np.testing.assert_allclose(array(got), want, atol=EXACT)
    moved = device_motion.moved_poses(on_device, tensor(poses), got)
    np.testing.assert_allclose(array(moved), moved_poses(slices, poses, want), atol=EXACT)
    np.testing.assert_allclose(
        array(device_motion.displacements(on_device, tensor(poses), moved)),
        motion.displacements(slices, poses, array(moved)),
        atol=1e-6,  # of angles near zero, by way of 1 - cos on the host
    )


def test_steps_of_stacks_are_those_of_the_host():
    slices, poses = three_stacks()
    equations = equations_of(slices)
    want = motion.solve_stack_steps(slices, poses, equations, MotionOptions())
    systems = device_motion.DeviceEquations(tensor(equations.curvature), tensor(equations.gradient))
    got = device_motion.solve_stack_steps(DeviceSlices.of(slices, DEVICE), tensor(poses), systems, MotionOptions())
    np.testing.assert_allclose(array(got), want, atol=EXACT)


def test_operator_and_normal_equations_are_those_of_the_host():
    slices, poses = small_slices()
    lattice, gains = small_lattice(), np.linspace(0.5, 2, slices.n_slices)
    amplitudes = random_amplitudes(lattice)
    # 6 sigma: what tiles see beyond the cut-off is below float32
    host = AcquisitionOperator(lattice, slices, poses, gains, cutoff=6.0)
    on_device = DeviceSlices.of(slices, DEVICE)
    operator = DeviceOperator(AcquisitionOperator(lattice, slices, small_slices(7)[1], gains, cutoff=6.0), on_device)
    operator.set_poses(tensor(poses))
    prediction, jacobian = host.pose_derivatives(amplitudes)
    predicted, derivative = operator.pose_derivatives(tensor(amplitudes))
    # the kernels of the CPU are good to 3e-5, see tests/kernels/test_backends.py
    assert np.abs(array(predicted) - prediction).max() < 3e-5 * np.abs(prediction).max()
    assert np.abs(array(derivative) - jacobian).max() < 3e-5 * np.abs(jacobian).max()
    pixel_weights = (slices.coverage * slices.mask).astype(np.float32)
    want = motion.pose_normal_equations(slices, slices.values, jacobian, pixel_weights)
    got = device_motion.pose_normal_equations(on_device, tensor(slices.values), tensor(jacobian), tensor(pixel_weights))
    np.testing.assert_allclose(array(got.curvature), want.curvature, atol=1e-6 * np.abs(want.curvature).max())
    np.testing.assert_allclose(array(got.gradient), want.gradient, atol=1e-6 * np.abs(want.gradient).max())
    diagonal = host.diagonal(pixel_weights)
    assert np.abs(array(operator.diagonal(tensor(pixel_weights))) - diagonal).max() < 3e-5 * diagonal.max()


@pytest.mark.parametrize("iterations", [3, 200])
def test_conjugate_gradients_are_those_of_the_host(iterations: int):
    """Also beyond convergence, where the host stops and the device goes on with steps of zero."""
    slices, poses = small_slices()
    lattice, gains = small_lattice(3.0, 2.2), np.linspace(0.8, 1.2, slices.n_slices)
    host = AcquisitionOperator(lattice, slices, poses, gains, cutoff=6.0)
    pixel_weights = (slices.coverage * slices.mask).astype(np.float32)
    start = 0.1 * random_amplitudes(lattice)
    prior = quadratic_prior(lattice, start, 0.1)
    want = solve_amplitudes(host, slices.values, pixel_weights, prior, 0.2, start, iterations=iterations)
    assert want.converged == (iterations == 200)
    on_device = DevicePrior(lattice, 0.1, DEVICE)
    on_device.reweight(tensor(start))
    operator = DeviceOperator(host, DeviceSlices.of(slices, DEVICE))
    solver = ConjugateGradients(operator, on_device)
    strength = torch.tensor(0.2, device=DEVICE)
    values, given = tensor(slices.values), operator.predict(tensor(start))
    for _ in range(2):  # the second time with whatever the first has left behind, and recorded
        used = tensor(pixel_weights)
        amplitudes, prediction = solver.solve(
            values, used, strength, tensor(start), given, iterations, operator.diagonal(used)
        )
        # float32 sums in another order, magnified by the conditioning of what has not converged
        np.testing.assert_allclose(array(amplitudes), want.amplitudes, atol=2e-3 * np.abs(want.amplitudes).max())
        np.testing.assert_allclose(array(prediction), want.prediction, atol=1e-3 * np.abs(want.prediction).max())


def test_what_cannot_be_recorded_is_done_without(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """On a pretended card that records nothing: a warning, and the same result."""
    slices, poses = small_slices()
    lattice = small_lattice(3.0, 2.2)
    host = AcquisitionOperator(lattice, slices, poses)
    pixel_weights, start = tensor((slices.coverage * slices.mask).astype(np.float32)), torch.zeros(lattice.shape)
    operator, prior = DeviceOperator(host, DeviceSlices.of(slices, DEVICE)), DevicePrior(lattice, 0.1, DEVICE)
    values, strength = tensor(slices.values), torch.tensor(0.2, device=DEVICE)

    def refuse(_: object) -> None:
        raise RuntimeError("not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", refuse)
    ends = []
    for records in (False, True):
        solver = ConjugateGradients(operator, prior)
        solver._next.records = records
        nothing = torch.zeros_like(values)
        diagonal = operator.diagonal(pixel_weights)
        ends.append(solver.solve(values, pixel_weights, strength, start.to(DEVICE), nothing, 6, diagonal)[0])
    torch.testing.assert_close(ends[0], ends[1])
    assert caplog.text.count("going on without") == 1
