"""DICOM instances that come one by one: each slice as it comes, and stacks, as NIfTI with sidecar, once complete.

A scanner does not say how many images a series is going to have. So a series counts as complete when no instance of it
came for a while, longer than from one to the next; if there are more after all, the stack comes once more.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gsvr.errors import InputError
from gsvr.io.dicom.frame import Frame
from gsvr.io.dicom.pixels import read_dicom_slice, read_dicom_stack
from gsvr.io.dicom.selection import select, unlike
from gsvr.io.dicom.stacks import DicomStack, stacks_of
from gsvr.workflows.live.arrival import Arrival, Deliver, Refusal, SliceArrival
from gsvr.workflows.live.received_stack import write_received_stack

logger = logging.getLogger(__name__)

# Frames of one study; what comes after that is stored, and not used.
_MOST_FRAMES = 20_000
# Studies whose images are remembered; what comes of others that were before is on the disk, and not used.
_MOST_STUDIES = 8


@dataclass(frozen=True)
class SeriesOptions:
    """When a series counts as complete.

    Attributes
    ----------
    quiet, least_quiet
        Seconds without an instance of a series: so many at most, and so many at least.
    intervals
        In between it is so many times as long as the series took from one instance to the next.
    """

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
    paths: set[Path] = field(default_factory=set)

    def quiet(self, options: SeriesOptions) -> float:
        """Seconds without another instance after which it is complete."""
        interval = (self.latest - self.first) / max(len(self.frames) - 1, 1)
        return min(max(options.intervals * interval, options.least_quiet), options.quiet)


class DicomSeries:
    """Sorts instances by study and series, whatever order they come in.

    Parameters
    ----------
    output_dir
        Stacks are written into the folder of their examination in it.
    """

    def __init__(self, output_dir: Path, options: SeriesOptions | None = None) -> None:
        # the journal is read from other folders, too
        self._output_dir, self._options = output_dir.absolute(), options or SeriesOptions()
        self._studies: dict[str, dict[str, _Series]] = {}
        self._instances: dict[str, set[tuple[str, int]]] = {}
        self._over: set[str] = set()

    def sort(self, frames: Sequence[Frame], arrived: float) -> list[Frame]:
        """Take the planes of an instance that arrived (seconds since 1970); those that are new."""
        new = []
        for frame in frames:
            if frame.study in self._over:
                logger.warning("an image came long after its examination: it is stored, and not used")
                continue
            study = self._studies.setdefault(frame.study, {})
            self._forget_others(frame.study)
            known = self._instances.setdefault(frame.study, set())
            if (frame.instance, frame.number) in known:
                continue
            if len(known) >= _MOST_FRAMES:
                logger.warning("a study has more images than an examination: the rest is stored, and not used")
                break
            known.add((frame.instance, frame.number))
            series = study.setdefault(frame.series, _Series())
            series.frames.append(frame)
            series.first, series.latest = min(series.first, arrived), max(series.latest, arrived)
            new.append(frame)
        return new

    def _forget_others(self, study: str) -> None:
        """Of studies that are over, those longest ago."""
        while len(self._studies) > _MOST_STUDIES:
            latest = {
                uid: max((one.latest for one in series.values()), default=0.0)
                for uid, series in self._studies.items()
                if uid != study
            }
            oldest = min(latest, key=lambda uid: latest[uid])
            del self._studies[oldest], self._instances[oldest]
            self._over.add(oldest)

    def deliver_slices(self, frames: Sequence[Frame], arrived: float, deliver: Deliver) -> None:
        """Slices of a stack that is being acquired, if they look like some of a T2-weighted one."""
        for frame in frames:
            alone = DicomStack((frame,))
            if unlike(alone) is not None:
                continue
            try:
                image = read_dicom_slice(frame)
            except InputError as error:  # told once more, with its stack
                logger.info("%s", error)
                continue
            acquired = frame.time if frame.time is not None else frame.timer
            deliver(SliceArrival(examination_of([frame]), _name(alone), image, acquired, arrived))

    def deliver_complete(self, deliver: Deliver) -> None:
        """Stacks of those series that are complete and have grown."""
        for study in list(self._studies.values()):
            for uid, one in study.items():
                complete = time.time() - one.latest > one.quiet(self._options)
                if len(one.frames) == one.delivered or not complete:
                    continue
                one.delivered = len(one.frames)
                chosen, left_out = select(stacks_of(frame for other in study.values() for frame in other.frames))
                for stack in left_out:
                    if stack.stack.first.series == uid:
                        logger.info("%s is not used: %s", stack.stack.name, stack.reason)
                own = {self._path(stack): stack for stack in chosen if stack.first.series == uid}
                # what came before may have been parts of what is one stack now
                gone = tuple(sorted(one.paths - set(own)))
                for path, stack in own.items():
                    self._deliver(stack, path, gone, one.latest, deliver)
                one.paths = set(own)

    def _path(self, found: DicomStack) -> Path:
        return self._output_dir / examination_of(found.frames) / "stacks" / f"{_name(found)}.nii.gz"

    def _deliver(
        self, found: DicomStack, path: Path, replaces: tuple[Path, ...], arrived: float, deliver: Deliver
    ) -> None:
        examination = examination_of(found.frames)
        try:
            stack = read_dicom_stack(found)
            write_received_stack(path, stack, found.times)
        except InputError as error:
            deliver(Refusal(examination, str(error), arrived))
            return
        version = _digest(" ".join(sorted(frame.instance for frame in found.frames)))
        deliver(Arrival(examination, path, None, arrived, version, found.first.file, replaces))


def examination_of(frames: Sequence[Frame]) -> str:
    """Name of the examination of some frames: nothing of what was sent, but the same for all of a study."""
    return f"study-{_digest(frames[0].study)[:12]}"


def _name(stack: DicomStack) -> str:
    return f"{stack.name}-{_digest(stack.first.series)[:6]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
