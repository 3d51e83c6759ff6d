"""The second process that compiles half of the kernels: when it starts, and that it is never in the way."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest
from numba.core.event import Event, EventStatus
from rich.console import Console

from gsvr.cli import kernel_loading


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
        kernels.load()
        assert done == ["lattices", "free"]
        assert not kernels.pending
    assert not process.killed


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
