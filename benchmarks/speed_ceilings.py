"""What this machine can do at most: arithmetic, exponentials, and bytes moved, on one core.

The operator adds outer products of eight lanes to a small plane: load, multiply-add, store. So besides the usual
ceilings (matrix product, memory) there are those of exactly that work on data in the first-level cache.
"""

# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numba import njit
from threadpoolctl import threadpool_limits

from gsvr.kernels.simd import exponential

_IN_CACHE = 2048  # floats: 8 kB, two arrays fit into the first level of any processor
_IN_MEMORY = 16 * 2**20  # floats: 64 MB


@njit(fastmath=True, nogil=True)
def _exponentials(x, out, repeats):
    for _ in range(repeats):
        for i in range(x.shape[0]):
            out[i] = exponential(x[i])


@njit(fastmath=True, nogil=True)
def _multiply_add_store(x, y, repeats):
    factor = np.float32(1e-3)
    for _ in range(repeats):
        for i in range(x.shape[0]):
            y[i] += factor * x[i]
        factor = -factor


@njit(fastmath=True, nogil=True)
def _dot(x, y, repeats):
    total = np.float32(0.0)
    for _ in range(repeats):
        for i in range(x.shape[0]):
            total += x[i] * y[i]
        y[0] = total * np.float32(1e-30)
    return total


def least_cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Least CPU time of several calls, after one that is not counted: other programs can only add to it."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def measure_ceilings(repeats: int = 5, loops: int = 20_000, size: int = _IN_MEMORY, matrix: int = 1024) -> dict:
    """Ceilings of one core: billions a second."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-10, 0, _IN_CACHE).astype(np.float32)
    y = np.zeros(_IN_CACHE, np.float32)
    operations = 2 * _IN_CACHE * loops * 1e-9
    exponentials = least_cpu_seconds(lambda: _exponentials(x, y, loops), repeats)
    stored = least_cpu_seconds(lambda: _multiply_add_store(x, y, loops), repeats)
    dotted = least_cpu_seconds(lambda: _dot(x, y, loops), repeats)
    a = rng.random((matrix, matrix), dtype=np.float32)
    product = np.empty_like(a)
    with threadpool_limits(1, "blas"):
        multiplied = least_cpu_seconds(lambda: np.matmul(a, a, out=product), repeats)
    first, second, third = (np.ones(size, np.float32) for _ in range(3))
    moved = least_cpu_seconds(lambda: np.add(first, second, out=third), repeats)
    return {
        "matrix_product_gflops": 2e-9 * matrix**3 / multiplied,
        "multiply_add_store_gflops": operations / stored,
        "dot_gflops": operations / dotted,
        "exponentials_per_second_1e9": operations / 2 / exponentials,
        "memory_gigabytes_per_second": 12e-9 * size / moved,
    }
