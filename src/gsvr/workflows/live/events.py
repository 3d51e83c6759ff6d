"""What happens to an examination, one line an event, for whoever watches."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gsvr.io.json_lines import JsonLines, read_json_lines

logger = logging.getLogger(__name__)

Kind = Literal["started", "slice", "stack", "volume", "verdict", "advice", "sent", "error"]
Listener = Callable[[Mapping[str, Any]], None]

# Events that wait for a disk that is full; the oldest go first.
_MOST_WAITING = 1000
# Of them, what a page that is opened late is told.
_MOST_REMEMBERED = 2000


class EventLog:
    """Events of one examination: to a file, and to those who listen.

    An event that cannot be written waits in memory, and is written before the next one.

    Parameters
    ----------
    path
        A file of JSON lines, each with ``time`` (seconds since 1970), ``event`` and more.
    """

    def __init__(self, path: Path) -> None:
        self._file = JsonLines(path)
        self._lock = threading.Lock()
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_MOST_WAITING)
        self._remembered: deque[dict[str, Any]] = deque(read_json_lines(path), maxlen=_MOST_REMEMBERED)
        self._listeners: list[Listener] = []

    def tell(self, kind: Kind, **details: Any) -> None:
        """One event."""
        self.tell_all([{"event": kind, **details}])

    def tell_all(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Some events that happened at once."""
        now = round(time.time(), 3)
        entries = [{"time": now, **event} for event in events]
        with self._lock:
            self._waiting.extend(entries)
            self._remembered.extend(entries)
            try:
                self._file.append(list(self._waiting))
                self._waiting.clear()
            except OSError as error:
                logger.warning("%s cannot be written (%s)", self._file.path, error.strerror)
            for listener in self._listeners:  # inside the lock, so that nobody hears an event twice, or never
                for entry in entries:
                    listener(entry)

    @property
    def so_far(self) -> list[dict[str, Any]]:
        """The latest events, oldest first."""
        with self._lock:
            return list(self._remembered)

    def follow(self, listener: Listener) -> tuple[list[dict[str, Any]], Callable[[], None]]:
        """Call `listener` with every event from now on, from the thread where it happens.

        Returns
        -------
        The latest events until now, oldest first, and what ends it.
        """
        with self._lock:
            self._listeners.append(listener)
            before = list(self._remembered)

        def stop() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return before, stop
