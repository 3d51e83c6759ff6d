"""What an examination received, so that nothing is lost when its process is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gsvr.io.json_lines import JsonLines, read_json_lines
from gsvr.workflows.live.arrival import Arrival


class Journal:
    """Arrivals in their order, on the disk before anything is done with them.

    Parameters
    ----------
    path
        A file of JSON lines; what it holds already are the arrivals before, of which those that count are kept.
    """

    def __init__(self, path: Path, examination: str) -> None:
        self._file = JsonLines(path)
        entries = (_arrival(entry, examination) for entry in read_json_lines(path))
        self.before: list[Arrival] = _that_count([arrival for arrival in entries if arrival is not None])

    def note(self, arrival: Arrival) -> None:
        """Keep an arrival.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        mask = None if arrival.mask is None else str(arrival.mask)
        entry: dict[str, Any] = {
            "path": str(arrival.path),
            "mask": mask,
            "time": arrival.time,
            "version": arrival.version,
        }
        if arrival.dicom is not None:
            entry["dicom"] = str(arrival.dicom)
        if arrival.replaces:
            entry["replaces"] = [str(path) for path in arrival.replaces]
        self._file.append([entry])


def _that_count(arrivals: list[Arrival]) -> list[Arrival]:
    """The last arrival of every file, but for those that later ones replace."""
    kept: dict[Path, Arrival] = {}
    for arrival in arrivals:
        for path in (arrival.path, *arrival.replaces):
            kept.pop(path, None)
        kept[arrival.path] = arrival
    return list(kept.values())


def _arrival(entry: dict, examination: str) -> Arrival | None:
    path, mask = entry.get("path"), entry.get("mask")
    time, version = entry.get("time"), entry.get("version")
    if not (isinstance(path, str) and isinstance(time, int | float) and isinstance(version, str)):
        return None
    mask, dicom = (Path(one) if isinstance(one, str) else None for one in (mask, entry.get("dicom")))
    told = entry.get("replaces")
    replaces = tuple(Path(one) for one in told if isinstance(one, str)) if isinstance(told, list) else ()
    return Arrival(examination, Path(path), mask, float(time), version, dicom, replaces)
