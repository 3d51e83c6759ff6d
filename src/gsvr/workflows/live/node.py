"""Sources, examinations, and the threads that keep them going: one receives, one places slices, one makes volumes."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gsvr.workflows.live.arrival import Arrival, Refusal, SliceArrival, Source
from gsvr.workflows.live.examination import LiveExamination, LiveOptions

logger = logging.getLogger(__name__)

# Arrivals that wait to be read; a source that delivers more is made to wait.
_MOST_WAITING = 256
# Examinations that are kept in memory: of those before there are only the files.
_MOST_EXAMINATIONS = 4
_LOOK = 0.1


class LiveNode:
    """Receives from its sources until it is told to end.

    Parameters
    ----------
    output_dir
        Each examination has a folder in it, which is taken up again if it is there.
    sources
        Where images come from.
    listener
        Told of every event, with the name of its examination first, from the thread where it happens.
    """

    def __init__(
        self,
        output_dir: Path,
        options: LiveOptions,
        sources: Sequence[Source],
        listener: Callable[[str, Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._output_dir, self._options, self._sources = output_dir, options, sources
        self._listener = listener
        self._arrivals: queue.Queue[Arrival | SliceArrival | Refusal] = queue.Queue(_MOST_WAITING)
        self._examinations: dict[str, LiveExamination] = {}
        self._stopped, self._lock, self._slices = threading.Event(), threading.Lock(), threading.Event()
        self._heard = time.monotonic()

    @property
    def examinations(self) -> Mapping[str, LiveExamination]:
        """Those in memory, by name, the latest last."""
        with self._lock:
            return dict(self._examinations)

    def run(self, exit_when_idle: float | None = None, ready: Callable[[], None] = lambda: None) -> None:
        """Work until interrupted.

        Parameters
        ----------
        exit_when_idle
            Return when nothing arrived for so many seconds and everything is done.
        ready
            Called once the sources are listened to.
        """
        workers = [
            threading.Thread(target=self._work, name="reconstruction", daemon=True),
            threading.Thread(target=self._place, name="placement", daemon=True),
        ]
        self._resume()
        for worker in workers:
            worker.start()
        for source in self._sources:
            source.start(self._arrivals.put)
        ready()
        self._heard = time.monotonic()
        try:
            self._receive(exit_when_idle)
        finally:
            self._stopped.set()
            self._let_sources_go()
            for worker in workers:
                worker.join()

    def _resume(self) -> None:
        """Take up the examinations of an earlier process that have something left to do."""
        journals = sorted(self._output_dir.glob("*/journal.jsonl"), key=lambda path: path.stat().st_mtime)
        for journal in journals[-_MOST_EXAMINATIONS:]:
            self._examination(journal.parent.name)

    def _let_sources_go(self) -> None:
        """A source that waits for room in the queue would never stop."""
        threads = [threading.Thread(target=source.stop) for source in self._sources]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            try:
                self._arrivals.get(timeout=_LOOK)
            except queue.Empty:
                continue

    def _receive(self, exit_when_idle: float | None) -> None:
        while True:
            try:
                arrival = self._arrivals.get(timeout=_LOOK)
            except queue.Empty:
                quiet = time.monotonic() - self._heard
                if exit_when_idle is not None and quiet > exit_when_idle and self._is_idle():
                    return
                continue
            self._heard = time.monotonic()
            self._take(arrival)

    def _take(self, arrival: Arrival | SliceArrival | Refusal) -> None:
        examination = self._examination(arrival.examination)
        if isinstance(arrival, SliceArrival):
            examination.see(arrival)
            self._slices.set()
            return
        if isinstance(arrival, Refusal):
            examination.refuse(arrival)
            return
        while not self._stopped.is_set():
            try:
                examination.receive(arrival)
            except OSError as error:  # the journal cannot be written: a full disk, as a rule
                logger.warning("%s: not received yet (%s)", arrival.examination, error.strerror)
                self._stopped.wait(1.0)
            else:
                return

    def _examination(self, name: str) -> LiveExamination:
        with self._lock:
            found = self._examinations.get(name)
        if found is None:
            found = LiveExamination(self._output_dir / name, self._options, self._stopped.is_set)
            if self._listener is not None:
                found.events.follow(partial(self._listener, name))
            with self._lock:
                self._examinations[name] = found
                idle = [other for other in self._examinations.values() if other.is_idle and other is not found]
                surplus = max(len(self._examinations) - _MOST_EXAMINATIONS, 0)
                for other in sorted(idle, key=lambda one: one.last_arrival)[:surplus]:
                    del self._examinations[other.name]
        return found

    def _is_idle(self) -> bool:
        return self._arrivals.empty() and all(one.is_idle for one in self.examinations.values())

    def _place(self) -> None:
        """Slices have their places within a fraction of a second, whatever volume is being made."""
        while not self._stopped.is_set():
            if not self._slices.wait(_LOOK):
                continue
            self._slices.clear()
            for examination in self.examinations.values():
                while examination.has_slices and not self._stopped.is_set():
                    examination.place()

    def _work(self) -> None:
        """Quick volumes before final ones, and the examination that is going on before others."""
        while not self._stopped.is_set():
            latest = sorted(self.examinations.values(), key=lambda one: -one.last_arrival)
            due = [one for kind in ("quick", "final") for one in latest if one.waits == kind]
            if due:
                due[0].work()
            else:
                self._stopped.wait(_LOOK / 2)
