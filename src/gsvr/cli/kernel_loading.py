"""Loading of kernels with a word to the user where they have to be compiled, and with a second process that helps.

A reconstruction starts on lattices and ends with free Gaussians. So on a first run only the kernels of lattices are
waited for; a second process compiles the others while the first stages run.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from numba.core.event import Event, Listener, register, unregister

from gsvr.warmup import warm_up_free_gaussians, warm_up_lattices

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

# What the second process does; it starts when the first finds that a kernel is not in the cache.
_COMPILE_HALF = "from gsvr.warmup import warm_up_free_gaussians; warm_up_free_gaussians()"
# Seconds after which the first process goes on alone.
_PATIENCE = 120
_COMPILING = "compiling kernels for this machine: only the first run does this, 10 to 30 s"


class _SecondCompiler(Listener):
    """Starts a process that compiles half of the kernels as soon as one of the package's is being compiled here.

    Parameters
    ----------
    wanted
        Whether that half is needed at all.
    """

    def __init__(self, console: Console, wanted: bool = True) -> None:
        self.status = console.status("loading kernels")
        self._process: subprocess.Popen | None = None
        self._told, self._too_late = False, not wanted

    def on_start(self, event: Event) -> None:
        """A function is not in the cache."""
        module = (event.data or {})["dispatcher"].py_func.__module__
        if not module.startswith("gsvr."):
            return
        if not self._told:
            self.status.update(_COMPILING)
            self._told = True
        if self._too_late:
            return
        self._too_late = True
        nothing = subprocess.DEVNULL
        # -P: what lies in the user's folder is not to be imported
        words = [sys.executable, "-P", "-c", _COMPILE_HALF]
        try:
            self._process = subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing)
        except OSError as error:
            logger.info("no second process to compile kernels: %s", error)

    def on_end(self, event: Event) -> None:
        """A function has been compiled."""

    @property
    def started(self) -> bool:
        """Whether there is, or was, a second process."""
        return self._process is not None

    @property
    def busy(self) -> bool:
        """Whether the second process still compiles."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> None:
        """Until the other half is in the cache. Should that fail or take too long, this process compiles it."""
        self._too_late = True
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.stop()

    def stop(self) -> None:
        """End the second process, if it still runs."""
        if self._process is not None and self.busy:
            self._process.kill()
            self._process.wait()


class FreeKernels:
    """The kernels of free Gaussians: loaded already, or compiled by the second process, which may go on."""

    def __init__(self, helper: _SecondCompiler) -> None:
        self._helper = helper

    @property
    def pending(self) -> bool:
        """Whether `load` has something to do."""
        return self._helper.started

    @property
    def busy(self) -> bool:
        """Whether `load` would have to wait."""
        return self._helper.busy

    def load(self) -> None:
        """Wait for them, and load them."""
        self._helper.wait()
        warm_up_free_gaussians()


@contextmanager
def lattice_kernels(console: Console, free: bool = True) -> Iterator[FreeKernels]:
    """Load the kernels of lattices, or compile them and say so.

    Parameters
    ----------
    free
        Whether those of free Gaussians will be needed, too.

    Yields
    ------
    FreeKernels
        To be loaded before a stage with free Gaussians begins.
    """
    helper = _SecondCompiler(console, free)
    register("numba:compile", helper)
    try:
        try:
            with helper.status:
                warm_up_lattices()
                if free and not helper.started:
                    # nothing was compiled, so most likely nothing will be: these load in a moment, too
                    warm_up_free_gaussians()
        finally:
            unregister("numba:compile", helper)
        yield FreeKernels(helper)
    finally:
        helper.stop()


def load_kernels(console: Console) -> None:
    """Load all kernels, or compile them and say so."""
    with lattice_kernels(console) as kernels:
        if kernels.pending:
            with console.status(_COMPILING):
                kernels.load()
