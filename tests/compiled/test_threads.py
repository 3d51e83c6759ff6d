"""The pool of threads: every index once, errors told, forks survived."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from gsvr.compiled import threads
from gsvr.compiled.threads import Lazy, in_a_hurry, parallel_for, parallel_map, quota_of_groups, thread_count
from gsvr.errors import InputError


def squares(n: int) -> np.ndarray:
    out = np.zeros(n, int)

    def body(i: int) -> None:
        out[i] += i * i

    parallel_for(body, n)
    return out


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_every_index_is_visited_once(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSVR_THREADS", threads)
    assert np.array_equal(squares(100), np.arange(100) ** 2)


def test_an_error_in_a_thread_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSVR_THREADS", "3")

    def body(i: int) -> None:
        if i == 5:
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        parallel_for(body, 10)


def test_an_error_stops_the_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is raised in one thread: what the others have not begun must not go on for minutes."""
    monkeypatch.setenv("GSVR_THREADS", "2")
    visited = []

    def body(i: int) -> None:
        visited.append(i)
        if i == 1:
            raise KeyboardInterrupt
        time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        parallel_for(body, 1000)
    assert len(visited) < 10


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSVR_THREADS", value)
    with pytest.raises(InputError, match="GSVR_THREADS"):
        thread_count()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSVR_THREADS", "2")
    squares(10)  # the parent's pool exists
    child = multiprocessing.get_context("fork").Process(target=squares, args=(10,))
    child.start()
    child.join(timeout=20)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert child.exitcode == 0


def test_values_come_in_the_order_of_their_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSVR_THREADS", "3")
    assert parallel_map(lambda x: x**2, range(50)) == [x**2 for x in range(50)]
    assert parallel_map(str, []) == []


def test_an_interruption_waits_for_threads_that_have_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """They write to the caller's arrays, also where it comes before all of them have their work."""
    monkeypatch.setenv("GSVR_THREADS", "3")
    begun, ended = Event(), Event()
    submit = threads._submit

    def interrupted(work: Callable[[], None]) -> Future[None]:
        if begun.is_set():
            raise KeyboardInterrupt
        future = submit(work)
        begun.wait(timeout=20)
        return future

    def work() -> None:
        begun.set()
        time.sleep(0.1)
        ended.set()

    monkeypatch.setattr(threads, "_submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        threads.on_all_threads(work, 3)
    assert ended.is_set()


def test_callers_may_differ_in_their_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where they may run on different cores: the pool of one is not closed to the other."""
    monkeypatch.setattr(threads, "thread_count", cycle([2, 3, 4]).__next__)

    def call(_: int) -> np.ndarray:
        return np.concatenate([squares(3) for _ in range(300)])

    with ThreadPoolExecutor(3) as callers:
        assert all(np.array_equal(found, np.tile([0, 1, 4], 300)) for found in callers.map(call, range(3)))


@pytest.mark.parametrize(
    ("ours", "usual", "expected"), [("", "3", 3), ("", "5,2", 5), ("2", "3", 2), ("", "many", None)]
)
def test_the_usual_variable_counts_where_ours_is_not_set(
    monkeypatch: pytest.MonkeyPatch, ours: str, usual: str, expected: int | None
) -> None:
    monkeypatch.setenv("GSVR_THREADS", ours)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    every = thread_count()
    monkeypatch.setenv("OMP_NUM_THREADS", usual)
    assert thread_count() == (expected or every)


def test_the_share_of_a_container(tmp_path: Path) -> None:
    """The smallest share of all groups above, in both versions of control groups."""
    own, group = tmp_path / "cgroup", tmp_path / "fs" / "slice" / "container"
    group.mkdir(parents=True)
    own.write_text("0::/slice/container\n")
    assert quota_of_groups(own, tmp_path / "fs") is None
    (group / "cpu.max").write_text("max 100000\n")
    assert quota_of_groups(own, tmp_path / "fs") is None
    (group.parent / "cpu.max").write_text("250000 100000\n")
    assert quota_of_groups(own, tmp_path / "fs") == 3
    (group / "cpu.max").write_text("20000 100000\n")
    assert quota_of_groups(own, tmp_path / "fs") == 1
    first = tmp_path / "fs" / "cpu" / "docker"
    first.mkdir(parents=True)
    own.write_text("5:memory:/docker\n4:cpu,cpuacct:/docker\n")
    for name, value in (("quota", -1), ("period", 50000)):
        (first / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert quota_of_groups(own, tmp_path / "fs") is None
    (first / "cpu.cfs_quota_us").write_text("100000\n")
    assert quota_of_groups(own, tmp_path / "fs") == 2
    assert quota_of_groups(tmp_path / "absent", tmp_path / "fs") is None


def test_who_is_in_a_hurry_has_the_cores_and_the_others_go_on_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSVR_THREADS", "2")
    order: list[str] = []
    begun, hurried = Event(), Event()

    def others() -> None:
        parallel_for(lambda _: begun.set(), 2)
        assert hurried.wait(10)
        parallel_for(lambda _: order.append("others"), 2)

    thread = Thread(target=others)
    thread.start()
    assert begun.wait(10)
    with in_a_hurry():
        hurried.set()
        time.sleep(0.1)
        # what its own threads call in turn is let through
        parallel_for(lambda _: parallel_for(lambda _: order.append("hurry"), 2), 2)
    thread.join(10)
    assert order == ["hurry"] * 4 + ["others"] * 2


class _Kernel:
    """What it needs is computed on all threads, when it is first asked for."""

    def __init__(self, begun: Event) -> None:
        self.begun = begun

    @Lazy
    def plan(self) -> list[int]:
        """Slow to make."""
        self.begun.set()
        return parallel_map(lambda number: number**2, range(4))


def test_who_is_in_a_hurry_does_not_wait_for_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSVR_THREADS", "2")
    begun = Event()
    slow, hurried = _Kernel(begun), _Kernel(Event())
    other = Thread(target=lambda: slow.plan, daemon=True)
    with in_a_hurry():
        other.start()
        assert begun.wait(10)  # and waits now until nobody is in a hurry
        assert hurried.plan == [0, 1, 4, 9]
    other.join(10)
    assert not other.is_alive()
    assert slow.plan is slow.plan
    assert _Kernel.plan.__doc__ == "Slow to make."
