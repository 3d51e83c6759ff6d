"""Loading of kernels with a word to the user where they have to be compiled, and with a second process that helps."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

from numba.core.event import Event, Listener, register, unregister

from gsvr.warmup import warm_up

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

# What the second process does; it starts when the first finds that a kernel is not in the cache.
_COMPILE_HALF = "from gsvr.warmup import warm_up_free_gaussians; warm_up_free_gaussians()"
# Seconds after which the first process goes on alone.
_PATIENCE = 120


class _SecondCompiler(Listener):
    """Starts a process that compiles half of the kernels as soon as one of the package's is being compiled here."""

    def __init__(self, console: Console) -> None:
        self.status = console.status("loading kernels")
        self._process: subprocess.Popen | None = None
        self._too_late = False

    def on_start(self, event: Event) -> None:
        """A function is not in the cache."""
        module = (event.data or {})["dispatcher"].py_func.__module__
        if self._too_late or not module.startswith("gsvr."):
            return
        self._too_late = True
        self.status.update("compiling kernels for this machine: only the first run does this, 10 to 30 s")
        nothing = subprocess.DEVNULL
        # -P: what lies in the user's folder is not to be imported
        words = [sys.executable, "-P", "-c", _COMPILE_HALF]
        try:
            self._process = subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing)
        except OSError as error:
            logger.info("no second process to compile kernels: %s", error)

    def on_end(self, event: Event) -> None:
        """A function has been compiled."""

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
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
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
        helper.stop()
