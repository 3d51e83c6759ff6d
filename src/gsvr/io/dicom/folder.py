"""A folder of DICOM files: every plane in it, and what could not be used.

Files are found by their content, whatever they are called. Numbers and sizes are bounded; of a header only what is
needed is read (`gsvr.io.dicom.frame.HEADER_TAGS`), pixels later, and only those of the series that are used.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsvr.errors import InputError
from gsvr.io.dicom.frame import HEADER_TAGS, Frame, NoPlane, frames_of
from gsvr.io.dicom.installed import require

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

# More is no examination but an archive, or a loop.
_MOST_FILES, _MOST_FRAMES = 200_000, 500_000
_LARGEST_FILE = 2**31
_PREAMBLE = 128
# How many broken files are named one by one.
_MOST_WARNINGS = 10
# pydicom raises errors of its own and of all the modules it uses for damaged files, and what their values lead to may
# fail in any way: whatever it is, the file is broken.
UNREADABLE = Exception


@dataclass(frozen=True)
class DicomFolder:
    """What was found.

    Attributes
    ----------
    frames
        Planes of MR acquisitions, in no order; an instance that is there twice counts once.
    passed_over
        Numbers of files that hold something else, by what that is.
    broken
        Files that cannot be read.
    """

    frames: list[Frame]
    passed_over: Counter[str]
    broken: list[Path]


def read_folder(folders: Iterable[str | Path]) -> DicomFolder:
    """Read the headers of all DICOM files in folders and the folders in them.

    A broken file is named in a warning and passed over.

    Parameters
    ----------
    folders
        Folders, or single files.

    Raises
    ------
    InputError
        If a folder does not exist, or there are more files than any examination has.
    InstallationError
        If pydicom is missing.
    """
    require("pydicom")
    frames: list[Frame] = []
    seen: set[str] = set()
    passed_over: Counter[str] = Counter()
    broken: list[Path] = []
    n_files = 0
    for root in map(Path, folders):
        for path in files_in(root):
            n_files += 1
            if n_files > _MOST_FILES:
                raise InputError(f"{root} holds more than {_MOST_FILES:,} files: give the folder of one examination")
            try:
                found = read_frames(path)
            except NoPlane as other:
                passed_over[str(other)] += 1
                continue
            except UNREADABLE as error:
                broken.append(path)
                if len(broken) <= _MOST_WARNINGS:
                    warn_of_broken(_inside(path, root), error)
                continue
            if found and found[0].instance in seen:
                passed_over["copies of other files"] += 1
                continue
            seen.update(frame.instance for frame in found)
            frames += found
            if len(frames) > _MOST_FRAMES:
                raise InputError(f"{root} holds more than {_MOST_FRAMES:,} images: give the folder of one examination")
    if len(broken) > _MOST_WARNINGS:
        logger.warning("%d more files are broken and were left out", len(broken) - _MOST_WARNINGS)
    return DicomFolder(frames, passed_over, broken)


def read_frames(path: Path) -> list[Frame]:
    """The planes of one file.

    Raises
    ------
    NoPlane
        If the file holds something else.
    Exception
        Any, if it is broken.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    size = os.path.getsize(path)
    if size > _LARGEST_FILE:
        raise ValueError(f"{size / 2**30:.1f} GiB")
    with open(path, "rb") as file:
        if file.read(_PREAMBLE + 4)[_PREAMBLE:] != b"DICM":
            raise NoPlane("no DICOM")
        file.seek(0)
        try:
            with quietly():
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(HEADER_TAGS))
                frames = list(frames_of(header, path))
                left = size - file.tell()
        except InvalidDicomError as error:
            raise ValueError("damaged header") from error
    if left < _stored_bytes(header):
        raise ValueError("it ends before its pixels do")
    return frames


def _stored_bytes(header: Dataset) -> int:
    """How many bytes the element of the pixels needs, at least."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None or syntax.is_compressed or syntax.is_deflated:
        return 1
    pixels = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    return pixels * int(header.get("BitsAllocated") or 16) // 8 + (8 if syntax.is_implicit_VR else 12)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what pydicom says about odd values to itself: it quotes them, and they may name the patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.getLogger("pydicom").level
        logging.getLogger("pydicom").setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logging.getLogger("pydicom").setLevel(level)


def warn_of_broken(name: str | Path, error: BaseException) -> None:
    """Name a file that cannot be read; but not in the record of a run, since the name may be a patient's."""
    why = reason(error)
    recorded = f"a DICOM file is broken and was left out ({why})"
    logger.warning("%s is broken and was left out (%s)", name, why, extra={"recorded": recorded})


def reason(error: BaseException) -> str:
    """What is wrong with a file, without values from its header, which may name the patient."""
    # messages of this package are plain ValueErrors; those of others may quote what they read
    own = type(error) is ValueError and error.__traceback__ is not None and "gsvr" in _origin(error)
    return str(error) if own else "damaged"


def _origin(error: BaseException) -> str:
    """The file of the function that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_code.co_filename


def files_in(root: Path) -> Iterator[Path]:
    """All files in a folder and the folders in it; or the file itself."""
    if os.path.isfile(root):
        yield root
        return
    if not os.path.isdir(root):
        raise InputError(f"{root} is no folder: give the folder of a DICOM export")
    # links to folders are not followed: they may lead round in circles
    for folder, inner, names in os.walk(root):
        inner.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if os.path.isfile(path):
                yield path


def _inside(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path != root else path
