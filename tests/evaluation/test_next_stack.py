"""The advice on what to acquire next is right where the answer is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gsvr.evaluation.next_stack import NextStackOptions, even_directions, next_stack, words_of
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.state import Result
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import SHORTEST_STAGES, moving_brain

OPTIONS = SolverOptions(stages=SHORTEST_STAGES)


@cache
def result_of(*stacks: int) -> Result:
    """Of some stacks of a brain that does not move much."""
    return reconstruct(prepare_slices([moving_brain().stacks[k] for k in stacks], OPTIONS), OPTIONS)


def normal_of(number: int) -> np.ndarray:
    normal = moving_brain().stacks[number].affine[:3, 2]
    return normal / np.linalg.norm(normal)


def angle(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(np.arccos(min(abs(first @ second), 1.0))))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_the_missing_direction_is_asked_for(missing: int):
    there = [number for number in range(3) if number != missing]
    found = next_stack(result_of(*there))
    assert angle(found.best, normal_of(missing)) < 30
    assert found.gain == found.gains.max()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_direction_whose_slices_were_lost_counts_as_missing(lost: int):
    result = result_of(0, 1, 2)
    weights = np.where(result.slices.stack_index == lost, 0.02 * result.slice_weights, result.slice_weights)
    found = next_stack(replace(result, slice_weights=weights))
    assert angle(found.best, normal_of(lost)) < 30
    assert max(found.of_stacks, key=lambda name: found.of_stacks[name]) == f"stack-{lost}"


def test_more_stacks_leave_less_uncertainty_and_less_to_gain():
    two, three = next_stack(result_of(0, 1)), next_stack(result_of(0, 1, 2))
    same_noise = replace(result_of(0, 1, 2), noise=result_of(0, 1).noise)
    assert next_stack(same_noise).uncertainty < two.uncertainty
    assert three.gain < two.gain


def test_enough_is_a_gain_below_the_limit():
    result = result_of(0, 1, 2)
    gain = next_stack(result).gain
    assert next_stack(result, options=NextStackOptions(enough=1.1 * gain)).enough
    assert not next_stack(result, options=NextStackOptions(enough=0.9 * gain)).enough


def test_only_given_directions_are_compared():
    directions = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = next_stack(result_of(0, 1), directions=directions)
    assert len(found.gains) == 2
    assert any((found.best == direction).all() for direction in directions)


def test_directions_are_spread_evenly():
    directions = even_directions(60)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    nearest = np.sort(np.abs(directions @ directions.T), axis=1)[:, -2]
    assert np.degrees(np.arccos(nearest)).min() > 8
    np.testing.assert_allclose(directions.T @ directions / 60, np.eye(3) / 3, atol=0.03)


@pytest.mark.parametrize(
    ("normal", "words"),
    [
        ([0, 0, 1], "axial"),
        ([0, -1, 0], "coronal"),
        ([1, 0.1, 0], "sagittal"),
        ([0, 0.5, 0.866], "axial, tilted by 30 degrees towards coronal"),
    ],
)
def test_directions_in_words(normal: list[float], words: str):
    assert words_of(np.array(normal, float)) == words


def test_the_map_is_larger_where_slices_are_not_believed():
    result = result_of(0, 1, 2)
    # of one stack only slices in front of the middle of the brain count
    centres = np.einsum("nij,nj->ni", result.poses[:, :3, :3], result.slices.centres) + result.poses[:, :3, 3]
    assert result.mask.mask is not None
    middle = result.mask.voxel_positions(result.mask.mask).mean(axis=0)
    coronal = int(np.argmax([abs(normal_of(number)[1]) for number in range(3)]))
    behind = (result.slices.stack_index == coronal) & (centres[:, 1] < middle[1])
    before = next_stack(result)
    found = next_stack(replace(result, slice_weights=np.where(behind, 0.01, result.slice_weights)))
    places = found.map.voxel_positions(found.map.mask)
    values = found.map.data[found.map.mask]
    growth = values / before.map.data[before.map.mask]
    assert growth[places[:, 1] < middle[1] - 10].mean() > 1.04
    np.testing.assert_allclose(growth[places[:, 1] > middle[1] + 10], 1, atol=0.01)
    assert np.isfinite(found.map.data).all()
    assert values.mean() == pytest.approx(found.uncertainty, rel=0.3)
