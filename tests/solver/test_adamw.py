"""AdamW against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.solver.adamw import AdamW, CosineAnnealing, Halving, LearningRate


def test_steps_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    values = {"a": rng.normal(size=(4, 3)), "b": rng.normal(size=5)}
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    groups = [
        {"params": [theirs["a"]], "lr": 0.1, "weight_decay": 0.3},
        {"params": [theirs["b"]], "lr": 0.02, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=4, gamma=0.5)
    ours = AdamW({"a": LearningRate(0.1, 0.3), "b": LearningRate(0.02)}, Halving(4))
    for _ in range(13):
        gradients = {name: rng.normal(size=value.shape) for name, value in values.items()}
        for name, gradient in gradients.items():
            theirs[name].grad = torch.tensor(gradient)
        optimiser.step()
        schedule.step()
        values = ours.step(values, gradients)
    for name, value in values.items():
        np.testing.assert_allclose(value, theirs[name].detach().numpy(), rtol=1e-10)


def test_rates_fall_as_pytorch_lets_them():
    torch = pytest.importorskip("torch")
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in (1.0, 0.2)]
    optimiser = torch.optim.SGD(groups)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20, eta_min=0.1)
    ours = CosineAnnealing(20, 0.1)
    for step in range(21):
        assert [ours.rate(rate, step) for rate in (1.0, 0.2)] == pytest.approx(theirs.get_last_lr())
        optimiser.step()
        theirs.step()
    assert ours.rate(1.0, 30) == pytest.approx(0.1)
    assert ours.rate(0.0, 20) == 0.0


def test_what_is_not_pulled_stays():
    optimiser = AdamW({"a": LearningRate(0.1)}, Halving(10))
    value = np.array([1.0, 2.0])
    for _ in range(3):
        value = optimiser.step({"a": value}, {"a": np.array([0.0, 1.0])})["a"]
    assert value[0] == 1.0
    assert value[1] == pytest.approx(2.0 - 3 * 0.1)


def test_arrays_given_stay_as_they_are():
    given = np.ones(3)
    AdamW({"a": LearningRate(0.1, 0.5)}, Halving(10)).step({"a": given}, {"a": np.ones(3)})
    np.testing.assert_array_equal(given, 1)
