"""What this machine can do at most: arithmetic, exponentials, and bytes moved, on one core.

The operator adds outer products of eight lanes to a small plane: load, multiply-add, store. So besides the usual
ceilings (matrix product, memory) there are those of exactly that work on data in the first-level cache.
"""

from __future__ import annotations

import ctypes
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import gsvr.compiled
from benchmarks.clock import timed

_IN_CACHE = 2048  # floats: 8 kB, two arrays fit into the first level of any processor
_IN_MEMORY = 16 * 2**20  # floats: 64 MB


def _loops(folder: Path) -> ctypes.CDLL:
    """The loops of ``speed_ceilings.c``, compiled like the kernels."""
    library = folder / "ceilings.so"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    words = [*compiler, "-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
    source = Path(__file__).with_suffix(".c")
    include = Path(gsvr.compiled.__file__).parent / "c"
    subprocess.run([*words, f"-I{include}", source, "-o", library, "-lm"], check=True)
    return ctypes.CDLL(str(library))


def measure_ceilings(repeats: int = 5, loops: int = 20_000, size: int = _IN_MEMORY, matrix: int = 1024) -> dict:
    """Ceilings of one core: billions a second."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-10, 0, _IN_CACHE).astype(np.float32)
    y = np.zeros(_IN_CACHE, np.float32)
    operations = 2 * _IN_CACHE * loops * 1e-9
    arguments = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]
    arguments += [ctypes.c_int64(number) for number in (_IN_CACHE, loops)]
    with tempfile.TemporaryDirectory() as folder:
        found = _loops(Path(folder))
        exponentials, stored, dotted = (
            timed(lambda loop=loop: loop(*arguments), repeats).cpu
            for loop in (found.powers_of_two, found.multiply_add_store, found.dot)
        )
    a = rng.random((matrix, matrix), dtype=np.float32)
    product = np.empty_like(a)
    with threadpool_limits(1, "blas"):
        multiplied = timed(lambda: np.matmul(a, a, out=product), repeats).cpu
    first, second, third = (np.ones(size, np.float32) for _ in range(3))
    moved = timed(lambda: np.add(first, second, out=third), repeats).cpu
    return {
        "matrix_product_gflops": 2e-9 * matrix**3 / multiplied,
        "multiply_add_store_gflops": operations / stored,
        "dot_gflops": operations / dotted,
        "exponentials_per_second_1e9": operations / 2 / exponentials,
        "memory_gigabytes_per_second": 12e-9 * size / moved,
    }
