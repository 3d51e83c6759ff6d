"""Rounds with free Gaussians on a device against those of the host, and each of their parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends.cpu.gaussians import CpuGaussianKernel
from gsvr.model.slices import Slices
from gsvr.solver import free_rounds
from gsvr.solver.free_rounds import FreeState, advance_free, begin_free_stage
from gsvr.solver.priors.neighbours import NeighbourOptions, NeighbourPrior, find_neighbours, sharpening
from gsvr.solver.rounds import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from tests.acquisitions import small_slices

torch = pytest.importorskip("torch", reason="the solver on a device needs PyTorch")
from torch import Tensor  # noqa: E402

from gsvr import forward  # noqa: E402
from gsvr.backends import gaussian_tiled  # noqa: E402
from gsvr.backends.torch.gaussians import HostGaussianKernel  # noqa: E402
from gsvr.device_solver.device_free_rounds import DeviceFreeStage  # noqa: E402
from gsvr.device_solver.device_neighbour_search import DevicePairs  # noqa: E402
from gsvr.device_solver.device_neighbours import DeviceNeighbours  # noqa: E402
from gsvr.device_solver.device_rounds import DeviceChoices  # noqa: E402
from gsvr.device_solver.device_stages import DeviceStages  # noqa: E402
from tests.backends.test_gaussian_tiles import random_field  # noqa: E402
from tests.backends.tiled_kernels import CARD, DEVICE, TRITON  # noqa: E402
from tests.device_solver.test_device_rounds import wavy_slices  # noqa: E402
from tests.device_solver.test_no_waiting import Operations, nothing  # noqa: E402

OPTIONS = SolverOptions()
FREE = Stage("free", 2.5, 1, 3, 4, "none", 0.7, free=True)


def lattice_state():
    slices, stage = wavy_slices(), Stage("lattice", 3.0, 1, 1, 4, "none", 0.7)
    _, poses = small_slices()
    return slices, advance(slices, stage, OPTIONS, begin_stage(slices, stage, OPTIONS, None, poses))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> tuple[Slices, FreeState]:
    """Slices, and the host's state on the same kernels: those of the CPU cut Gaussians off within a tile."""
    monkeypatch.setattr(
        forward, "gaussian_kernel", lambda _, *given: HostGaussianKernel(given[0], given[1], str(DEVICE))
    )
    slices, state = lattice_state()
    return slices, begin_free_stage(slices, FREE, OPTIONS, state)


def tensor(values: np.ndarray | float) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).to(DEVICE)


def test_prior_and_preconditioner_are_those_of_the_host():
    field, options = random_field(300, seed=6), NeighbourOptions()
    neighbours, level, strength = find_neighbours(field, options.count), 1.7, 0.3
    rng = np.random.default_rng(1)
    amplitudes, values = rng.random(300).astype(np.float32), rng.normal(size=300).astype(np.float32)
    diagonal = rng.random(300).astype(np.float32) ** 8  # some are seen by (almost) nothing
    prior = NeighbourPrior(neighbours, amplitudes, level, options.edge)
    device = DeviceNeighbours(DevicePairs.of(neighbours, DEVICE), level, options)
    device.reweight(tensor(amplitudes))
    want = prior.apply(values, strength)
    got = device.apply(tensor(values), tensor(strength)).cpu().numpy()
    np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())
    device.prepare(tensor(diagonal), tensor(strength))
    want = sharpening(neighbours, diagonal + np.float32(strength) * prior.diagonal(), options)(values)
    got = device.precondition(tensor(values)).cpu().numpy()
    np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("name", ["plain", TRITON])
def test_rounds_are_those_of_the_host(name: str, begun: tuple[Slices, FreeState], monkeypatch: pytest.MonkeyPatch):
    slices, want = begun
    choices, rounds = DeviceChoices(), 3
    if name == "triton":
        kernels, rounds = gaussian_tiled.triton_gaussian_kernels(), 1
        choices = DeviceChoices(gaussians=kernels)
        if not CARD:
            monkeypatch.setattr(kernels, "CHUNK", 64)  # the interpreter takes as long for a small chunk as for a large
    running = DeviceFreeStage(slices, FREE, OPTIONS, want, DEVICE, choices)
    for _ in range(rounds):
        want = advance_free(slices, FREE, OPTIONS, want)
        assert running.advance() == 0
        got = running.state()
        assert got.level == want.level
        size = np.abs(want.amplitudes).max()
        assert np.abs(got.amplitudes - want.amplitudes).max() < 2e-4 * size
        assert np.abs(got.prediction - want.prediction)[slices.mask].max() < 2e-4 * np.abs(want.prediction).max()
        assert np.abs(got.gains - want.gains).max() < 2e-4
        assert np.abs(got.weights.pixels - want.weights.pixels).max() < 2e-4
        assert got.weights.white_noise == pytest.approx(want.weights.white_noise, rel=2e-4)
        assert got.diagonal is not None
        assert want.diagonal is not None
        np.testing.assert_allclose(got.diagonal, want.diagonal, atol=1e-5 * want.diagonal.max())
    # and they do something
    assert np.abs(want.amplitudes - begun[1].amplitudes).max() > 0.05 * np.abs(want.amplitudes).max()


def test_deterministic_rounds_give_the_same_bits_again(begun: tuple[Slices, FreeState]):
    options = replace(OPTIONS, deterministic=True)
    ends = []
    for _ in range(2):
        running = DeviceFreeStage(begun[0], FREE, options, begun[1], DEVICE)
        assert running.operator.kernel.deterministic
        running.advance()
        ends.append(running.state().amplitudes)
    assert np.array_equal(*ends)


def test_nothing_left_to_be_found_changes_nothing(begun: tuple[Slices, FreeState]):
    """Steps are zero, not a number divided by zero."""
    running = DeviceFreeStage(begun[0], FREE, OPTIONS, begun[1], DEVICE)
    zero, pixels = torch.zeros_like(running.amplitudes), torch.zeros_like(running.prediction)
    running.neighbours.prepare(torch.ones_like(zero), tensor(1.0))
    amplitudes, prediction = running.solver.solve(pixels, pixels + 1, tensor(1.0), zero, pixels, 3)
    assert not amplitudes.any()
    assert not prediction.any()


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_operation_of_a_round_waits(deterministic: bool, begun: tuple[Slices, FreeState]):
    options = replace(OPTIONS, deterministic=deterministic)
    idle = DeviceChoices(gaussians=nothing("predict", "adjoint", "differentiate"))
    running = DeviceFreeStage(begun[0], FREE, options, begun[1], DEVICE, idle)
    with Operations() as operations:
        running.advance()
    assert operations.waiting == {}
    assert sum(operations.counts.values()) > 50


def test_the_free_stage_begins_on_the_device(begun: tuple[Slices, FreeState], monkeypatch: pytest.MonkeyPatch):
    """Seeds and neighbours are the host's to rounding, and not made there."""
    want = begun[1]
    for module, name in ((free_rounds, "seed_from_lattice"), (free_rounds, "find_neighbours")):
        monkeypatch.delattr(module, name)
    slices, state = lattice_state()
    running = DeviceStages(OPTIONS, DEVICE).begin(slices, FREE, state, state.poses)
    assert isinstance(running, DeviceFreeStage)
    assert not isinstance(running.operator.kernel, CpuGaussianKernel)
    first = running.state()
    assert isinstance(first, FreeState)
    assert first.level == want.level
    np.testing.assert_allclose(first.amplitudes, want.amplitudes, rtol=2e-6)
    np.testing.assert_array_equal(first.free_field.means, want.free_field.means)
    np.testing.assert_allclose(first.free_field.covariances, want.free_field.covariances, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(first.neighbours.first, want.neighbours.first)
    np.testing.assert_array_equal(first.neighbours.second, want.neighbours.second)
    np.testing.assert_allclose(first.prediction, want.prediction, atol=1e-5 * np.abs(want.prediction).max())
