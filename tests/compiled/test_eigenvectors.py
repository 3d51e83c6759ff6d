"""Eigenvectors of symmetric matrices, against LAPACK's."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.compiled import run


def decomposed(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(matrices)
    values, vectors = np.empty((n, 3)), np.empty((n, 3, 3))
    run("find_eigenvectors", -(-n // 7), 7, n, matrices, values, vectors)
    return values, vectors


def random_matrices(scale: tuple[float, float, float], n: int = 50) -> np.ndarray:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
    full = np.einsum("nij,j,nkj->nik", axes, np.array(scale), axes)
    return ((full + full.transpose(0, 2, 1)) / 2).astype(np.float32)


@pytest.mark.parametrize(
    "scale", [(1, 2, 3), (1, 1, 1), (0, 0, 0), (0, 0, 5), (2, 2, 5), (1e-12, 2e-12, 1e-10), (-3, 0, 4), (1, 1e4, 1e4)]
)
def test_they_take_the_matrix_apart(scale: tuple[float, float, float]):
    matrices = random_matrices(scale)
    values, vectors = decomposed(matrices)
    size = max(abs(number) for number in scale)
    exact = matrices.astype(np.float64)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(exact), rtol=1e-12, atol=1e-14 * size)
    np.testing.assert_allclose(vectors @ vectors.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-14)
    rebuilt = np.einsum("nij,nj,nkj->nik", vectors, values, vectors)
    np.testing.assert_allclose(rebuilt, exact, atol=1e-14 * size)


def test_diagonal_matrices_are_sorted():
    values, vectors = decomposed(np.diag([3, 1, 2]).astype(np.float32)[None])
    assert values.tolist() == [[1, 2, 3]]
    assert np.abs(vectors[0]).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
