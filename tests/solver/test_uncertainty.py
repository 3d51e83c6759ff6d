"""The posterior of the amplitudes: samples have the covariance that the normal matrix says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.solver.state import State, StopReconstruction
from gsvr.solver.uncertainty import posterior_deviations
from tests.solver.oblique import NormalEquations, sites_of, small_state

SAMPLES = 60


@pytest.fixture(scope="module", params=["lattice", "free"])
def state(request: pytest.FixtureRequest, backend: Backend) -> State:
    return small_state(backend, free=request.param == "free")


def drawn(state: State, samples: int, seed: int = 0) -> np.ndarray:
    """Amplitudes of each sample, flat."""
    parts = posterior_deviations(state, samples, seed)
    return np.stack([part.amplitudes.ravel()[sites_of(state)] for part in parts]).astype(np.float64)


def test_samples_have_the_covariance_of_the_posterior(state: State):
    if state.operator.backend.name != "cpu":
        pytest.skip("the code is the same on every backend: one of them draws so many samples")
    found, equations = drawn(state, SAMPLES), NormalEquations.of(state)
    precision = (equations.normal + equations.prior) / state.weights.white_noise**2
    expected, n = np.linalg.inv((precision + precision.T) / 2), found.shape[1]
    # 60 samples know a variance to sqrt(2 / 60) = 18 %; the mean over many sites far better
    ratio = (found**2).mean(axis=0) / np.diag(expected)
    assert ratio.mean() == pytest.approx(1, abs=0.08)
    assert ratio.min() > 1 - 5 * np.sqrt(2 / SAMPLES)
    assert ratio.max() < 1 + 5 * np.sqrt(2 / SAMPLES)
    root = np.sqrt(np.diag(expected))
    error = (found.T @ found / SAMPLES - expected) / np.outer(root, root)
    assert np.abs(error).max() < 5.5 * np.sqrt(2 / SAMPLES)
    # every direction counts alike: this is what a covariance of the wrong shape fails. The steps of a sample end when
    # the gradient is down to half a per cent, which leaves the directions that pixels hardly see a little too quiet.
    mahalanobis = np.einsum("si,ij,sj->s", found, precision, found).mean() / n
    assert mahalanobis == pytest.approx(1, abs=0.05)
    assert np.abs(found.mean(axis=0) / root).max() < 5 / np.sqrt(SAMPLES)


def test_the_seed_decides_the_samples(state: State):
    first, again, other = (drawn(state, 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])


def test_progress_is_told_and_may_stop(state: State):
    heard = []

    def told(done: int, total: int) -> None:
        heard.append((done, total))
        if done == 2:
            raise StopReconstruction

    assert len(posterior_deviations(state, 3, 0, told)) == 2
    assert heard == [(1, 3), (2, 3)]


def test_less_data_are_less_certain(state: State):
    fewer = replace(state, weights=replace(state.weights, pixels=state.weights.pixels * np.float32(0.01)))
    spread = [np.square(drawn(s, 4)).sum() for s in (state, fewer)]
    assert spread[1] > 1.5 * spread[0]


def test_a_field_that_was_not_solved_for_has_no_posterior(state: State):
    with pytest.raises(ValueError, match="no prior"):
        posterior_deviations(replace(state, prior=None), 1, 0)
