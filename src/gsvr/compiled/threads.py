"""One pool of threads for all CPU kernels; the kernels release the interpreter lock."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from gsvr.errors import InputError

Item = TypeVar("Item")
Value = TypeVar("Value")
Owner = TypeVar("Owner")

_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()
# the thread that is in a hurry, and whether the others may go on
_hurried: int | None = None
_nobody_hurries = threading.Event()
_nobody_hurries.set()
_hurry_lock = threading.Lock()
# how deep in calls of `on_all_threads` a thread is
_depth = threading.local()


def _forget_pool() -> None:
    """Threads do not survive a fork, and one of them may have held a lock: the child makes its own."""
    global _pool, _pool_lock, _hurried, _nobody_hurries, _hurry_lock
    _pool, _pool_lock = None, threading.Lock()
    _hurried, _nobody_hurries, _hurry_lock = None, threading.Event(), threading.Lock()
    _nobody_hurries.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def thread_count() -> int:
    """Threads the kernels use: ``GSVR_THREADS`` or else ``OMP_NUM_THREADS`` if set, else the cores for this process.

    These are the cores it may run on, or fewer where its container has a share of them only.
    """
    asked = os.environ.get("GSVR_THREADS")
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise InputError(f"GSVR_THREADS is {asked!r}: set it to a number of threads, or leave it unset")
        return int(asked)
    usual = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one number for each level of nesting
    if usual.isdecimal() and int(usual) >= 1:
        return int(usual)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _quota() or cores)


@cache
def _quota() -> int | None:
    """Cores that the control groups of this process leave to it, rounded up; None: all."""
    return quota_of_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))


def quota_of_groups(own: Path, root: Path) -> int | None:
    """Smallest CPU quota (cores, rounded up) of the control groups listed in `own` and those above them; None: none."""
    try:
        lines = own.read_text().splitlines()
    except (OSError, ValueError):
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / path.lstrip("/")
        while True:
            quotas += _quota_of(group)
            if group in (top, group.parent):
                break
            group = group.parent
    return max(1, math.ceil(min(quotas))) if quotas else None


def _quota_of(group: Path) -> list[float]:
    """CPU time per time that a control group may use, of version 2 or 1; nothing where it has no limit."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such file
        return []


def parallel_map(function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
    """Function of every item, in order, on all threads; worth it for functions that release the interpreter's lock.

    Where it fails for some items, the exception of the first of them is raised, whichever thread is quicker.
    """
    given = list(items)
    values: list[Any] = [None] * len(given)
    failures: dict[int, Exception] = {}

    def body(i: int) -> None:
        try:
            values[i] = function(given[i])
        except Exception as failure:
            failures[i] = failure

    parallel_for(body, len(given))
    if failures:
        raise failures[min(failures)]
    return values


def parallel_for(body: Callable[[int], None], n: int) -> None:
    """Call ``body(i)`` for every i < n, on all threads; the first exception is raised here."""
    # each thread takes the next index when it is free: a future for every index would cost more than many of the
    # bodies (`next` on a count is atomic)
    indices, failed = itertools.count(), False

    def work() -> None:
        nonlocal failed
        for i in indices:
            if i >= n or failed:
                return
            try:
                body(i)
            except BaseException:  # Ctrl-C reaches one thread only: the others stop as well
                failed = True
                raise

    on_all_threads(work, n)


def on_all_threads(work: Callable[[], Value], n_tasks: int) -> list[Value]:
    """Call `work` on every thread, but on no more threads than there are tasks.

    All calls share the tasks, and each returns when there is none left. So a thread that has not begun when this one is
    done is no longer needed: it is not waited for, and work may itself call this. The others are waited for, also when
    one has failed: they still write to the caller's arrays. Then the first exception is raised here.
    """
    depth = getattr(_depth, "value", 0)
    if depth == 0 and _hurried not in (None, threading.get_ident()):
        _nobody_hurries.wait()
    count = min(thread_count(), n_tasks)
    if count <= 1:
        return [_deeper(work, depth)]
    futures: list[Future[Value]] = []
    try:
        for _ in range(count - 1):
            futures.append(_submit(lambda: _deeper(work, depth)))
        first = _deeper(work, depth)
    finally:
        begun = [future for future in futures if not future.cancel()]
        wait(begun)
    return [first, *(future.result() for future in begun)]


def _deeper(work: Callable[[], Value], depth: int) -> Value:
    """Call it where calls of `on_all_threads` are parts of one that was let through."""
    _depth.value = depth + 1
    try:
        return work()
    finally:
        _depth.value = depth


@contextmanager
def in_a_hurry() -> Iterator[None]:
    """Have the cores for this thread: what other threads begin on all threads meanwhile waits until this ends.

    For work of a fraction of a second; one thread at a time can be in a hurry.
    """
    global _hurried
    with _hurry_lock:
        _hurried = threading.get_ident()
        _nobody_hurries.clear()
        try:
            yield
        finally:
            _hurried = None
            _nobody_hurries.set()


class Lazy(Generic[Owner, Value]):
    """A property that is computed when it is first asked for, as `functools.cached_property` of Python 3.12.

    That of Python 3.11 holds a lock of all instances while it computes. If it computes on all threads, and waits there
    for one that is `in_a_hurry`, which asks for the same property of another instance, both wait forever.
    """

    def __init__(self, compute: Callable[[Owner], Value]) -> None:
        self._compute, self._name, self.__doc__ = compute, compute.__name__, compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> Lazy[Owner, Value]: ...
    @overload
    def __get__(self, instance: Owner, owner: type[Owner]) -> Value: ...
    def __get__(self, instance: Owner | None, owner: type[Owner]) -> Value | Lazy[Owner, Value]:
        """The value, which is kept where Python looks first from now on."""
        if instance is None:
            return self
        value = self._compute(instance)
        instance.__dict__[self._name] = value
        return value


def _submit(work: Callable[[], Value]) -> Future[Value]:
    """Give work to the pool, which is one thread smaller than `thread_count`: the caller works, too.

    Several threads may come here at once, and not all need to have been given the same cores.
    """
    global _pool, _pool_size
    size = max(thread_count() - 1, 1)
    with _pool_lock:
        if _pool is None or _pool_size != size:
            if _pool is not None:
                _pool.shutdown(wait=False)  # what it has been given it still does
            _pool, _pool_size = ThreadPoolExecutor(size, thread_name_prefix="gsvr"), size
        return _pool.submit(work)
