"""Which free Gaussians are nearest to each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import KDTree

from gsvr.model.fields import GaussianField
from gsvr.model.neighbours import find_neighbours, nearest_neighbours
from tests.even_field import even_field

FIELD = even_field()
NEIGHBOURS = find_neighbours(FIELD, 8)


@pytest.mark.parametrize("per_axis", [7, 18])
def test_nearest_are_those_of_a_tree(per_axis: int):
    """Wide enough for all of the eight to be within a cell's side."""
    field = even_field(per_axis, width=2.0)
    here, there = nearest_neighbours(field, 8)
    expected = np.asarray(KDTree(field.means).query(field.means, 9)[1])
    assert set(zip(here.tolist(), there.tolist(), strict=True)) == {
        (i, int(j)) for i, row in enumerate(expected) for j in row[1:]
    }


def test_of_usual_gaussians_none_is_missed_within_a_cells_side():
    field = even_field(9)
    side = 1.3 * 1.5 * 0.95
    here, there = nearest_neighbours(field, 8)
    distances = np.linalg.norm(field.means[here] - field.means[there], axis=1)
    near = distances < side
    found = set(zip(here[near].tolist(), there[near].tolist(), strict=True))
    lengths, expected = (np.asarray(part) for part in KDTree(field.means).query(field.means, 9))
    wanted = {
        (i, int(j))
        for i, (row, far) in enumerate(zip(expected, lengths, strict=True))
        for j, length in zip(row[1:], far[1:], strict=True)
        if length < side
    }
    assert found == wanted
    assert len(here) > 7 * len(field.means)


def test_who_stands_alone_has_no_neighbour():
    alone = FIELD.means.copy()
    alone[0] -= 40
    field = GaussianField(alone, FIELD.log_scales, FIELD.quaternions, FIELD.amplitudes)
    here, there = nearest_neighbours(field, 8)
    assert 0 not in here
    assert 0 not in there
    assert np.diff(find_neighbours(field, 8).by_gaussian[0])[0] == 0


def test_pairs_are_there_once_and_weigh_as_on_a_lattice():
    first, second, weights = NEIGHBOURS.first, NEIGHBOURS.second, NEIGHBOURS.weights
    assert np.all(first < second)
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == len(first)
    assert weights.sum() == pytest.approx(3 * len(FIELD.means), rel=1e-5)
    squares = ((FIELD.means[first] - FIELD.means[second]) ** 2).sum(axis=1)
    np.testing.assert_allclose(weights * squares, np.full(len(first), weights[0] * squares[0]), rtol=1e-4)


def test_every_gaussian_knows_its_pairs():
    first, columns, pairs = NEIGHBOURS.by_gaussian
    for gaussian in (0, 17, len(FIELD.means) - 1):
        piece = slice(first[gaussian], first[gaussian + 1])
        mine = np.flatnonzero((NEIGHBOURS.first == gaussian) | (NEIGHBOURS.second == gaussian))
        assert sorted(pairs[piece]) == mine.tolist()
        ends = NEIGHBOURS.first[pairs[piece]] + NEIGHBOURS.second[pairs[piece]] - gaussian
        np.testing.assert_array_equal(columns[piece], ends)


@pytest.mark.parametrize("n", [1, 3])
def test_gaussians_with_nobody_near_have_no_neighbours(n: int):
    apart = FIELD.subset(np.arange(n))
    lonely = GaussianField(apart.means * 100, apart.log_scales, apart.quaternions, apart.amplitudes)
    found = find_neighbours(lonely, 8)
    assert len(found.first) == len(found.second) == len(found.weights) == 0
    assert found.n_gaussians == n
