"""Laws of the acquisition operators: both are their definition, adjoints are transposes, cut-offs keep their bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.model.fields import GaussianField, Lattice
from gsvr.model.geometry import pose_about, quaternion_from_rotation, rotation_from_quaternion, transform_points
from gsvr.operators.acquisition import AcquisitionOperator
from tests import oracle
from tests.laws.cases import Case


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    """Elementwise, and as one vector: length and direction."""
    largest = np.abs(want).max()
    assert largest > 0.01
    assert np.abs(got - want).max() < tolerance * largest
    got, want = got.ravel().astype(np.float64), want.ravel()
    assert abs(np.linalg.norm(got) / np.linalg.norm(want) - 1) < tolerance
    assert got @ want / (np.linalg.norm(got) * np.linalg.norm(want)) > 1 - 1e-8


def predicted(operator: AcquisitionOperator, case: Case, amplitudes: np.ndarray | None = None) -> np.ndarray:
    amplitudes = case.amplitudes if amplitudes is None else amplitudes
    backend = operator.backend
    return backend.host(operator.predict(case.shaped(backend, amplitudes)))


def adjoint(operator: AcquisitionOperator, case: Case, pixels: np.ndarray) -> np.ndarray:
    backend = operator.backend
    return case.flat(backend, operator.adjoint(backend.array(pixels)))


def test_prediction_is_the_definition(case: Case, backend: Backend):
    assert_close(predicted(case.operator(backend), case), case.matrix @ case.amplitudes, case.tolerance)


def test_adjoint_is_the_definitions_transpose(case: Case, backend: Backend):
    pixels = case.pixels(1)
    assert_close(adjoint(case.operator(backend), case, pixels), case.matrix.T @ pixels, case.tolerance)


def test_diagonal_squares_what_all_components_are_together(case: Case, backend: Backend):
    weights = np.abs(case.pixels(2))
    got = case.flat(backend, case.operator(backend).diagonal(backend.array(weights)))
    assert_close(got, (case.matrix**2).T @ weights, 2 * case.tolerance)


@pytest.mark.parametrize("cutoff", [2.0, 6.0])
def test_adjoint_is_the_transpose_of_the_prediction(case: Case, backend: Backend, cutoff: float):
    """Also where Gaussians are cut off: only sums in another order differ, in float32."""
    operator, pixels = case.operator(backend, cutoff=cutoff), case.pixels(3)
    prediction = predicted(operator, case)
    forward = prediction.astype(np.float64) @ pixels
    backward = case.amplitudes.astype(np.float64) @ adjoint(operator, case, pixels)
    assert abs(forward - backward) < 1e-6 * np.linalg.norm(prediction) * np.linalg.norm(pixels)


@pytest.mark.parametrize("cutoff", [2.0, 3.0])
def test_each_entry_of_the_matrix_is_right_or_cut_off_below_the_bound(case: Case, backend: Backend, cutoff: float):
    """Rows of some pixels, one adjoint each. A normalised field's own density is cut off, too: not for its rows."""
    operator = case.operator(backend, cutoff=cutoff)
    if not case.exact:
        operator = case.operator(backend, cutoff=cutoff, primitives=replace(case.field, normalisation=1e6))
    units = np.random.default_rng(0).choice(np.flatnonzero(case.slices.mask), 20, replace=False)
    rows = np.stack([adjoint(operator, case, np.eye(len(case.slices.mask), dtype=np.float32)[unit]) for unit in units])
    rows = rows.astype(np.float64) / case.pixel_gains[units, None] * (1 if case.exact else 1e6)
    heights = oracle.peaks(case.covariances, case.slices, case.poses, case.spread, case.exact)[units]
    bound = np.exp(-(cutoff**2) / 2)
    missing = (case.at_rest[units] - rows) / heights
    # for 1e6 + density is not 1e6; float32, see `Case.tolerance`
    tolerance = case.tolerance if case.exact else 1e-4
    assert missing.min() > -tolerance
    assert missing.max() < bound + tolerance
    assert missing.max() > 0.2 * bound
    # the kernels' own zeros, but for those far away
    assert np.count_nonzero(rows == 0) > 0.3 * rows.size


def test_cut_off_pixels_are_off_by_less_than_the_bound(case: Case, backend: Backend):
    if not case.exact:
        pytest.skip("the bound is that of sums, not of quotients")
    heights = oracle.peaks(case.covariances, case.slices, case.poses, case.spread, exact=True)
    error = np.abs(predicted(case.operator(backend, cutoff=3.0), case) - case.matrix @ case.amplitudes)
    bound = np.exp(-4.5) * case.pixel_gains * (heights @ np.abs(case.amplitudes))
    assert np.all(error < bound)
    assert error.max() > 0


def test_moving_field_and_slices_together_changes_nothing(case: Case, backend: Backend):
    """A lattice cannot turn."""
    turn = np.zeros(3) if isinstance(case.primitives, Lattice) else np.array([0.4, -0.2, 0.7])
    move = pose_about(turn, np.array([3.0, -5.0, 1.0]), np.zeros(3))
    if isinstance(case.primitives, Lattice):
        primitives = replace(case.primitives, origin=case.primitives.origin + move[:3, 3])
    else:
        axes = move[:3, :3] @ rotation_from_quaternion(case.field.quaternions)
        means = transform_points(move, case.field.means)
        primitives = replace(case.primitives, means=means, quaternions=quaternion_from_rotation(axes))
    still = predicted(case.operator(backend), case)
    together = predicted(case.operator(backend, primitives=primitives, poses=move @ case.poses), case)
    assert_close(together, still.astype(np.float64), case.tolerance)
    slices_only = predicted(case.operator(backend, poses=move @ case.poses), case)
    assert np.abs(slices_only - still).max() > 0.1 * np.abs(still).max()


def test_other_poses_and_gains_keep_everything_else(case: Case, backend: Backend):
    operator, ones = case.operator(backend), np.ones(case.slices.n_slices)
    other_poses = oracle.moved(case.slices, case.poses, np.full((case.slices.n_slices, 6), 0.05))
    moved = operator.with_poses(other_poses)
    expected = predicted(case.operator(backend, poses=other_poses), case)
    np.testing.assert_array_equal(predicted(moved, case), expected)
    plain = predicted(moved.with_gains(ones), case)
    np.testing.assert_allclose(plain * case.pixel_gains, expected, rtol=1e-6)
    np.testing.assert_allclose(backend.host(moved.without_gains(backend.array(expected))), plain, rtol=1e-6)
    np.testing.assert_allclose(backend.host(moved.with_own_gains(backend.array(plain))), expected, rtol=1e-6)


def test_order_of_the_gaussians_does_not_matter(case: Case, backend: Backend):
    if isinstance(case.primitives, Lattice):
        pytest.skip("the order of a lattice is fixed")
    order = np.random.default_rng(1).permutation(len(case.amplitudes))
    one, other = case.operator(backend), case.operator(backend, primitives=case.field.subset(order))
    want, pixels = predicted(one, case), case.pixels(7)
    # up to the order of float32 sums
    assert_close(predicted(other, case, case.amplitudes[order]), want.astype(np.float64), 2e-6)
    assert_close(adjoint(other, case, pixels), adjoint(one, case, pixels)[order].astype(np.float64), 2e-6)


def test_the_same_numbers_give_the_same_bits(case: Case, backend: Backend, monkeypatch: pytest.MonkeyPatch):
    """In an operator made anew, and with another number of threads."""
    pixels, results = case.pixels(6), []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("GSVR_THREADS", threads)
        operator = case.operator(backend, cutoff=3.0)
        numbers = [predicted(operator, case), adjoint(operator, case, pixels)]
        numbers.append(case.flat(backend, operator.diagonal(backend.array(np.abs(pixels)))))
        if case.field.nearest is None:
            amplitudes, values = case.shaped(backend, case.amplitudes), backend.array(case.slices.values)
            equations = operator.pose_equations(amplitudes, values, backend.array(np.abs(pixels)))
            numbers += [equations.curvature, equations.gradient]
        results.append(numbers)
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [1, 20])
def test_each_pixel_sees_its_nearest_and_nothing_outside_the_mask(case: Case, backend: Backend, count: int):
    if case.name != "gaussians, not separable":
        pytest.skip("one case is enough")
    # so wide that none is cut off
    wide = replace(case.field, log_scales=case.field.log_scales + 1, nearest=count)
    operator = case.operator(backend, primitives=wide, cutoff=9.0)
    some = np.random.default_rng(0).choice(len(case.slices.mask), 30, replace=False)
    units = np.eye(len(case.slices.mask), dtype=np.float32)[some]
    seen = np.stack([adjoint(operator, case, unit) != 0 for unit in units])
    np.testing.assert_array_equal(seen, oracle.nearest(case.means, case.slices, case.poses, count)[some])
    assert not case.slices.mask[some].all()


def test_more_neighbours_than_gaussians_are_all(case: Case, backend: Backend):
    if case.name != "gaussians, slab":
        pytest.skip("one case is enough")
    few = case.field.subset(np.arange(5))
    limited, free = (case.operator(backend, primitives=replace(few, nearest=number)) for number in (9, None))
    expected = predicted(free, case, few.amplitudes) * case.slices.mask
    np.testing.assert_allclose(predicted(limited, case, few.amplitudes), expected, atol=1e-6)


def test_one_gaussian_in_sight_and_one_out_of_it(case: Case, backend: Backend):
    if isinstance(case.primitives, Lattice) or case.field.nearest is not None or not case.exact:
        pytest.skip("for sums of free Gaussians")
    j = int(case.at_rest.max(axis=0).argmax())
    one, amplitude = case.field.subset(np.array([j])), np.ones(1, np.float32)
    here = predicted(case.operator(backend, primitives=one), case, amplitude)
    assert_close(here, case.matrix[:, j], case.tolerance)
    far: GaussianField = replace(one, means=one.means + 500)
    operator = case.operator(backend, primitives=far)
    assert not predicted(operator, case, amplitude).any()
    assert not adjoint(operator, case, case.pixels(8)).any()
