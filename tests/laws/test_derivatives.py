"""Laws of the acquisition's derivatives: by the poses for every field, by the geometry for free Gaussians."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.operators.gaussians import GaussianOperator
from tests.laws.cases import Case
from tests.laws.test_acquisition import assert_close


def test_pose_derivatives_are_those_of_the_definition(case: Case, backend: Backend):
    if case.field.nearest is not None:
        pytest.skip("not made for nearest neighbours")
    value, jacobian = case.operator(backend).pose_derivatives(case.shaped(backend, case.amplitudes))
    assert_close(backend.host(value), case.matrix @ case.amplitudes, case.tolerance)
    for got, want in zip(jacobian, case.pose_derivatives(case.predicted), strict=True):
        assert_close(backend.host(got), want, 2 * case.tolerance)


def test_pose_equations_are_made_of_the_derivatives(case: Case, backend: Backend):
    if case.field.nearest is not None:
        pytest.skip("not made for nearest neighbours")
    values, weights = case.pixels(1), np.abs(case.pixels(2))
    arrays = case.shaped(backend, case.amplitudes), backend.array(values), backend.array(weights)
    got = case.operator(backend).pose_equations(*arrays)
    jacobian = np.stack(case.pose_derivatives(case.predicted))
    residual = values - case.matrix @ case.amplitudes
    for s in range(case.slices.n_slices):
        of = case.slices.pixels_of(s)
        weighed = weights[of] * jacobian[:, of]
        assert_close(got.curvature[s], weighed @ jacobian[:, of].T, 1e-4)
        assert_close(got.gradient[s], weighed @ residual[of], 1e-4)


def test_geometry_gradient_is_that_of_the_definition(case: Case, backend: Backend):
    """By every mean and covariance, and by the poses; a normalised field changes with its density as well."""
    operator = case.operator(backend)
    if not isinstance(operator, GaussianOperator):
        pytest.skip("a lattice has no geometry to change")
    pixels = case.pixels(4)
    got = operator.geometry_gradient(backend.array(case.amplitudes), backend.array(pixels))
    residual, h = pixels * case.pixel_gains, 1e-4

    def values(responses: np.ndarray) -> np.ndarray:
        """<r, A c> if only one Gaussian is as in these responses, for each of them."""
        change = responses - case.at_rest
        numerator = (case.at_rest @ case.amplitudes)[:, None] + change * case.amplitudes
        density = case.density(case.at_rest)[:, None] + (0 if case.exact else change)
        return residual @ (numerator / density)

    for a in range(3):
        step = h * np.eye(3)[a]
        ends = [values(case.responses(means=case.means + sign * step)) for sign in (1, -1)]
        assert_close(got.means[:, a], (ends[0] - ends[1]) / (2 * h), case.tolerance)
    np.testing.assert_allclose(got.covariances, np.swapaxes(got.covariances, 1, 2), atol=1e-6)
    for a in range(3):
        for b in range(a, 3):
            change = np.zeros((3, 3))
            change[a, b] = change[b, a] = 1
            ends = [values(case.responses(sigma=case.covariances + sign * h * change)) for sign in (1, -1)]
            by_change = (got.covariances * change).sum(axis=(1, 2))
            assert_close(by_change, (ends[0] - ends[1]) / (2 * h), case.tolerance)
    by_pose = case.pose_derivatives(lambda responses: case.slices.sum_per_slice(pixels * case.predicted(responses)))
    for parameter, want in enumerate(by_pose):
        assert_close(got.poses[:, parameter], want, case.tolerance)
