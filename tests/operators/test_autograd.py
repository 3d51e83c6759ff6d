"""Gradients through the operator in PyTorch: against differences of the definition in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.geometry import transform_points
from gsvr.model.point_spread import spread_of
from gsvr.operators.acquisition import AcquisitionOperator, moved_poses
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator
from tests.acquisitions import random_amplitudes, random_field, small_lattice, small_slices

torch = pytest.importorskip("torch", reason="autograd is PyTorch's")
from gsvr.operators.autograd import acquire  # noqa: E402

SLICES, POSES = small_slices()
RNG = np.random.default_rng(7)
GAINS = RNG.uniform(0.5, 2, SLICES.n_slices)
# what is differentiated: the sum of the pixels with these factors
FACTORS = RNG.normal(size=len(SLICES.values))
# not small: a further step is then not a change of the step
STEPS = np.concatenate([RNG.normal(0, 0.5, (SLICES.n_slices, 3)), RNG.normal(0, 1, (SLICES.n_slices, 3))], axis=1)
# a cut-off (6 standard deviations) that costs less than float32 does
WIDE = 6.0
BACKENDS = pytest.mark.parametrize("backend", ["cpu", "torch"])


def definition(field: GaussianField, poses: np.ndarray) -> float:
    """<factors, A c> in float64, Gaussian by Gaussian and component by component."""
    spread, covariances = spread_of(SLICES, "slab"), field.covariances
    pixels = np.empty(len(SLICES.values))
    for s in range(SLICES.n_slices):
        frame = poses[s] @ SLICES.frames[s]
        index = np.indices(SLICES.shapes[s]).reshape(2, -1).T * SLICES.pixel_spacings[s]
        points = np.column_stack([index, np.zeros(len(index))])
        sums, density = np.zeros(len(points)), np.zeros(len(points))
        for weight, offset, psf in zip(spread.weights, spread.offsets[s], spread.covariances[s], strict=True):
            blurred = covariances + frame[:3, :3] @ psf @ frame[:3, :3].T
            d = transform_points(frame, points + offset)[:, None] - field.means
            heights = weight * np.exp(-0.5 * np.einsum("pni,nij,pnj->pn", d, np.linalg.inv(blurred), d))
            if field.normalisation is None:
                heights *= np.sqrt(np.linalg.det(covariances) / np.linalg.det(blurred))
            sums += heights @ field.amplitudes
            density += heights.sum(axis=1)
        divisor = 1.0 if field.normalisation is None else density + field.normalisation
        pixels[SLICES.pixels_of(s)] = GAINS[s] * sums / divisor
    return float(FACTORS @ pixels)


def differences(function: Callable[[np.ndarray], float], values: np.ndarray, which: list[tuple]) -> np.ndarray:
    """Derivatives of a function by some of its arguments."""
    slopes, step = [], 1e-4
    for place in which:
        ends = []
        for sign in (1, -1):
            moved = values.copy()
            moved[place] += sign * step
            ends.append(function(moved))
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return np.array(slopes)


def some_places(shape: tuple[int, ...], count: int) -> list[tuple]:
    chosen = np.random.default_rng(3).choice(int(np.prod(shape)), count, replace=False)
    return [tuple(int(i) for i in np.unravel_index(c, shape)) for c in chosen]


def assert_gradient(gradient: Any, function: Callable[[np.ndarray], float], values: np.ndarray) -> None:
    """Compare some entries; kernels work in float32, as a share of the largest entry."""
    places, got = some_places(values.shape, 12), gradient.numpy()
    expected = differences(function, values.astype(np.float64), places)
    assert np.abs(got).max() > 0
    assert np.abs([got[place] for place in places] - expected).max() < 2e-5 * np.abs(got).max()


def leaf(values: np.ndarray) -> Any:
    return torch.tensor(np.asarray(values, np.float64), requires_grad=True)


def backwards(operator: AcquisitionOperator, *tensors: Any, **others: Any) -> float:
    value = torch.tensor(FACTORS) @ acquire(operator, *tensors, **others)
    value.backward()
    return value.item()


@BACKENDS
@pytest.mark.parametrize("normalisation", [None, 0.1])
def test_free_gaussians(backend: str, normalisation: float | None):
    field = random_field(SLICES, POSES, 60, normalisation)
    parts = {name: getattr(field, name) for name in ("amplitudes", "means", "log_scales", "quaternions")}
    tensors = {name: leaf(values) for name, values in parts.items()} | {"steps": leaf(STEPS)}
    # the operator's own geometry counts for nothing
    elsewhere = replace(field, means=field.means + 3, log_scales=field.log_scales - 1)
    operator = GaussianOperator(elsewhere, SLICES, POSES, GAINS, backend=backend, cutoff=WIDE)
    value = backwards(operator, **tensors)
    moved = moved_poses(SLICES, POSES, STEPS)
    assert value == pytest.approx(definition(field, moved), rel=1e-5)
    for name, values in parts.items():
        assert_gradient(tensors[name].grad, lambda v, name=name: definition(replace(field, **{name: v}), moved), values)
    assert_gradient(tensors["steps"].grad, lambda v: definition(field, moved_poses(SLICES, POSES, v)), STEPS)


@BACKENDS
def test_a_lattice(backend: str):
    lattice = small_lattice(2.6, 1.9, 8.0)
    amplitudes = random_amplitudes(lattice)

    def pixels(values: np.ndarray, steps: np.ndarray = STEPS) -> float:
        # float64 as it is, where a field of float32 amplitudes would round the step of the difference
        free = LatticeField(lattice, amplitudes).to_gaussians()
        return definition(replace(free, amplitudes=values[lattice.support]), moved_poses(SLICES, POSES, steps))

    tensors = {"amplitudes": leaf(amplitudes), "steps": leaf(STEPS)}
    operator = LatticeOperator(lattice, SLICES, POSES, GAINS, backend=backend, cutoff=WIDE)
    assert backwards(operator, **tensors) == pytest.approx(pixels(amplitudes.astype(np.float64)), rel=1e-5)
    assert_gradient(tensors["amplitudes"].grad, pixels, amplitudes)
    assert_gradient(tensors["steps"].grad, lambda steps: pixels(amplitudes.astype(np.float64), steps), STEPS)
    assert not tensors["amplitudes"].grad[torch.tensor(~lattice.support)].any()


def test_nearest_neighbours_are_differentiated_by_pose():
    field = replace(random_field(SLICES, POSES, 60), nearest=5)
    operator = GaussianOperator(field, SLICES, POSES, GAINS, cutoff=WIDE)
    steps = torch.zeros((SLICES.n_slices, 6), dtype=torch.float64, requires_grad=True)
    backwards(operator, leaf(field.amplitudes), steps=steps)
    assert steps.grad is not None
    assert steps.grad.abs().max() > 0


def test_only_what_asks_for_a_gradient_gets_one():
    field = random_field(SLICES, POSES, 60)
    operator = GaussianOperator(field, SLICES, POSES, GAINS)
    amplitudes, means = torch.tensor(field.amplitudes, requires_grad=True), torch.tensor(field.means)
    pixels = acquire(operator, amplitudes, means)
    np.testing.assert_array_equal(pixels.detach().numpy(), operator.predict(field.amplitudes))
    assert pixels.dtype == torch.float32
    pixels.sum().backward()
    assert amplitudes.grad is not None
    assert means.grad is None
    assert not acquire(operator, torch.tensor(field.amplitudes)).requires_grad


def test_tensors_that_do_not_fit_are_refused():
    field, lattice = random_field(SLICES, POSES, 60), small_lattice()
    free = GaussianOperator(field, SLICES, POSES)
    amplitudes = torch.ones(60)
    for given, match in (
        ({"amplitudes": torch.ones(59)}, r"amplitudes of shape \(59,\)"),
        ({"amplitudes": amplitudes, "means": torch.ones(59, 3)}, r"means of shape \(59, 3\)"),
        ({"amplitudes": amplitudes, "steps": torch.ones(2, 6)}, r"steps of shape \(2, 6\)"),
    ):
        with pytest.raises(ValueError, match=match):
            acquire(free, **given)
    on_lattice = LatticeOperator(lattice, SLICES, POSES)
    with pytest.raises(ValueError, match="cannot be given for a lattice"):
        acquire(on_lattice, torch.ones(lattice.shape), means=torch.ones(lattice.n_sites, 3))
    with pytest.raises(ValueError, match="amplitudes of shape"):
        acquire(on_lattice, torch.ones(lattice.n_sites))
