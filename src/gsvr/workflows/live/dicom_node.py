"""A DICOM node as a source: what scanners send becomes slices and stacks (`gsvr.workflows.live.dicom_series`)."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path

from gsvr.io.dicom.receiver import ReceivedInstance, ReceiverOptions, StoreReceiver
from gsvr.workflows.live.arrival import Deliver
from gsvr.workflows.live.dicom_series import DicomSeries, SeriesOptions

# Instances that wait to be sorted; scanners are made to wait for more.
_MOST_WAITING = 1000
_LOOK = 0.2


@dataclass(frozen=True)
class DicomNodeOptions:
    """How a node listens, and when a series counts as complete.

    Attributes
    ----------
    receiver
        See `gsvr.io.dicom.receiver.ReceiverOptions`.
    series
        See `gsvr.workflows.live.dicom_series.SeriesOptions`.
    """

    receiver: ReceiverOptions = field(default_factory=ReceiverOptions)
    series: SeriesOptions = field(default_factory=SeriesOptions)


class DicomNode:
    """Delivers the T2-weighted slices and stacks that scanners send.

    Parameters
    ----------
    output_dir
        Received instances are kept in ``received`` in it, stacks in the folder of their examination.
    """

    def __init__(self, output_dir: Path, options: DicomNodeOptions | None = None) -> None:
        options = options or DicomNodeOptions()
        self._waiting: queue.Queue[ReceivedInstance] = queue.Queue(_MOST_WAITING)
        # the journal is read from other folders, too
        self._receiver = StoreReceiver(output_dir.absolute() / "received", self._waiting.put, options.receiver)
        self._series = DicomSeries(output_dir, options.series)
        self._stopped, self._thread = threading.Event(), None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._receiver.port

    def start(self, deliver: Deliver) -> None:
        """See `gsvr.workflows.live.arrival.Source`; instances of earlier processes are sorted anew."""
        self._receiver.start()
        for instance in list(self._receiver.received()):
            self._series.sort(instance.frames, instance.time)
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
                instance = self._waiting.get(timeout=_LOOK)
            except queue.Empty:
                self._series.deliver_complete(deliver)
            else:
                self._series.deliver_slices(self._series.sort(instance.frames, instance.time), instance.time, deliver)
