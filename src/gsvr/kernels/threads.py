"""One pool of threads for all CPU kernels; the kernels release the interpreter lock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def thread_count() -> int:
    """Threads the kernels use: ``GSVR_THREADS`` if set, else the cores this process may run on."""
    asked = os.environ.get("GSVR_THREADS")
    if asked:
        return max(1, int(asked))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    # one task a thread, each taking the next index when it is free: a future for every index would cost more than
    # many of the bodies (`next` on a count is atomic)
    indices = itertools.count()

    def work() -> None:
        for i in indices:
            if i >= n:
                return
            body(i)

    for future in [_pool.submit(work) for _ in range(count)]:
        future.result()
