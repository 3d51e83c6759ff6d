"""Sending instances to a node, such as a PACS or the scanner: C-STORE SCU."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gsvr.errors import InputError
from gsvr.io.dicom.installed import require
from gsvr.io.dicom.peers import Peer, check_title

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SenderOptions:
    """How to send.

    Attributes
    ----------
    title
        The AE title of this side.
    patience
        Seconds to wait for an answer.
    attempts
        How often to connect, with a pause that doubles, before giving up.
    pause
        Seconds before the second attempt.
    pace
        Seconds from one instance to the next, at least: a scanner has them one by one.
    """

    title: str = "GSVR"
    patience: float = 30.0
    attempts: int = 3
    pause: float = 1.0
    pace: float = 0.0

    def __post_init__(self) -> None:
        check_title(self.title)


def send(instances: Iterable[Dataset], peer: Peer, options: SenderOptions | None = None) -> int:
    """Send instances, all of them or raise; after a lost connection goes on with those that are left.

    Returns
    -------
    int
        How many were sent.

    Raises
    ------
    InputError
        If the node cannot be reached, refuses the association or does not store an instance.
    InstallationError
        If pynetdicom is missing.
    """
    require("pynetdicom", "live")
    options = options or SenderOptions()
    left = list(instances)
    total, failures = len(left), 0
    while left:
        before = len(left)
        left = _send_some(left, peer, options)
        if not left:
            break
        failures = failures + 1 if len(left) == before else 1
        if failures >= options.attempts:
            raise InputError(f"{peer} does not answer: {total - len(left)} of {total} images were sent")
        time.sleep(options.pause * 2 ** (failures - 1))
    return total


def echo(peer: Peer, options: SenderOptions | None = None) -> bool:
    """Whether a node answers a verification."""
    association = associate(peer, options or SenderOptions(), [])
    if not association.is_established:
        return False
    try:
        status = association.send_c_echo()
        return "Status" in status and status.Status == 0
    finally:
        association.release()


def _send_some(left: list[Dataset], peer: Peer, options: SenderOptions) -> list[Dataset]:
    """Send over one association; what could not be sent because it was lost."""
    association = associate(peer, options, left)
    if association.is_rejected:
        raise InputError(f"{peer} refuses the association: make {options.title} known there")
    if not association.is_established:
        return left
    try:
        for number, instance in enumerate(left):
            begin = time.monotonic()
            try:
                status = association.send_c_store(instance)
            except (RuntimeError, ValueError) as error:
                if association.is_established:
                    raise InputError(f"{peer} does not take such images ({error})") from error
                return left[number:]
            if "Status" not in status:  # the connection was lost
                return left[number:]
            # warnings (Bxxx) mean that it was stored
            if status.Status != 0 and status.Status >> 12 != 0xB:
                raise InputError(f"{peer} did not store an image (status {status.Status:04X})")
            time.sleep(max(0.0, begin + options.pace - time.monotonic()))
    finally:
        if association.is_established:
            association.release()
    return []


def associate(peer: Peer, options: SenderOptions, instances: Sequence[Dataset]) -> Any:
    """An association of pynetdicom over which such instances may be sent; it may be refused or not come about."""
    from pynetdicom import AE
    from pynetdicom.sop_class import Verification  # pyright: ignore[reportAttributeAccessIssue]

    entity = AE(options.title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = options.patience
    entity.connection_timeout = options.patience
    entity.add_requested_context(Verification)
    kinds = {(str(item.SOPClassUID), str(item.file_meta.TransferSyntaxUID)) for item in instances}
    for kind, syntax in sorted(kinds):
        entity.add_requested_context(kind, syntax)
    association = entity.associate(peer.host, peer.port, ae_title=peer.title)
    connection = association.dul.socket
    if association.is_established and connection is not None and connection.socket is not None:
        connection.socket.settimeout(options.patience)  # a peer that reads no more would hold this side for ever
    return association
