"""Sums in a fixed order: what they are, and the switch that is only on meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="sums on a device need PyTorch")
from gsvr.backends.torch.fixed_order import add_rows  # noqa: E402
from tests.backends.tiled_kernels import DEVICE  # noqa: E402


def rows(count: int, width: int) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(0, 7, (count,), generator=generator)
    return targets.to(torch.int32).to(DEVICE), torch.randn((count, width), generator=generator).to(DEVICE)


@pytest.mark.parametrize("fixed_order", [False, True])
def test_rows_are_added_to_where_they_belong(fixed_order: bool):
    targets, values = rows(500, 3)
    total = torch.ones((7, 3), device=DEVICE)
    add_rows(total, targets, values, fixed_order)
    belongs = (targets[None] == torch.arange(7, device=DEVICE)[:, None]).double()
    torch.testing.assert_close(total.double(), 1 + belongs @ values.double(), rtol=0, atol=1e-5)


def test_the_same_bits_again():
    targets, values = rows(200_000, 2)
    first, second = torch.zeros((2, 7, 2), device=DEVICE)
    add_rows(first, targets, values, fixed_order=True)
    add_rows(second, targets, values, fixed_order=True)
    assert torch.equal(first, second)


@pytest.mark.parametrize("before", [False, True])
def test_the_switch_is_on_meanwhile_and_as_it_was_afterwards(before: bool, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def refuse(*_: object) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise RuntimeError("no such sums")

    monkeypatch.setattr(torch.Tensor, "index_add_", refuse)
    torch.use_deterministic_algorithms(before, warn_only=before)
    try:
        for fixed_order in (True, False):
            with pytest.raises(RuntimeError, match="no such sums"):
                add_rows(torch.zeros((7, 1)), torch.zeros(2, dtype=torch.int32), torch.zeros((2, 1)), fixed_order)
            assert torch.are_deterministic_algorithms_enabled() == before
            assert torch.is_deterministic_algorithms_warn_only_enabled() == before
        assert seen == [True, before]
    finally:
        torch.use_deterministic_algorithms(False)
