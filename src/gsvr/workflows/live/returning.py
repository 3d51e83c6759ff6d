"""Volumes back to a PACS or the scanner's console: a derived DICOM series after every verdict, or on demand.

A destination that is down disturbs nothing: sending has a thread of its own, failures become events, and what could not
be sent is tried again, ever more rarely, until it is taken or a newer volume takes its place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsvr.errors import InputError
from gsvr.io.dicom.derived import SERIES_NUMBER, DicomOrigin, derived_series
from gsvr.io.dicom.folder import UNREADABLE, read_frames
from gsvr.io.dicom.installed import require
from gsvr.io.dicom.peers import Peer
from gsvr.io.dicom.sender import SenderOptions, send
from gsvr.io.nifti import read_volume
from gsvr.io.record import read_record
from gsvr.model.volume import Volume
from gsvr.workflows.live.arrival import Arrival
from gsvr.workflows.live.examination import LiveExamination, output_paths
from gsvr.workflows.live.journal import Journal

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

_LOOK = 0.3
# Examinations whose volume waits for a destination that is down.
_MOST_WAITING = 20


@dataclass(frozen=True)
class ReturnOptions:
    """Where volumes go.

    Attributes
    ----------
    peer
        The node that they are sent to.
    named
        Whether they say who the patient is, as the images that were received do.
    title
        The AE title of this side.
    patience
        Seconds to wait for an answer; attempts are made one at a time.
    pause, longest
        Seconds until the second attempt, which double with each that follows, up to the longest.
    """

    peer: Peer
    named: bool = False
    title: str = "GSVR"
    patience: float = 15.0
    pause: float = 5.0
    longest: float = 300.0


@dataclass
class _Waiting:
    """A volume that is to be sent."""

    examination: LiveExamination
    instances: list[Dataset]
    due: float = 0.0
    failures: int = 0


class Returner:
    """Sends every volume that has a verdict, but not one that failed.

    Parameters
    ----------
    examinations
        Those that are going on, by name.
    """

    def __init__(self, options: ReturnOptions, examinations: Callable[[], Mapping[str, LiveExamination]]) -> None:
        require("pynetdicom", "live")
        self._options, self._examinations = options, examinations
        self._waiting: dict[str, _Waiting] = {}
        self._known: dict[str, object] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="return to PACS", daemon=True)

    def start(self) -> None:
        """Begin; what an earlier process did not send is sent."""
        self._thread.start()

    def stop(self, last_attempt: bool = False) -> None:
        """End; with a last attempt to send what waits."""
        self._stopped.set()
        self._thread.join()
        if last_attempt:
            self._look()
            for waiting in list(self._waiting.values()):
                self._try(waiting)

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK):
            self._look()
            for waiting in list(self._waiting.values()):
                if waiting.due <= time.monotonic() and not self._stopped.is_set():
                    self._try(waiting)

    def _look(self) -> None:
        """Which volumes are new."""
        examinations = self._examinations()
        self._known = {name: known for name, known in self._known.items() if name in examinations}
        for name, examination in examinations.items():
            latest = examination.latest
            try:
                if latest is None or latest.stored:
                    if name not in self._known:
                        self._known[name] = None
                        if _is_unsent(examination):
                            self._add(examination, instances_of(examination.folder, self._options.named))
                elif latest.verdict is not None and self._known.get(name) is not latest.verdict:
                    self._known[name] = latest.verdict
                    if latest.verdict.grade == "failed":
                        logger.info("%s: a volume that failed is not sent", name)
                        continue
                    origin = origin_of(examination.arrivals, self._options.named)
                    self._add(examination, _series(latest.volume, origin, latest.n_stacks, latest.verdict.sentence))
            except Exception as error:  # whatever is wrong with the files of a scanner; other examinations go on
                reason = str(error) if isinstance(error, InputError) else type(error).__name__
                logger.warning("%s: its volume cannot be sent (%s)", name, reason)
                examination.events.tell("error", reason=f"the volume cannot be sent: {reason}")

    def _add(self, examination: LiveExamination, instances: list[Dataset]) -> None:
        self._waiting.pop(examination.name, None)
        self._waiting[examination.name] = _Waiting(examination, instances)
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))

    def _try(self, waiting: _Waiting) -> None:
        options, events = self._options, waiting.examination.events
        began = time.monotonic()
        try:
            send(waiting.instances, options.peer, SenderOptions(options.title, options.patience, attempts=1))
        except Exception as error:  # pynetdicom raises anything; the examination goes on
            pause = min(options.pause * 2**waiting.failures, options.longest)
            waiting.failures, waiting.due = waiting.failures + 1, time.monotonic() + pause
            reason = str(error) if isinstance(error, InputError) else f"{options.peer}: {type(error).__name__}"
            events.tell("error", reason=f"the volume was not sent: {reason}", retry_seconds=pause)
        else:
            self._waiting.pop(waiting.examination.name, None)
            seconds = round(time.monotonic() - began, 3)
            events.tell("sent", peer=str(options.peer), images=len(waiting.instances), seconds=seconds)


def origin_of(arrivals: list[Arrival], named: bool) -> DicomOrigin | None:
    """The study that stacks of an examination came from; None if they did not come by DICOM."""
    found = []
    files = [arrival.dicom for arrival in arrivals if arrival.dicom is not None]
    for file in files:
        try:
            found.append(read_frames(file)[0])
        except UNREADABLE:  # deleted since, perhaps
            continue
    if not found:
        if files:
            logger.warning(
                "none of the DICOM files that its stacks came from can be read: the volume goes into a study of its own"
            )
        return None
    frame = Counter(one.frame_of_reference for one in found).most_common(1)[0][0]
    return DicomOrigin(found[0].study, frame, found[0].file, named)


def instances_of(folder: Path, named: bool = False) -> list[Dataset]:
    """The volume in the folder of an examination as DICOM instances.

    Raises
    ------
    InputError
        If there is no volume with a record.
    """
    paths = output_paths(folder)
    record = read_record(paths.record)
    volume = read_volume(paths.volume, paths.mask)
    origin = origin_of(Journal(folder / "journal.jsonl", folder.name).before, named)
    return _series(volume, origin, len(record["stacks"]), f"Verdict: {record['verdict']['grade']}.")


def _series(volume: Volume, origin: DicomOrigin | None, n_stacks: int, comment: str) -> list[Dataset]:
    """Numbered by stacks, so that a viewer shows the latest last."""
    instances = derived_series(volume, origin, comment)
    for instance in instances:
        instance.SeriesNumber = SERIES_NUMBER + n_stacks
        instance.SeriesDescription = f"{instance.SeriesDescription}, {n_stacks} stacks"
    return instances


def _is_unsent(examination: LiveExamination) -> bool:
    """Whether the last verdict was not followed by sending."""
    kinds = [event["event"] for event in examination.events.so_far if event["event"] in ("verdict", "sent", "volume")]
    good = [event for event in examination.events.so_far if event["event"] == "verdict"]
    return bool(kinds) and kinds[-1] == "verdict" and good[-1].get("grade") != "failed"
