"""What a source of images tells a node: an image arrived. Everything else is the examination's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from gsvr.model.slices import Stack


@dataclass(frozen=True)
class Arrival:
    """A complete image on the disk.

    Attributes
    ----------
    examination
        Name of the examination that it belongs to: that of its output folder.
    path
        The file.
    mask
        The file of its brain mask, or None.
    time
        When its last byte was there (seconds since 1970): latencies count from then.
    version
        Of the file: one that was delivered before and has not changed is passed over.
    dicom
        One of the DICOM files that it was made of, or None: what is derived from it belongs to their study.
    replaces
        Images that arrived before and are parts of this one, which count no longer.
    """

    examination: str
    path: Path
    mask: Path | None
    time: float
    version: str
    dicom: Path | None = None
    replaces: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """An image that cannot be used.

    Attributes
    ----------
    examination
        Where it would have belonged.
    reason
        Why, in one sentence.
    time
        When it arrived.
    """

    examination: str
    reason: str
    time: float


@dataclass(frozen=True, eq=False)
class SliceArrival:
    """A slice of a stack that is still being acquired, to be placed at once. It comes once more, with its stack.

    Attributes
    ----------
    examination
        Where it belongs.
    stack
        Name that its stack is going to have.
    image
        The slice, as a stack of one.
    acquired
        When it was acquired (s, by a clock of its stack); None: not known, and taken for the order of arrival.
    time
        When it arrived (seconds since 1970).
    """

    examination: str
    stack: str
    image: Stack
    acquired: float | None
    time: float


Deliver = Callable[[Arrival | SliceArrival | Refusal], None]


@runtime_checkable
class Source(Protocol):
    """Where images come from."""

    def start(self, deliver: Deliver) -> None:
        """Begin to deliver, from a thread of the source's own. `deliver` returns when the arrival is taken over."""
        ...

    def stop(self) -> None:
        """Deliver no more; returns when the thread has ended."""
        ...
