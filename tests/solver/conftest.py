"""The backends that the solver is proven on."""

from __future__ import annotations

import pytest

from gsvr.backends import Backend, named


@pytest.fixture(scope="session", params=["cpu", "torch"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """NumPy arrays, then tensors of plain PyTorch on the CPU."""
    if request.param == "torch":
        torch = pytest.importorskip("torch")
        pytest.importorskip("gsvr.backends.torch.backend", reason="there is no backend of tensors yet")
        # tensors this small are a hundred times slower on two busy cores than on one
        torch.set_num_threads(1)
    return named(request.param)
