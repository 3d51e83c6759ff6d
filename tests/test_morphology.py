"""What is near a mask: against the definition by distances."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.morphology import distance_to, within


def blobs(seed: int, share: float = 0.01) -> np.ndarray:
    return np.random.default_rng(seed).random((23, 17, 29)) < share


@pytest.mark.parametrize("spacing", [0.5, 0.8, 2.0, (1.1, 1.1, 3.0)])
@pytest.mark.parametrize("distance", [0.0, 0.9, 2.5, 8.0])
def test_within_is_the_distance_compared(spacing: float | tuple[float, float, float], distance: float):
    for seed, share in enumerate((0.0003, 0.01, 0.3)):
        mask = blobs(seed, share)
        expected = distance_to(mask, spacing) <= distance
        np.testing.assert_array_equal(within(mask, distance, spacing), expected)


def test_whole_multiples_of_the_spacing_count_as_within():
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[4, 4, 4] = True
    near = within(mask, 3.0, 1.0)
    assert near[7, 4, 4]
    assert near[6, 5, 2]  # 2, 1, 2 steps away: exactly 3
    assert not near[7, 5, 4]


def test_nothing_is_near_an_empty_mask():
    assert not within(np.zeros((4, 5, 6), dtype=bool), 100.0, 1.0).any()


def test_far_away_is_still_exact():
    """Beyond the distances that are counted in steps."""
    mask = np.zeros((80, 3, 3), dtype=bool)
    mask[0, 1, 1] = True
    assert np.flatnonzero(within(mask, 40.0, 1.0)[:, 1, 1])[-1] == 40
    assert np.flatnonzero(within(mask, 20.0, 1.0)[:, 1, 1])[-1] == 20
