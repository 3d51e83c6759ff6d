"""The second process that compiles half of the kernels: when it starts, and that it is never in the way."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from numba.core.event import Event, EventStatus
from rich.console import Console

from gsvr.cli import kernel_loading
from gsvr.cli.reconstruct import _run_with_progress
from gsvr.solver.paper import PaperOptions
from gsvr.solver.schedule import SolverOptions, default_stages


class Process:
    """A process that ends when it is told to, or hangs."""

    def __init__(self, hangs: bool = False) -> None:
        self.running, self.hangs, self.killed = True, hangs, False

    def wait(self, timeout: float | None = None) -> int:
        if self.hangs and not self.killed:
            raise subprocess.TimeoutExpired("compile", timeout or 0)
        self.running = False
        return 0

    def poll(self) -> int | None:
        return None if self.running else 0

    def kill(self) -> None:
        self.killed = True


def compilation(module: str) -> Event:
    function = SimpleNamespace(py_func=SimpleNamespace(__module__=module))
    return Event("numba:compile", EventStatus.START, data={"dispatcher": function})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    words: list[list[str]] = []

    def start(command: list[str], **_: object) -> Process:
        words.append(command)
        return Process()

    monkeypatch.setattr(subprocess, "Popen", start)
    return words


def helper() -> kernel_loading._SecondCompiler:
    return kernel_loading._SecondCompiler(Console(quiet=True))


def test_it_starts_once_and_only_for_kernels_of_the_package(started: list[list[str]]):
    second = helper()
    second.on_start(compilation("numba.np.arrayobj"))
    assert not started
    second.on_start(compilation("gsvr.kernels.splat"))
    second.on_start(compilation("gsvr.kernels.plan"))
    assert len(started) == 1
    assert "-P" in started[0]  # what lies in the user's folder is not to be imported
    assert "warm_up_free_gaussians" in started[0][-1]


def test_it_does_not_start_when_its_half_has_begun_here(started: list[list[str]]):
    second = helper()
    second.wait()
    second.on_start(compilation("gsvr.kernels.gaussian_plan"))
    assert not started


def test_without_a_second_process_this_one_goes_on(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> Process:
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    second = helper()
    second.on_start(compilation("gsvr.kernels.splat"))
    second.wait()
    second.stop()


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch):
    hanging = Process(hangs=True)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: hanging)
    second = helper()
    second.on_start(compilation("gsvr.kernels.splat"))
    second.wait()
    assert hanging.killed


def test_a_failure_ends_it_too(monkeypatch: pytest.MonkeyPatch):
    process = Process()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: process)

    def fail() -> None:
        second[0].on_start(compilation("gsvr.kernels.splat"))
        raise RuntimeError("broken")

    second: list[kernel_loading._SecondCompiler] = []
    monkeypatch.setattr(kernel_loading, "register", lambda _, listener: second.append(listener))
    monkeypatch.setattr(kernel_loading, "unregister", lambda *_: None)
    monkeypatch.setattr(kernel_loading, "warm_up_lattices", fail)
    with pytest.raises(RuntimeError, match="broken"):
        kernel_loading.load_kernels(Console(quiet=True))
    assert process.killed


def test_without_free_gaussians_nothing_is_started(started: list[list[str]]):
    second = kernel_loading._SecondCompiler(Console(quiet=True), wanted=False)
    second.on_start(compilation("gsvr.kernels.splat"))
    assert not started
    assert not second.busy


def test_only_the_kernels_of_lattices_are_waited_for(monkeypatch: pytest.MonkeyPatch):
    process, done = Process(), []
    listeners: list[kernel_loading._SecondCompiler] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: process)
    monkeypatch.setattr(kernel_loading, "register", lambda _, listener: listeners.append(listener))
    monkeypatch.setattr(kernel_loading, "unregister", lambda *_: None)

    def lattices() -> None:
        listeners[0].on_start(compilation("gsvr.kernels.splat"))
        done.append("lattices")

    monkeypatch.setattr(kernel_loading, "warm_up_lattices", lattices)
    monkeypatch.setattr(kernel_loading, "warm_up_free_gaussians", lambda: done.append("free"))
    with kernel_loading.lattice_kernels(Console(quiet=True)) as kernels:
        assert done == ["lattices"]
        assert process.running
        assert kernels.pending
        assert kernels.busy
        kernels.load()
        assert done == ["lattices", "free"]
        assert not kernels.busy
    assert not process.killed


@pytest.mark.parametrize("free", [True, False])
def test_what_is_in_the_cache_is_loaded_at_once(free: bool, started: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    """Also when only the kernels of lattices were: then this process compiles the others, and says so."""
    done: list[str] = []
    monkeypatch.setattr(kernel_loading, "warm_up_lattices", lambda: done.append("lattices"))
    monkeypatch.setattr(kernel_loading, "warm_up_free_gaussians", lambda: done.append("free"))
    with kernel_loading.lattice_kernels(Console(quiet=True), free) as kernels:
        assert not kernels.pending
    assert done == (["lattices", "free"] if free else ["lattices"])
    assert not started


def run_with(monkeypatch: pytest.MonkeyPatch, options: SolverOptions | PaperOptions) -> list[str]:
    """What happens in which order when a reconstruction with these options runs for the first time."""
    told: list[str] = []

    @contextmanager
    def kernels(_: Console, free: bool) -> Iterator[SimpleNamespace]:
        told.append(f"lattices, free: {free}")
        yield SimpleNamespace(pending=free, busy=free, load=lambda: told.append("load"))

    def run(job: SimpleNamespace, _: float, callback: Callable[[Any], None]) -> None:
        for stage in getattr(job.options, "stages", ()):
            for done in (False, True):
                weights = SimpleNamespace(noise=0.1)
                state = SimpleNamespace(weights=weights)
                callback(SimpleNamespace(stage=stage, stage_done=done, done=1, total=2, state=state))
            told.append(stage.name)

    monkeypatch.setattr(kernel_loading, "lattice_kernels", kernels)
    monkeypatch.setattr(kernel_loading, "load_kernels", lambda _: told.append("everything"))
    monkeypatch.setattr("gsvr.pipeline.run", run)
    _run_with_progress(Console(quiet=True), SimpleNamespace(options=options), 1.0)  # pyright: ignore[reportArgumentType]
    return told


def test_free_gaussians_are_loaded_once_just_before_their_stage(monkeypatch: pytest.MonkeyPatch):
    names = [stage.name for stage in default_stages()]
    told = run_with(monkeypatch, SolverOptions())
    assert told[0] == "lattices, free: True"
    assert told[1:] == [*names[:-2], "load", *names[-2:]]


def test_only_what_is_needed_is_loaded(monkeypatch: pytest.MonkeyPatch):
    lattices = default_stages(free=False)
    assert run_with(monkeypatch, SolverOptions(stages=lattices))[0] == "lattices, free: False"
    assert "load" not in run_with(monkeypatch, SolverOptions(stages=lattices))
    assert "load" not in run_with(monkeypatch, SolverOptions(backend="cuda"))
    assert run_with(monkeypatch, PaperOptions()) == ["everything"]


def test_an_interrupted_command_leaves_no_process(monkeypatch: pytest.MonkeyPatch):
    process = Process()
    listeners: list[kernel_loading._SecondCompiler] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: process)
    monkeypatch.setattr(kernel_loading, "register", lambda _, listener: listeners.append(listener))
    monkeypatch.setattr(kernel_loading, "unregister", lambda *_: None)
    monkeypatch.setattr(kernel_loading, "warm_up_lattices", lambda: None)

    def interrupted() -> None:
        with kernel_loading.lattice_kernels(Console(quiet=True)):
            listeners[0].on_start(compilation("gsvr.kernels.splat"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert process.killed
