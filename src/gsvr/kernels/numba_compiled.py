"""How the inner kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from gsvr.kernels.lanes import FAST


def without_allocation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel that makes no arrays, only views.

    Numba then leaves out the counting of references to arrays, an atomic addition for every view and every array
    handed over: for the short rows of a lattice it would cost more than the work itself.
    """
    return njit(nogil=True, fastmath=True, cache=True, _nrt=False)(function)  # pyright: ignore[reportCallIssue]


def by_multiplication(makes_arrays: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a kernel that goes from row to row by multiplication (see `lanes.FAST`)."""
    return njit(nogil=True, fastmath=set(FAST), cache=True, _nrt=makes_arrays)  # pyright: ignore[reportCallIssue]
