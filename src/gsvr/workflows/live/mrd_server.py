"""An image server for MRD streams as a source, as scanners' open interfaces look for one (in the style of FIRE).

A measurement is a connection. What comes over it is kept as it came before anything is done with it, so that nothing
that was received is lost with the process; when it is closed, or lost, its images become stacks.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gsvr.errors import InputError
from gsvr.io.dicom.peers import is_loopback
from gsvr.io.mrd import CLOSE_MESSAGE, MrdImage, MrdMeasurement, read_messages
from gsvr.model.slices import Stack
from gsvr.workflows.live.arrival import Arrival, Deliver, Refusal, SliceArrival
from gsvr.workflows.live.received_stack import write_received_stack

logger = logging.getLogger(__name__)

_FEWEST_SLICES, _MOST_SLICES = 5, 2000
# mm (and share of the slice spacing) up to which slices are evenly spaced, and cosine up to which they are parallel.
_EVEN, _EVEN_SHARE, _PARALLEL = 0.01, 0.05, 1 - 1e-6
_ORIENTATIONS = ("sagittal", "coronal", "axial")
_LOOK = 0.2


@dataclass(frozen=True)
class MrdOptions:
    """How a server listens.

    Attributes
    ----------
    port
        0: any that is free.
    peers
        Addresses (IPv4) that may send; none: this machine alone.
    most_connections
        At a time.
    patience
        Seconds of silence after which a connection ends.
    largest
        Bytes of a measurement.
    least_free
        Bytes that must be free on the disk.
    """

    port: int = 9002
    peers: tuple[str, ...] = ()
    most_connections: int = 4
    patience: float = 300.0
    largest: int = 2**31
    least_free: int = 2**28

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InputError(f"`mrd_port` must be between 0 and 65535, not {self.port}")
        for peer in self.peers:
            try:
                ipaddress.IPv4Address(peer)
            except ValueError as error:  # a name would never be that of a connection
                raise InputError(f"`mrd_peer` {peer[:80]!r} is no address: give one such as 10.0.0.5") from error


class MrdServer:
    """Delivers the slices and stacks of MRD streams.

    Parameters
    ----------
    output_dir
        Streams are kept in ``received`` in it, stacks in the folder of their examination.

    Raises
    ------
    InputError
        If the port is taken.
    """

    def __init__(self, output_dir: Path, options: MrdOptions | None = None) -> None:
        # the journal is read from other folders, too
        self._output_dir, self._options = output_dir.absolute(), options or MrdOptions()
        self._kept = self._output_dir / "received"
        host = "0.0.0.0" if self._options.peers else "127.0.0.1"
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, self._options.port))
        except OSError as error:
            self._socket.close()
            where = f"{host}:{self._options.port}"
            raise InputError(f"{where} cannot be listened at ({error.strerror}): choose another port") from error
        self.port: int = self._socket.getsockname()[1]
        self._stopped, self._count = threading.Event(), itertools.count()
        self._room = threading.Semaphore(self._options.most_connections)
        self._threads: list[threading.Thread] = []

    def start(self, deliver: Deliver) -> None:
        """See `gsvr.workflows.live.arrival.Source`; streams of earlier processes are read anew."""
        self._socket.listen(self._options.most_connections)
        self._socket.settimeout(_LOOK)
        thread = threading.Thread(target=self._listen, args=(deliver,), name="MRD server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """See `gsvr.workflows.live.arrival.Source`."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _listen(self, deliver: Deliver) -> None:
        for path in sorted(self._kept.glob("*.mrd")):
            try:
                with path.open("rb") as file:
                    self._receive(_exactly(file), path, deliver, live=False)
            except OSError as error:
                logger.warning("%s cannot be read (%s)", path.name, error.strerror or type(error).__name__)
        while not self._stopped.is_set():
            try:
                connection, (address, _) = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:  # gone again, or too many open files
                logger.warning("an MRD connection did not come about (%s)", error.strerror or type(error).__name__)
                self._stopped.wait(_LOOK)
                continue
            may = self._may(address)
            if not may or not self._room.acquire(blocking=False):
                reason = "there are too many connections" if may else "it is none of the peers that may send"
                logger.warning("%s was refused: %s", address, reason)
                connection.close()
                continue
            thread = threading.Thread(target=self._serve, args=(connection, deliver), name="MRD stream", daemon=True)
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
            thread.start()

    def _may(self, address: str) -> bool:
        return address in self._options.peers if self._options.peers else is_loopback(address)

    def _serve(self, connection: socket.socket, deliver: Deliver) -> None:
        """One measurement, from a scanner."""
        path = self._kept / f"{time.time_ns()}-{next(self._count)}.mrd"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with connection, os.fdopen(descriptor, "wb") as kept:
                connection.settimeout(_LOOK)
                if self._receive(self._from(connection, kept), path, deliver):
                    connection.sendall(CLOSE_MESSAGE)
        except OSError as error:
            logger.warning("an MRD stream ended (%s)", error.strerror or type(error).__name__)
        finally:
            self._room.release()

    def _from(self, connection: socket.socket, kept: BinaryIO) -> Callable[[int], bytes]:
        """Read from a connection, and keep what was read."""
        total = 0

        def read(count: int) -> bytes:
            nonlocal total
            total += count
            if total > self._options.largest:
                raise InputError("an MRD stream is larger than any measurement")
            content, until = bytearray(), time.monotonic() + self._options.patience
            while len(content) < count:
                if self._stopped.is_set() or time.monotonic() > until:
                    raise EOFError
                try:
                    piece = connection.recv(min(count - len(content), 2**20))
                except TimeoutError:
                    continue
                if not piece:
                    raise EOFError
                content += piece
                until = time.monotonic() + self._options.patience
            if shutil.disk_usage(self._kept).free < self._options.least_free:
                raise InputError("an MRD stream was cut off: the disk is full")
            kept.write(content)
            kept.flush()
            return bytes(content)

        return read

    def _receive(self, read: Callable[[int], bytes], path: Path, deliver: Deliver, live: bool = True) -> bool:
        """Deliver what a stream holds; whether it was closed as it should be."""
        examination, own, images, closed = "mrd", hashlib.sha256(path.name.encode()).hexdigest()[:6], [], False
        arrived = time.time() if live else path.stat().st_mtime
        try:
            for message in read_messages(read):
                arrived = time.time() if live else arrived
                if isinstance(message, MrdMeasurement):
                    examination = examination_of(message.study)
                    continue
                images.append(message)
                if len(images) > _MOST_SLICES:
                    raise InputError("an MRD stream holds more images than a measurement")
                if live:
                    image = Stack("slice", message.data[:, :, None], message.affine, message.thickness)
                    deliver(SliceArrival(examination, _name(message, own), image, message.acquired, arrived))
            closed = True
        except InputError as error:
            deliver(Refusal(examination, str(error), arrived))
        except (EOFError, OSError):
            logger.warning("an MRD stream broke off after %d images", len(images))
        if not self._stopped.is_set():  # else it is read anew by the next process
            self._deliver(examination, images, own, arrived, deliver)
        return closed

    def _deliver(self, examination: str, images: list[MrdImage], own: str, arrived: float, deliver: Deliver) -> None:
        for series in sorted({image.series for image in images}):
            alike = [image for image in images if image.series == series]
            if len(alike) < _FEWEST_SLICES:
                logger.info("a series of %d images is not used: it is no stack", len(alike))
                continue
            name = _name(alike[0], own)
            path = self._output_dir / examination / "stacks" / f"{name}.nii.gz"
            try:
                stack, times = stack_of(alike, name)
                write_received_stack(path, stack, times)
            except InputError as error:
                deliver(Refusal(examination, str(error), arrived))
            else:
                deliver(Arrival(examination, path, None, arrived, f"{name} {len(alike)}"))


def stack_of(images: list[MrdImage], name: str) -> tuple[Stack, np.ndarray | None]:
    """The stack of some slices in any order, and when each was acquired (s), if that is known; doubles count once.

    Raises
    ------
    InputError
        If they are not parallel, alike and evenly spaced.
    """
    first = images[0]
    normal = np.cross(first.affine[:3, 0], first.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    if normal @ first.affine[:3, 2] < 0:  # as the scanner counts them
        normal = -normal
    parts = [image for image in images if image.data.shape == first.data.shape and _is_parallel(image, first)]
    if len(parts) < len(images):
        raise InputError(f"{name}: its slices are not of one size and direction: send one stack as one series")
    by_place = {round(float(image.affine[:3, 3] @ normal), 2): image for image in images}
    ordered = [by_place[place] for place in sorted(by_place)]
    positions = np.array([image.affine[:3, 3] for image in ordered])
    steps = np.diff(positions, axis=0)
    step = np.median(steps, axis=0) if len(ordered) > 1 else normal
    uneven = np.linalg.norm(steps - step, axis=1) > max(_EVEN, _EVEN_SHARE * float(np.linalg.norm(step)))
    if uneven.any():
        raise InputError(f"{name}: {int(uneven.sum())} of its slices are missing or lie unevenly: acquire it again")
    affine = first.affine.copy()
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    times = [image.acquired for image in ordered]
    known = None
    if None not in times and len(set(times)) == len(times):  # else the clock does not tell them apart
        known = np.array(times, dtype=np.float64)
        known -= known.min()
    return Stack(name, np.stack([image.data for image in ordered], axis=2), affine, first.thickness), known


def examination_of(study: str) -> str:
    """Name of the folder of an examination: nothing of what was sent, but the same for all of a study."""
    return f"study-{hashlib.sha256(study.encode('utf-8', 'backslashreplace')).hexdigest()[:12]}" if study else "mrd"


def _is_parallel(image: MrdImage, first: MrdImage) -> bool:
    lengths = np.linalg.norm(image.affine[:3, :2], axis=0), np.linalg.norm(first.affine[:3, :2], axis=0)
    cosines = np.einsum("ij,ij->j", image.affine[:3, :2], first.affine[:3, :2]) / (lengths[0] * lengths[1])
    return bool((cosines > _PARALLEL).all() and np.allclose(*lengths, rtol=1e-4))


def _name(image: MrdImage, own: str) -> str:
    normal = np.cross(image.affine[:3, 0], image.affine[:3, 1])
    parts = "-".join(str(number) for number in image.series[1:]) if any(image.series[1:]) else ""
    series = f"{image.series[0]:03d}{f'-{parts}' if parts else ''}"
    return f"mrd-{series}-{_ORIENTATIONS[int(np.abs(normal).argmax())]}-{own}"


def _exactly(file: BinaryIO) -> Callable[[int], bytes]:
    def read(count: int) -> bytes:
        content = file.read(count)
        if len(content) < count:
            raise EOFError
        return content

    return read
