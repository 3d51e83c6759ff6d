"""A file that grows by one JSON object a line, and that survives whatever stops its writer."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gsvr.io.record import to_plain


class JsonLines:
    """Appends lines to a file; what a line says is on the disk when `append` returns.

    Parameters
    ----------
    path
        Made if it is missing. The end of a line that was cut short is removed.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self._lock = Path(path), threading.Lock()
        with open(self.path, "ab"):
            pass
        with open(self.path, "r+b") as file:
            file.truncate(_length_of_whole_lines(file.read()))

    def append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Write some lines: all of them, or none.

        Raises
        ------
        OSError
            If they cannot be written, as on a full disk.
        """
        lines = [json.dumps(to_plain(entry), ensure_ascii=False, allow_nan=False) + "\n" for entry in entries]
        content = "".join(lines).encode()
        with self._lock, open(self.path, "r+b", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            try:
                written = file.write(content)
                if written != len(content):
                    raise OSError(28, "No space left on device", str(self.path))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(length)
                raise


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file, without a last line that was cut short; none if there is no file.

    Lines that are no JSON object, in a file that something else wrote to, are passed over.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    entries = []
    for line in content[: _length_of_whole_lines(content)].splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _length_of_whole_lines(content: bytes) -> int:
    return content.rfind(b"\n") + 1
