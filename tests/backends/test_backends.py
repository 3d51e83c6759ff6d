"""Backends by name, and what is the CPU's alone; the laws (tests/laws) hold for all of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gsvr.backends import named
from gsvr.backends.cpu.lattice import CpuLatticeKernel
from gsvr.backends.windows import slice_windows
from gsvr.compiled import LANES
from gsvr.errors import InputError
from gsvr.model.fields import Lattice
from tests.acquisitions import small_lattice, small_slices, spread_of
from tests.laws.cases import CASES, WIDE


def test_unknown_backend_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="cuda9"):
        named("cuda9")


def test_laws_are_checked_for_both_kinds_of_windows() -> None:
    """Those that fit into one vector have kernels of their own."""
    longest = set()
    for case in CASES:
        if isinstance(case.primitives, Lattice) and case.spread.is_separable:
            windows = slice_windows(case.primitives, case.slices, case.poses, case.spread, WIDE)
            longest.add(max(windows.n_rows, windows.n_columns) > LANES)
    assert longest == {True, False}


def test_threads_of_the_caller_do_not_share_work_space() -> None:
    slices, poses = small_slices()
    lattice = small_lattice()
    kernel = CpuLatticeKernel(lattice, slice_windows(lattice, slices, poses, spread_of(slices, "gaussian")))
    pixels = np.random.default_rng(0).normal(size=(3, len(slices.values))).astype(np.float32)
    alone = [kernel.adjoint(row) for row in pixels]

    def same(i: int) -> bool:
        return all(np.array_equal(kernel.adjoint(pixels[i]), alone[i]) for _ in range(50))

    with ThreadPoolExecutor(3) as callers:
        assert list(callers.map(same, range(3))) == [True, True, True]


def test_a_lattice_is_as_long_as_its_kernels_can_count() -> None:
    slices, poses = small_slices()
    lattice = Lattice(np.zeros(3), 0.001, 1.0, np.ones((1, 1, 2**15), bool))
    with pytest.raises(ValueError, match="32768 sites are too long"):
        CpuLatticeKernel(lattice, slice_windows(lattice, slices, poses, spread_of(slices)))
