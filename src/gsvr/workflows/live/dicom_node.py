"""A DICOM node as a source: instances that a scanner sends become stacks, each as a NIfTI file with its sidecar.

A scanner does not say how many images a series is going to have. So a series counts as complete when no instance of it
came for a while, longer than from one to the next; if there are more after all, the stack comes once more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path
from gsvr.io.dicom.frame import Frame
from gsvr.io.dicom.pixels import read_dicom_stack
from gsvr.io.dicom.receiver import ReceivedInstance, ReceiverOptions, StoreReceiver
from gsvr.io.dicom.selection import select
from gsvr.io.dicom.stacks import DicomStack, stacks_of
from gsvr.io.nifti import write_volume
from gsvr.io.sidecar import sidecar_path
from gsvr.workflows.live.arrival import Arrival, Deliver, Refusal

logger = logging.getLogger(__name__)

# Instances that wait to be sorted; scanners are made to wait for more.
_MOST_WAITING = 1000
# Frames of one study; what comes after that is stored, and not used.
_MOST_FRAMES = 20_000
_LOOK = 0.2


@dataclass(frozen=True)
class DicomNodeOptions:
    """How a node listens, and when a series counts as complete.

    Attributes
    ----------
    receiver
        See `gsvr.io.dicom.receiver.ReceiverOptions`.
    quiet, least_quiet
        Seconds without an instance of a series: so many at most, and so many at least.
    intervals
        In between it is so many times as long as the series took from one instance to the next.
    """

    receiver: ReceiverOptions = field(default_factory=ReceiverOptions)
    quiet: float = 4.0
    least_quiet: float = 1.0
    intervals: float = 2.5


@dataclass
class _Series:
    """What came of a series so far."""

    frames: list[Frame] = field(default_factory=list)
    first: float = float("inf")
    latest: float = 0.0
    delivered: int = 0

    def quiet(self, options: DicomNodeOptions) -> float:
        """Seconds without another instance after which it is complete."""
        interval = (self.latest - self.first) / max(len(self.frames) - 1, 1)
        return min(max(options.intervals * interval, options.least_quiet), options.quiet)


class DicomNode:
    """Delivers the T2-weighted stacks that scanners send.

    Parameters
    ----------
    output_dir
        Received instances are kept in ``received`` in it, stacks in the folder of their examination.
    """

    def __init__(self, output_dir: Path, options: DicomNodeOptions | None = None) -> None:
        self._output_dir, self._options = output_dir, options or DicomNodeOptions()
        self._waiting: queue.Queue[ReceivedInstance] = queue.Queue(_MOST_WAITING)
        self._receiver = StoreReceiver(output_dir / "received", self._waiting.put, self._options.receiver)
        self._studies: dict[str, dict[str, _Series]] = {}
        self._stopped, self._thread = threading.Event(), None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._receiver.port

    def start(self, deliver: Deliver) -> None:
        """See `gsvr.workflows.live.arrival.Source`; instances of earlier processes are sorted anew."""
        self._receiver.start()
        for instance in list(self._receiver.received()):
            self._sort(instance)
        self._thread = threading.Thread(target=self._watch, args=(deliver,), name="DICOM node", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """See `gsvr.workflows.live.arrival.Source`."""
        self._stopped.set()
        self._receiver.stop()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, deliver: Deliver) -> None:
        while not self._stopped.is_set():
            try:
                self._sort(self._waiting.get(timeout=_LOOK))
                continue
            except queue.Empty:
                pass
            for study in list(self._studies):
                self._deliver_complete(study, deliver)

    def _sort(self, instance: ReceivedInstance) -> None:
        for frame in instance.frames:
            study = self._studies.setdefault(frame.study, {})
            series = study.setdefault(frame.series, _Series())
            if sum(len(one.frames) for one in study.values()) >= _MOST_FRAMES:
                logger.warning("a study has more images than an examination: the rest is stored, and not used")
                return
            series.frames.append(frame)
            series.first = min(series.first, instance.time)
            series.latest = max(series.latest, instance.time)

    def _deliver_complete(self, study: str, deliver: Deliver) -> None:
        """Stacks of those series that are complete and have grown."""
        series = self._studies[study]
        now = time.time()
        for uid, one in series.items():
            complete = now - one.latest > one.quiet(self._options)
            if len(one.frames) == one.delivered or not complete:
                continue
            one.delivered = len(one.frames)
            every = [frame for other in series.values() for frame in other.frames]
            chosen, left_out = select(stacks_of(every))
            for stack in left_out:
                if stack.stack.first.series == uid:
                    logger.info("%s is not used: %s", stack.stack.name, stack.reason)
            for stack in chosen:
                if stack.first.series == uid:
                    self._deliver(stack, one.latest, deliver)

    def _deliver(self, found: DicomStack, arrived: float, deliver: Deliver) -> None:
        examination = examination_of(found.frames)
        try:
            stack = read_dicom_stack(found)
            path = self._output_dir / examination / "stacks" / f"{found.name}-{_digest(found.first.series)[:6]}.nii.gz"
            content: dict[str, object] = {"SliceThickness": stack.thickness}
            if found.times is not None and len(found.times) == stack.n_slices:
                content["SliceTiming"] = [float(time) for time in found.times]
            with atomic_path(sidecar_path(path)) as temporary:
                temporary.write_text(json.dumps(content), encoding="utf-8")
            write_volume(path, stack.data, stack.affine)
        except InputError as error:
            deliver(Refusal(examination, str(error), arrived))
            return
        version = _digest(" ".join(sorted(frame.instance for frame in found.frames)))
        deliver(Arrival(examination, path, None, arrived, version))


def examination_of(frames: Sequence[Frame]) -> str:
    """Name of the examination of some frames: nothing of what was sent, but the same for all of a study."""
    return f"study-{_digest(frames[0].study)[:12]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
