"""Sums in a fixed order, with a switch that is only on meanwhile, and sums of whole numbers, which do not overflow."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="sums on a device need PyTorch")
from gsvr.backends.torch.fixed_order import add_rows, from_whole_numbers, whole_number_scale  # noqa: E402
from tests.backends.torch_backends import CARD  # noqa: E402

DEVICE = torch.device("cuda" if CARD else "cpu")


def rows(count: int, width: int) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(0, 7, (count,), generator=generator)
    return targets.to(torch.int32).to(DEVICE), torch.randn((count, width), generator=generator).to(DEVICE)


def test_rows_are_added_to_where_they_belong():
    targets, values = rows(500, 3)
    total = torch.ones((7, 3), device=DEVICE)
    add_rows(total, targets, values)
    belongs = (targets[None] == torch.arange(7, device=DEVICE)[:, None]).double()
    torch.testing.assert_close(total.double(), 1 + belongs @ values.double(), rtol=0, atol=1e-5)


def test_the_same_bits_again():
    targets, values = rows(200_000, 2)
    first, second = torch.zeros((2, 7, 2), device=DEVICE)
    add_rows(first, targets, values)
    add_rows(second, targets, values)
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
        with pytest.raises(RuntimeError, match="no such sums"):
            add_rows(torch.zeros((7, 1)), torch.zeros(2, dtype=torch.int32), torch.zeros((2, 1)))
        assert torch.are_deterministic_algorithms_enabled() == before
        assert torch.is_deterministic_algorithms_warn_only_enabled() == before
        assert seen == [True]
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("largest", [1e-12, 1.0, 3e20])
def test_whole_numbers_neither_overflow_nor_vanish(largest: float):
    """As many parts as a sum of this size may have: a million, and two of them of either sign."""
    parts = torch.tensor([1.0, 1e-3, -1.0], dtype=torch.float32) * (largest / 2**20)
    scale = whole_number_scale(torch.tensor(largest))
    total = (parts * scale).to(torch.int64)
    assert int(total.abs().max()) * 2**20 < 2**63
    torch.testing.assert_close(from_whole_numbers(total, scale), parts, rtol=1e-6, atol=0)
    assert from_whole_numbers(torch.zeros(2, dtype=torch.int64), whole_number_scale(torch.tensor(0.0))).tolist() == [
        0,
        0,
    ]
