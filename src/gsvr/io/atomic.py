"""Output files that are either whole or absent, and an early check that they can be written."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gsvr.errors import InputError

# What the user can put right; any other OSError inside the block is not about the output file.
_FIXABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
# Temporary files carry the machine and the process that write them, so that others can tell whether these live.
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_PARTIAL = re.compile(rf"\.partial-{_MACHINE}-(\d+)-[0-9a-f]+(\..*)?")
# What file systems allow (bytes); the longest path leaves room for the names of files in a folder.
_LONGEST_NAME, _LONGEST_PATH = 255, 3800


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write to a temporary name beside `path`; rename on success, remove on any exception.

    Missing parent folders are created on entry. The temporary name has the suffixes of `path`, so
    that writers which look at them (``.nii.gz``) do the same as for `path` itself.

    Yields
    ------
    pathlib.Path
        Where to write; the block must create this file.

    Raises
    ------
    InputError
        If `path` is a folder, its folder cannot be created, or the file cannot be written because
        the disk is full or writing is not permitted.
    """
    path = Path(path)
    _check_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be created ({error.strerror}): choose another folder") from error
    suffix = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix[:20]
    temporary = path.parent / f".partial-{_MACHINE}-{os.getpid()}-{uuid.uuid4().hex[:12]}{suffix}"
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in _FIXABLE:
            raise InputError(
                f"{path} cannot be written ({error.strerror}): free some space or choose another folder"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable_file(path: str | Path) -> None:
    """Refuse, before any work is done, an output file that could not be written at the end.

    Nothing is created, and an existing file is left as it is.

    Raises
    ------
    InputError
        If `path` is a folder, a device or a pipe, its name is too long, or its folder cannot be created or written.
    """
    path = Path(path)
    _check_name(path)
    check_writable_folder(path.parent)


def _check_name(path: Path) -> None:
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: give the name of the file to write")
    _check_length(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is a device or a pipe: give the name of a file")


def _check_length(path: Path) -> None:
    for name in path.parts:
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise InputError(f"{name[:20]}... is too long for the name of a file: choose a shorter one")
    if len(os.fsencode(path.absolute())) > _LONGEST_PATH:
        raise InputError(f"{str(path)[:20]}... is too long for a path: choose a shorter one")


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files of processes of this machine that were killed while they wrote to a folder."""
    if not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        match = _PARTIAL.fullmatch(name)
        if match and not _is_alive(int(match[1])):
            Path(folder, name).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there, signal 0 ends a process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def check_writable_folder(path: str | Path) -> None:
    """Refuse, before any work is done, an output folder that cannot be created or written.

    The nearest folder that exists is tried with a temporary file that is gone on return; nothing else
    is created.

    Raises
    ------
    InputError
        If `path` or one of its parents is a file, a name is too long, or the folder cannot be written.
    """
    path = Path(path)
    _check_length(path)
    existing = path.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{path} cannot be a folder because {existing} is a file: choose another folder")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{existing} cannot be written ({reason}): choose another output folder") from error
