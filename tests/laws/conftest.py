"""Every law is checked for every backend and every case."""

from __future__ import annotations

import importlib.util

import pytest

from gsvr.backends import Backend, named
from tests.laws.cases import CASES, Case


@pytest.fixture(scope="session", params=["cpu", "torch"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """A backend; PyTorch's on tensors of the CPU runs the code that runs on a card."""
    if request.param == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
        if importlib.util.find_spec("gsvr.backends.torch.backend") is None:
            pytest.skip("there is no gsvr.backends.torch.backend")
    return named(request.param)


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """An acquisition with its definition."""
    return request.param
