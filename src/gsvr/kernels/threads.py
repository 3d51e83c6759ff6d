"""One pool of threads for all CPU kernels; the kernels release the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def thread_count() -> int:
    """Threads the kernels use: ``GSVR_THREADS`` if set, else the cores this process may run on."""
    asked = os.environ.get("GSVR_THREADS")
    return (
        max(1, int(asked))
        if asked
        else len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else (os.cpu_count() or 1)
    )


def parallel_for(body: Callable[[int], None], n: int) -> None:
    """Call ``body(i)`` for every i < n, on all threads; the first exception is raised here."""
    global _pool, _pool_size
    count = thread_count()
    if count == 1 or n <= 1:
        for i in range(n):
            body(i)
        return
    if _pool is None or _pool_size != count:
        _pool, _pool_size = ThreadPoolExecutor(count, thread_name_prefix="gsvr"), count
    for _ in _pool.map(body, range(n)):
        pass
