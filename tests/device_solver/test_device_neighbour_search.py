"""The search for neighbours on a device: the host's pairs, in whatever portions it is made, and columns of pairs."""

from __future__ import annotations

import numpy as np
import pytest
from tests.solver.test_neighbours import even_field

from gsvr.model.fields import GaussianField
from gsvr.solver.priors.neighbours import find_neighbours

torch = pytest.importorskip("torch", reason="the solver on a device needs PyTorch")
from gsvr.device_solver import device_neighbour_search  # noqa: E402
from gsvr.device_solver.device_neighbour_search import DevicePairs, find_pairs  # noqa: E402
from tests.backends.tiled_kernels import DEVICE  # noqa: E402


def uneven_field(seed: int = 0) -> GaussianField:
    """Gaussians on a lattice, where many are as near as each other; a crowd on top, two in one place, and one alone."""
    field = even_field(9)
    rng = np.random.default_rng(seed)
    means = np.round(field.means / 1.5) * np.float32(1.5)
    means[:150] = means[200] + rng.normal(scale=0.3, size=(150, 3)).astype(np.float32)
    means[151] = means[150]
    means[-1] += 40
    return GaussianField(means, field.log_scales, field.quaternions, field.amplitudes)


def pairs_of(field: GaussianField, count: int) -> DevicePairs:
    means, log_scales = (torch.as_tensor(part).to(DEVICE) for part in (field.means, field.log_scales))
    return find_pairs(means, log_scales, count)


@pytest.mark.parametrize("at_once", [1, 5000, 1 << 22])
@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("field", [even_field(8), uneven_field()], ids=["even", "uneven"])
def test_pairs_are_those_of_the_host(field: GaussianField, count: int, at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_neighbour_search, "_AT_ONCE", at_once)
    want, found = find_neighbours(field, count), pairs_of(field, count)
    assert found.weights.dtype == torch.float32
    got = found.on_host()
    assert len(want.first) > len(field.means) // 2
    np.testing.assert_array_equal(got.first, want.first)
    np.testing.assert_array_equal(got.second, want.second)
    np.testing.assert_allclose(got.weights, want.weights, rtol=2e-6)
    assert got.n_gaussians == want.n_gaussians == len(field.means)


def test_more_are_asked_for_than_there_are():
    field = even_field(2, width=2.0)
    got = pairs_of(field, 20).on_host()
    assert sorted(zip(got.first.tolist(), got.second.tolist(), strict=True)) == [
        (i, j) for i in range(8) for j in range(i + 1, 8)
    ]


def test_work_grows_with_the_number_of_gaussians(monkeypatch: pytest.MonkeyPatch):
    """Eight times as many: about eight times as many distances (more inside than at the rim), not 64 times."""
    places = []
    search = device_neighbour_search._nearest_in_runs

    def counted(*given):
        places.append(given[1].numel() * 9 * given[4])
        return search(*given)

    monkeypatch.setattr(device_neighbour_search, "_nearest_in_runs", counted)
    work = []
    for per_axis in (10, 20):
        places.clear()
        pairs_of(even_field(per_axis), 8)
        work.append(sum(places))
    assert work[1] < 12 * work[0]


def test_columns_hold_every_pair_twice():
    field = uneven_field()
    pairs = pairs_of(field, 8)
    others, numbers = (part.cpu().numpy() for part in pairs.columns())
    want = pairs.on_host()
    n, n_pairs = len(field.means), len(want.first)
    there = numbers < n_pairs
    gaussian = np.broadcast_to(np.arange(n), others.shape)
    np.testing.assert_array_equal(others[~there], gaussian[~there])
    assert (numbers[~there] == n_pairs).all()
    assert not there[:, -1].any()
    np.testing.assert_array_equal(there.sum(axis=0), np.bincount(np.append(want.first, want.second), minlength=n))
    ends = np.sort(np.stack([gaussian[there], others[there]]), axis=0)
    np.testing.assert_array_equal(ends, np.stack([want.first, want.second])[:, numbers[there]])
    assert (np.bincount(numbers[there]) == 2).all()


def test_none_near_another():
    field = even_field(3)
    far = GaussianField(100 * field.means, field.log_scales, field.quaternions, field.amplitudes)
    pairs = pairs_of(far, 8)
    assert len(pairs.first) == 0
    others, numbers = pairs.columns()
    assert others.tolist() == [list(range(27))]
    assert not numbers.any()
