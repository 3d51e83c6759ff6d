"""What is near a mask: against the definition by distances."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.morphology import closed, distance_to, largest_part, within


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


@pytest.mark.parametrize("distance", [0.9, 2.5])
def test_closed_is_all_that_no_ball_beside_the_mask_reaches(distance: float):
    mask = blobs(3, 0.2)
    room = 6  # beyond the array there is no mask
    around = np.pad(mask, room)
    centres = np.argwhere(distance_to(around, 0.8) > distance)
    reached = np.zeros_like(around)
    ball = np.argwhere(np.ones((9, 9, 9))) - 4
    for step in ball[np.linalg.norm(ball * 0.8, axis=1) <= distance]:
        at = centres + step
        at = at[np.all((at >= 0) & (at < around.shape), axis=1)]
        reached[tuple(at.T)] = True
    expected = mask | ~reached[(slice(room, -room),) * 3]
    np.testing.assert_array_equal(closed(mask, distance, 0.8), expected)
    assert expected.sum() > mask.sum()


def test_closing_bridges_narrow_gaps_only():
    mask = np.ones((30, 10, 10), dtype=bool)
    mask[5:9] = False
    mask[15:25] = False
    bridged = closed(mask, 3.0, 1.0)
    assert bridged[6:8, 4, 4].all()
    assert not bridged[19, 4, 4]


def test_masks_of_whole_numbers_are_masks():
    mask = blobs(3)
    for got, want in (
        (distance_to(mask.astype(np.uint8), 0.9), distance_to(mask, 0.9)),
        (within(mask.astype(np.uint8), 2.5, 0.9), within(mask, 2.5, 0.9)),
        (closed(mask.astype(np.int64), 2.5, 0.9), closed(mask, 2.5, 0.9)),
        (largest_part(mask.astype(np.uint8)), largest_part(mask)),
    ):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="True or False"):
        within(mask * 255, 2.5, 0.9)
