"""Work that is repeated in place, recorded as a CUDA graph once every kernel of it has been compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

logger = logging.getLogger(__name__)

# Times before it is recorded: by then every kernel has been compiled.
_WARM_UP = 3


class Recorded:
    """A function that always reads and writes the same memory; calling this runs it, or replays it as one launch.

    Parameters
    ----------
    work
        Without arguments and results, and without waiting for the device.
    records
        Whether to record it at all; only CUDA devices can.
    """

    def __init__(self, work: Callable[[], None], records: bool) -> None:
        self.records = records
        self._work = work
        self._graph: torch.cuda.CUDAGraph | None = None
        self._count = 0

    def __call__(self) -> None:
        """Once."""
        if self._graph is None and self.records and self._count == _WARM_UP:
            self._record()
        if self._graph is not None:
            self._graph.replay()
            return
        self._count += 1
        self._work()

    def _record(self) -> None:
        """Record without running."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._work()
        except RuntimeError as error:
            logger.warning("an iteration could not be recorded as a CUDA graph (%s): going on without, slower", error)
            self.records = False
            return
        self._graph = graph
