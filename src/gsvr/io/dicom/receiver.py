"""A node that receives images over the network: C-STORE SCP, one more destination on the scanner's list.

An instance is on the disk, whole and under its final name, before the scanner is told that it was stored; so nothing
that was acknowledged is lost with the process. Files are named by digests: nothing that was sent becomes part of a
path. They hold what the scanner sent, the patient's name among it, and can be read by their owner alone.

The receiver knows nothing of stacks or reconstructions. It hands each new instance to a function as a
`ReceivedInstance`: the file and its planes, already parsed (`gsvr.io.dicom.frame`). `gsvr.io.dicom.stacks.stacks_of`
sorts such planes into stacks, `gsvr.io.dicom.selection.select` chooses among them. The function is called in the thread
of the association, one call for each instance, several at once if there are several associations, and the scanner waits
until it returns: so it should put the instance into a bounded queue and return. What it raises is logged and costs
nothing: the instance stays on the disk and `StoreReceiver.received` lists it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path, check_writable_folder, remove_leftovers
from gsvr.io.dicom.folder import quietly, read_frames
from gsvr.io.dicom.frame import Frame, NoPlane
from gsvr.io.dicom.installed import require
from gsvr.io.dicom.peers import Peer, check_title, is_loopback

logger = logging.getLogger(__name__)

# What C-STORE answers (PS3.4, table GG.4-1; PS3.7, annex C).
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
# MR Image, Enhanced MR Image, Legacy Converted Enhanced MR Image Storage.
STORED_CLASSES = ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
# What pynetdicom needs around an instance: commands and headers of its pieces.
_AROUND_AN_INSTANCE = 2**20
_REJECTED_FOR_GOOD, _BY_THE_USER, _UNKNOWN_CALLER = 0x01, 0x01, 0x03


@dataclass(frozen=True)
class ReceiverOptions:
    """How a node listens.

    Attributes
    ----------
    title
        Its AE title, by which it must be called.
    port
        0: any that is free.
    host
        Address to listen at; another one than the loopback needs `peers`.
    peers
        Who may send (title and machine; the port does not matter). None: anybody on this machine.
    largest_instance, largest_pdu
        Bytes of one instance, and of one piece of it; who sends more is cut off.
    most_associations
        At a time.
    patience
        Seconds of silence after which an association ends.
    least_free
        Bytes that must be free on the disk.
    """

    title: str = "GSVR"
    port: int = 11112
    host: str = "127.0.0.1"
    peers: tuple[Peer, ...] = ()
    largest_instance: int = 2**28
    largest_pdu: int = 2**18
    most_associations: int = 8
    patience: float = 60.0
    least_free: int = 2**28

    def __post_init__(self) -> None:
        check_title(self.title)
        if not 0 <= self.port < 65536:
            raise InputError(f"`port` must be between 0 and 65535, not {self.port}")
        if not self.peers and not is_loopback(self.host):
            raise InputError(f"listening at {self.host} needs `peers` who may send: give AET@HOST for each")


@dataclass(frozen=True)
class ReceivedInstance:
    """An image that is on the disk.

    Attributes
    ----------
    path
        The file.
    frames
        Its planes, at least one, with study, series, place, time and contrast.
    time
        When its last byte was there (seconds since 1970).
    """

    path: Path
    frames: tuple[Frame, ...]
    time: float


HandOver = Callable[[ReceivedInstance], None]


class StoreReceiver:
    """Listens from `start` to `stop`, or as a context manager.

    Parameters
    ----------
    folder
        Where instances are kept, a folder for each study; what is there already was received before.
    hand_over
        Called with each new instance; see the module.
    options
        How to listen.
    """

    def __init__(self, folder: Path, hand_over: HandOver, options: ReceiverOptions | None = None) -> None:
        require("pynetdicom", "live")
        require("pydicom", "live")
        self._folder, self._hand_over, self._options = folder, hand_over, options or ReceiverOptions()
        self._server: Any = None
        self._lock = threading.Lock()
        self._busy: set[Path] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.socket.getsockname()[1] if self._server is not None else self._options.port

    def start(self) -> None:
        """Begin to listen, in threads of its own.

        Raises
        ------
        InputError
            If the folder cannot be written or the port is taken.
        """
        from pynetdicom import AE, evt
        from pynetdicom.sop_class import Verification  # pyright: ignore[reportAttributeAccessIssue]

        options = self._options
        check_writable_folder(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for study in [self._folder, *(path for path in self._folder.iterdir() if path.is_dir())]:
            remove_leftovers(study)
        entity = AE(options.title)
        entity.require_called_aet = True
        entity.maximum_pdu_size = options.largest_pdu
        entity.maximum_associations = options.most_associations
        entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = options.patience
        entity.add_supported_context(Verification)
        for kind in STORED_CLASSES:
            entity.add_supported_context(kind, _transfer_syntaxes())
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._bound),
            (evt.EVT_REQUESTED, self._refuse_strangers),
            (evt.EVT_C_STORE, self._store),
        ]
        try:
            self._server = entity.start_server((options.host, options.port), block=False, evt_handlers=handlers)
        except OSError as error:
            where = f"{options.host}:{options.port}"
            raise InputError(f"{where} cannot be listened at ({error.strerror}): choose another port") from error

    def stop(self) -> None:
        """Listen no more, and end the associations there are."""
        if self._server is not None:
            self._server.shutdown()
            for association in self._server.active_associations:
                association.abort()
            self._server = None

    def __enter__(self) -> StoreReceiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def received(self) -> Iterator[ReceivedInstance]:
        """All instances on the disk, those of earlier processes among them, in the order of their arrival."""
        files = [path for path in self._folder.glob("*/*.dcm") if not path.name.startswith(".")]
        for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name)):
            try:
                yield ReceivedInstance(path, tuple(read_frames(path)), path.stat().st_mtime)
            except NoPlane:
                continue
            except Exception:  # whatever is wrong with it: others may be whole
                logger.warning("%s in the folder of received images cannot be read any more", path.name)

    def _bound(self, event: Any) -> None:
        """Limit what one association may send at a time; pynetdicom reads whatever length a peer announces."""
        connection = event.assoc.dul.socket
        connection.socket.settimeout(self._options.patience)
        receive = connection.recv
        event.assoc.received_bytes = 0

        def bounded(length: int) -> bytearray:
            event.assoc.received_bytes += length
            # the length without the six bytes that announce it
            if length > self._options.largest_pdu + 6 or (
                event.assoc.received_bytes > self._options.largest_instance + _AROUND_AN_INSTANCE
            ):
                logger.warning("a DICOM node was cut off: it sent more than an image has")
                raise OSError("more bytes than an image has")
            return receive(length)

        connection.recv = bounded

    def _refuse_strangers(self, event: Any) -> None:
        requestor = event.assoc.requestor
        title, address = str(requestor.primitive.calling_ae_title).strip(), str(requestor.address)
        if not self._options.peers:
            known = is_loopback(address)
        else:
            known = any(title == peer.title and address in peer.addresses() for peer in self._options.peers)
        if not known:
            logger.warning("%s was refused: it is none of the peers that may send", address)
            event.assoc.acse.send_reject(_REJECTED_FOR_GOOD, _BY_THE_USER, _UNKNOWN_CALLER)
            event.assoc.kill()  # once that is sent

    def _store(self, event: Any) -> int:
        """Answer C-STORE."""
        event.assoc.received_bytes = 0
        arrived = time.time()
        instance = str(event.request.AffectedSOPInstanceUID)
        try:
            content = event.encoded_dataset()
        except Exception:  # whatever is wrong with it
            return CANNOT_UNDERSTAND
        if len(content) > self._options.largest_instance:
            return OUT_OF_RESOURCES
        try:
            stored = self._keep(content, instance, str(event.request.AffectedSOPClassUID), arrived)
        except _Unlike:
            return DOES_NOT_MATCH
        except (OSError, InputError) as error:
            logger.warning("an image could not be stored (%s)", getattr(error, "strerror", None) or error)
            return OUT_OF_RESOURCES
        except Exception:  # pydicom raises anything
            logger.warning("an image was refused: it cannot be read")
            return CANNOT_UNDERSTAND
        if stored is not None:
            try:
                self._hand_over(stored)
            except Exception:
                logger.exception("an image was stored, but not taken over")
        return SUCCESS

    def _keep(self, content: bytes, instance: str, kind: str, arrived: float) -> ReceivedInstance | None:
        """Write an instance; None if there is nothing new in it to hand over."""
        if shutil.disk_usage(self._folder).free - len(content) < self._options.least_free:
            raise OSError(0, "the disk is full")
        study, sent_instance, sent_kind = _identifiers(content)
        if (sent_instance, sent_kind) != (instance, kind):
            raise _Unlike
        path = self._folder / _digest(study) / f"{_digest(instance)}.dcm"
        with self._once(path) as first:
            if not first:  # sent again: what was acknowledged stays
                return None
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with atomic_path(path) as temporary:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.utime(temporary, (arrived, arrived))
                try:
                    frames = read_frames(temporary)
                except NoPlane as other:
                    logger.info("an image was stored that is not used: %s", other)
                    return None
            _sync(path.parent)
        placed = tuple(_at(frame, path) for frame in frames)
        return ReceivedInstance(path, placed, arrived)

    def _once(self, path: Path) -> _Claim:
        return _Claim(path, self._lock, self._busy)


class _Unlike(Exception):  # noqa: N818
    """The instance is not what its sender announced."""


class _Claim:
    """Whether a file is not there and nobody else is writing it; it is this thread's until the end of the block."""

    def __init__(self, path: Path, lock: threading.Lock, busy: set[Path]) -> None:
        self._path, self._lock, self._busy, self._mine = path, lock, busy, False

    def __enter__(self) -> bool:
        while True:
            with self._lock:
                if self._path not in self._busy:
                    self._mine = not self._path.exists()
                    if self._mine:
                        self._busy.add(self._path)
                    return self._mine
            time.sleep(0.01)  # the same instance over another association

    def __exit__(self, *_: object) -> None:
        if self._mine:
            with self._lock:
                self._busy.discard(self._path)


def _identifiers(content: bytes) -> tuple[str, str, str]:
    """Study, instance and class of what was sent."""
    import pydicom

    with quietly():
        tags: list[Any] = ["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"]
        header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, specific_tags=tags)
        return str(header.StudyInstanceUID), str(header.SOPInstanceUID), str(header.SOPClassUID)


def _at(frame: Frame, path: Path) -> Frame:
    return replace(frame, file=path)


def _digest(identifier: str) -> str:
    return hashlib.sha256(identifier.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _sync(folder: Path) -> None:
    """A new name is safe once its folder is on the disk."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _transfer_syntaxes() -> list[str]:
    """Uncompressed, and what GDCM unpacks."""
    from pydicom import uid

    return [
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.JPEGLosslessSV1,
        uid.JPEGLossless,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.RLELossless,
    ]
