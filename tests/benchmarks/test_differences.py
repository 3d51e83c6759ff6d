"""What each difference from the paper is worth: the variants differ, and both optimisers lower one objective."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.differences import DEFAULT, PUBLISHED, AbsoluteLoss, by_adamw, by_gradients
from gsvr.backends import named
from gsvr.backends.protocol import Array
from gsvr.solver.loss import RobustLoss
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.state import State
from tests.solver.oblique import small_state


def test_no_two_variants_are_alike():
    published, plain = list(PUBLISHED.values()), SolverOptions()
    assert all(a != b for number, a in enumerate(published) for b in published[:number])
    changed = [change(plain) for change in DEFAULT.values()]
    assert all(a != b for number, a in enumerate(changed) for b in changed[:number])


def objective(state: State, amplitudes: Array) -> float:
    assert state.prior is not None
    operator, weights = state.operator, state.weights
    residual = operator.predict(amplitudes) - operator.pixels.values
    curvature = state.prior.at(state.amplitudes).apply(amplitudes, state.prior.strength * weights.white_noise**2)
    return float((weights.pixels * residual**2).sum() + (amplitudes * curvature).sum()) / 2


def test_both_optimisers_lower_the_same_objective():
    state = small_state(named("cpu"), free=True)
    methods: list[Callable[[int], Array]] = [partial(by_gradients, state), lambda n: by_adamw(state, n, 0.05)]
    start, least = objective(state, 0 * state.amplitudes), objective(state, by_gradients(state, 300))
    for method in methods:
        few, many = objective(state, method(10)), objective(state, method(200))
        assert least <= many < few < start
        assert many - least < 0.1 * (start - least)


def test_the_absolute_loss_weighs_by_the_inverse_of_the_residual():
    state = small_state(named("cpu"), free=True)
    operator, slices = state.operator, state.slices
    weights, robust = (loss.weights(operator, state.prediction) for loss in (AbsoluteLoss(), RobustLoss()))
    residual = np.abs(slices.values - operator.backend.host(state.prediction))
    far = slices.mask & (residual > 0.2 * robust.noise)
    coverage = operator.backend.host(operator.pixels.coverage)
    expected = coverage[far] * robust.noise / residual[far]
    np.testing.assert_allclose(operator.backend.host(weights.pixels)[far], expected, rtol=1e-4)
    np.testing.assert_array_equal(weights.slices, 1)
