"""The files that one run writes: none of them is a file it reads, and only one run writes them at a time."""

from __future__ import annotations

import logging
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gsvr.errors import InputError
from gsvr.io.atomic import check_writable_folder, remove_leftovers

logger = logging.getLogger(__name__)

# While another run holds the outputs.
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class OutputFolder:
    """A folder for files whose number is not known beforehand.

    Attributes
    ----------
    path
        The folder.
    names
        Regular expression that the name of every file matches.
    """

    path: Path
    names: str

    def existing(self) -> list[Path]:
        """Files in the folder that may be replaced."""
        if not os.path.isdir(self.path):
            return []
        return [self.path / name for name in sorted(os.listdir(self.path)) if self.may_hold(name)]

    def may_hold(self, name: str) -> bool:
        """Whether a file of this name may be written."""
        return re.fullmatch(self.names, name, re.IGNORECASE) is not None

    def warn_of_others(self, written: Iterable[str]) -> None:
        """Tools that read a whole folder would take files of an earlier run, with more of them, for files of this one.

        Parameters
        ----------
        written
            Names of the files of this run.
        """
        left = sorted({path.name for path in self.existing()} - set(written))
        if left:
            logger.warning(
                "%s also holds %d files of an earlier run (such as %s): remove them", self.path, len(left), left[0]
            )


def same_file(path: str | Path) -> tuple[int, int] | str:
    """What two paths to one file have in common: device and inode; for a file that is not there, the place."""
    try:
        found = os.stat(path)
    except OSError:
        return os.path.normcase(os.path.realpath(path))
    return found.st_dev, found.st_ino


def refuse_overwriting(written: Iterable[Path | OutputFolder], read: Iterable[Path | None]) -> None:
    """Refuse, before any work is done, to write a file that is read, or two files under one name.

    Links, other spellings of a path, and file systems that do not tell ``A`` from ``a`` are seen through.

    Parameters
    ----------
    written
        Files, and folders of files, that will be written.
    read
        Files that were or will be read; None is passed over.

    Raises
    ------
    InputError
        Naming both files.
    """
    inputs: dict[object, Path] = {same_file(path): path for path in read if path is not None}
    outputs: dict[str, Path] = {}
    folders = [entry for entry in written if isinstance(entry, OutputFolder)]
    for entry in written:
        path = entry.path if isinstance(entry, OutputFolder) else entry
        for target in [path, *(entry.existing() if isinstance(entry, OutputFolder) else [])]:
            if same_file(target) in inputs:
                raise InputError(f"{target} would overwrite the input {inputs[same_file(target)]}: choose another name")
        place = os.path.normcase(os.path.realpath(path))
        if place in outputs:
            raise InputError(f"{path} would overwrite another output of this run, {outputs[place]}: choose two names")
        outputs[place] = path
        for folder in folders:
            if same_file(path.parent) == same_file(folder.path) and folder.may_hold(path.name):
                raise InputError(
                    f"{path} would overwrite another output of this run, in {folder.path}: choose two names"
                )


def earlier_outputs(written: Iterable[Path | OutputFolder], refuse: bool = False) -> list[Path]:
    """Files that are there already, made by an earlier run or by hand, and would be replaced.

    Parameters
    ----------
    refuse
        Allow none, before any work is done.

    Raises
    ------
    InputError
        Naming the first of them, if they are refused.
    """
    earlier: list[Path] = []
    for entry in written:
        if isinstance(entry, OutputFolder):
            earlier += entry.existing()
        elif os.path.lexists(entry):
            earlier.append(entry)
    if earlier and refuse:
        raise InputError(f"{counted(earlier)} would be replaced: choose another name, or leave out `no_overwrite`")
    return earlier


def counted(files: Sequence[Path]) -> str:
    """The first of some files, and how many others there are."""
    others = len(files) - 1
    return str(files[0]) + (f" and {others} other file{'s' if others > 1 else ''}" if others else "")


def begin_writing(written: Iterable[Path | OutputFolder], record: Path) -> None:
    """Make way for a set of files that a record describes.

    The record of an older run goes before the first of its files is replaced: if this run ends early, there is none
    rather than one that describes other files. What killed runs left half-written goes as well.
    """
    record.unlink(missing_ok=True)
    folders = {entry.path if isinstance(entry, OutputFolder) else entry.parent for entry in (*written, record)}
    for folder in sorted(folders):
        remove_leftovers(folder)


@contextmanager
def sole_writer(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the outputs that are named after `path`; while this lasts, another run on them is refused.

    A hidden file beside `path` is locked and tells which process holds it. The system frees the lock with the process,
    however that ends, so that a file that was left over holds nobody up. A folder that was made for it and is empty in
    the end goes again.

    Parameters
    ----------
    path
        The output that others are named after.
    wait
        Seconds to wait for another run to end before this one is refused.

    Raises
    ------
    InputError
        If another process writes to the same place, or the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    check_writable_folder(path.parent)
    made = [folder for folder in (path.parent, *path.parent.parents) if not os.path.exists(folder)]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.parent / f".{path.name[:100]}.lock"
    latest = time.monotonic() + wait
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
            os.close(file)
            if time.monotonic() < latest:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                continue
            raise InputError(
                f"{path} is being written by another run ({holder}): wait for it, or choose another name"
            ) from error
        except OSError:  # a file system without locks
            break
        # whoever held the lock removed it before letting go: then this is no longer the file of that name
        if same_file(lock) == (os.fstat(file).st_dev, os.fstat(file).st_ino):
            break
        os.close(file)
    try:
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(file)
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
