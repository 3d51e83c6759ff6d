"""A scanner to test against: a simulated examination, sent as DICOM while it is being made.

What a real one does is part of it: a localiser comes first, slices come in the order of acquisition, a stack may be
acquired again, and a connection may be lost in the middle of a stack, whose last image is then sent twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gsvr.errors import InputError
from gsvr.io.dicom.acquired import ExaminationLabels, SeriesLabels, classic_series
from gsvr.io.dicom.peers import Peer
from gsvr.io.dicom.sender import SenderOptions, associate, send
from gsvr.model.slices import Stack

logger = logging.getLogger(__name__)

_LOCALISER_SLICES = 3
_FIRST_SERIES = 2


@dataclass(frozen=True)
class ScannerOptions:
    """How the examination goes.

    Attributes
    ----------
    pace
        Seconds a slice.
    repeated
        Number of the stack, from 1, that is acquired once more in the end; 0: none.
    lost
        Number of the stack, from 1, in the middle of which the connection is lost; 0: none.
    title
        AE title of the scanner.
    """

    pace: float = 1.0
    repeated: int = 0
    lost: int = 0
    title: str = "SCANNER"

    def __post_init__(self) -> None:
        if not 0 <= self.pace <= 3600:
            raise InputError(f"`pace` must be 0 to 3600 seconds a slice, not {self.pace:g}")


def play(
    stacks: Sequence[Stack],
    peer: Peer,
    options: ScannerOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Send an examination to a node.

    Parameters
    ----------
    stacks
        In the order of acquisition.
    peer
        Where to.
    options
        How it goes.
    progress
        Called with the number of series that were sent, and their total.

    Returns
    -------
    int
        How many different images were sent.

    Raises
    ------
    InputError
        If a stack that is named is not there, or the node does not take the images.
    InstallationError
        If a package of ``gsvr[live]`` is missing.
    """
    options = options or ScannerOptions()
    for name in ("repeated", "lost"):
        if not 0 <= getattr(options, name) <= len(stacks):
            raise InputError(f"`{name}` must be one of the stacks 1 to {len(stacks)}, not {getattr(options, name)}")
    sending = SenderOptions(options.title, pace=options.pace)
    examination = ExaminationLabels.new()
    localiser = [
        instance
        for stack in stacks[:3]
        for instance in classic_series(_middle(stack), examination, SeriesLabels(1, "localizer"))
    ]
    for number, instance in enumerate(localiser, 1):
        instance.SeriesInstanceUID, instance.InstanceNumber = localiser[0].SeriesInstanceUID, number
    acquired = [*stacks, *([stacks[options.repeated - 1]] if options.repeated else [])]
    sent = send(localiser, peer, replace(sending, pace=0.0))
    begin = 60.0
    for number, stack in enumerate(acquired):
        labels = SeriesLabels(_FIRST_SERIES + number, seconds_per_slice=max(options.pace, 0.5), begin=begin)
        instances = classic_series(stack, examination, labels)
        begin += labels.seconds_per_slice * (len(instances) + 5)
        middle = len(instances) // 2 if options.lost == number + 1 else 0
        if middle:
            _lose(instances[:middle], peer, sending)
        # what was not acknowledged, as far as the scanner knows, is sent again
        send(instances[max(middle - 1, 0) :], peer, sending)
        sent += len(instances)
        if progress is not None:
            progress(number + 1, len(acquired))
    return sent


def _middle(stack: Stack) -> Stack:
    """Some slices in the middle, as a localiser has them."""
    first = max((stack.n_slices - _LOCALISER_SLICES) // 2, 0)
    kept = slice(first, first + _LOCALISER_SLICES)
    affine = stack.affine.copy()
    affine[:3, 3] += first * affine[:3, 2]
    return Stack(stack.name, stack.data[:, :, kept], affine, stack.thickness, slice_times=stack.slice_times[kept])


def _lose(instances: list, peer: Peer, options: SenderOptions) -> None:
    """Send some instances, and break off."""
    send(instances[:-1], peer, options)
    association = associate(peer, options, instances)
    if association.is_established:
        association.send_c_store(instances[-1])
        association.abort()
    logger.warning("the connection was lost, as asked for")
