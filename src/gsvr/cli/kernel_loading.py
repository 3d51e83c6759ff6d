"""Loading of kernels with a word to the user where they have to be compiled, and with a second process that helps."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from numba.core.event import Event, Listener, register, unregister

from gsvr.warmup import warm_up

if TYPE_CHECKING:
    from rich.console import Console

# What the second process does; it starts when the first finds that a kernel is not in the cache.
_COMPILE_HALF = "from gsvr.warmup import warm_up_free_gaussians; warm_up_free_gaussians()"


class _SecondCompiler(Listener):
    """Starts a process that compiles half of the kernels as soon as one of the package's is being compiled here."""

    def __init__(self, console: Console) -> None:
        self.status = console.status("loading kernels")
        self._process: subprocess.Popen | None = None

    def on_start(self, event: Event) -> None:
        """A function is not in the cache."""
        module = (event.data or {})["dispatcher"].py_func.__module__
        if self._process is None and module.startswith("gsvr."):
            self.status.update("compiling kernels for this machine: only the first run does this, about 10 s")
            words = [sys.executable, "-c", _COMPILE_HALF]
            self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def on_end(self, event: Event) -> None:
        """A function has been compiled."""

    def wait(self) -> None:
        """Until the other half is in the cache. Should that have failed, this process compiles it."""
        if self._process is not None:
            self._process.wait()


def load_kernels(console: Console) -> None:
    """Load the kernels, or compile them and say so."""
    helper = _SecondCompiler(console)
    register("numba:compile", helper)
    try:
        with helper.status:
            warm_up(helper.wait)
    finally:
        unregister("numba:compile", helper)
        helper.wait()
