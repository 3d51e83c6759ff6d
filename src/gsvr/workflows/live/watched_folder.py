"""A folder that NIfTI stacks or DICOM instances are written to while an examination goes on.

NIfTI files in the folder itself are one examination, those in each of its folders another; DICOM instances lie as deep
as exports have them, under any name, and each study is an examination. A file is taken once it is whole: its size has
not changed between two looks, and it can be read to its end. So writers need not rename.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from gsvr.errors import InputError
from gsvr.io.dicom.folder import read_frames, reason
from gsvr.io.dicom.frame import NoPlane
from gsvr.io.image import load_image
from gsvr.io.sidecar import sidecar_path
from gsvr.workflows.live.arrival import Arrival, Deliver, Refusal
from gsvr.workflows.live.dicom_series import DicomSeries, examination_of

logger = logging.getLogger(__name__)

_STACK = re.compile(r"(?P<stem>[^.].*)\.nii(\.gz)?", re.IGNORECASE)
_SIDECAR = re.compile(r".*\.json", re.IGNORECASE)
_MASK = re.compile(r"(?P<of>.+?)(_desc-brain)?_mask")
# How deep DICOM instances may lie.
_DEEPEST = 8
# A look takes at most this share of the time.
_BUSY = 0.25
# Seconds between the last change of a file and the look that finds it, at most.
_RECENT = 2.0


@dataclass(frozen=True)
class WatchOptions:
    """How a folder is watched.

    Attributes
    ----------
    interval
        Seconds between two looks.
    patience
        Seconds without change after which a file that cannot be read will not become readable any more.
    largest
        Bytes; a larger file is refused.
    most
        NIfTI files that are looked at in one folder; more are passed over.
    most_instances
        Other files, which may be DICOM instances, in all folders.
    """

    interval: float = 0.1
    patience: float = 5.0
    largest: int = 2**31
    most: int = 1000
    most_instances: int = 20_000


@dataclass
class _Seen:
    """A stack at the last look, and how far it got."""

    version: str
    done: str = ""
    refused: str = ""
    since: float = field(default_factory=time.time)


class WatchedFolder:
    """Delivers the stacks of a folder, each again when it, its sidecar or its mask changes.

    Parameters
    ----------
    folder
        What to watch; it must be there.
    series
        What sorts DICOM instances; None: they are passed over.

    Raises
    ------
    InputError
        If it is not.
    """

    def __init__(self, folder: Path, series: DicomSeries | None = None, options: WatchOptions | None = None) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: make it first")
        self._folder, self._options = folder.resolve(), options or WatchOptions()
        self._seen: dict[Path, _Seen] = {}
        self._unreadable: set[Path] = set()
        self._series, self._examination = series, ""
        self._stopped, self._thread = threading.Event(), None

    def start(self, deliver: Deliver) -> None:
        """See `gsvr.workflows.live.arrival.Source`."""
        self._thread = threading.Thread(target=self._watch, args=(deliver,), name="watched folder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """See `gsvr.workflows.live.arrival.Source`."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, deliver: Deliver) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self.look(deliver)
            except OSError as error:  # a network drive that is gone for a while
                logger.warning("%s cannot be read (%s)", self._folder, error.strerror)
            took = time.monotonic() - began
            self._stopped.wait(max(self._options.interval, took / _BUSY))

    def look(self, deliver: Deliver) -> None:
        """Look once, and deliver what is whole and new."""
        folders = [self._folder, *(Path(entry.path) for entry in os.scandir(self._folder) if _is_folder(entry))]
        for folder in sorted(folders):
            for path, mask in _stacks_of(self._entries(folder), self._options.most):
                self._consider(path, mask, deliver)
        if self._series is not None:
            for path in self._others_in(self._folder, self._options.most_instances):
                self._consider_instance(path, self._series, deliver)
            self._series.deliver_complete(deliver)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What is in a folder; one inside the watched folder that cannot be read does not hold up the others."""
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as error:
            if folder == self._folder:
                raise
            if folder not in self._unreadable:
                self._unreadable.add(folder)
                logger.warning("%s cannot be read (%s) and is passed over", folder, error.strerror)
            return []

    def _others_in(self, folder: Path, most: int) -> list[Path]:
        """Files that may be DICOM instances, in a folder and the folders in it, oldest first."""
        found: list[tuple[int, str]] = []
        folders = [(folder, 0)]
        while folders:
            where, depth = folders.pop()
            for entry in self._entries(where):
                if entry.name.startswith("."):
                    continue
                # links to folders are not followed: they may lead round in circles
                if entry.is_dir(follow_symlinks=False):
                    if depth < _DEEPEST:
                        folders.append((Path(entry.path), depth + 1))
                elif not (_STACK.fullmatch(entry.name) or _SIDECAR.fullmatch(entry.name)) and entry.is_file():
                    found.append((entry.stat().st_mtime_ns, entry.path))
        return [Path(path) for _, path in sorted(found)[:most]]

    def _whole(self, paths: list[Path]) -> tuple[_Seen, float] | None:
        """What is known of the first file, and when all arrived; None if it is gone, being made, or known."""
        found = _version(paths)
        if found is None:
            return None
        version, changed = found
        seen = self._seen.setdefault(paths[0], _Seen(""))
        if seen.version != version:  # perhaps still being written
            self._seen[paths[0]] = _Seen(version, seen.done, seen.refused)
            return None
        if version in (seen.done, seen.refused):
            return None
        # a copy may have the date of the original
        return seen, changed if 0 <= seen.since - changed < _RECENT else seen.since

    def _consider_instance(self, path: Path, series: DicomSeries, deliver: Deliver) -> None:
        whole = self._whole([path])
        if whole is None:
            return
        seen, arrived = whole
        try:
            if path.stat().st_size > self._options.largest:
                raise ValueError("larger than any image")
            frames = read_frames(path)
        except NoPlane:
            seen.refused = seen.version
        except FileNotFoundError:
            return
        except Exception as error:  # whatever is wrong with it, it may still grow
            if time.time() - seen.since > self._options.patience:
                seen.refused = seen.version
                logger.warning("%s is broken and was left out (%s)", path.name, reason(error))
                if self._examination:  # the name of the file may be a patient's
                    deliver(Refusal(self._examination, f"a DICOM file is broken ({reason(error)})", arrived))
        else:
            seen.done = seen.version
            self._examination = examination_of(frames)
            series.deliver_slices(series.sort(frames, arrived), arrived, deliver)

    def _consider(self, path: Path, mask: Path | None, deliver: Deliver) -> None:
        whole = self._whole([path, sidecar_path(path), *([] if mask is None else [mask])])
        if whole is None:
            return
        seen, arrived = whole
        examination = folder_name(path.parent.name)
        try:
            if path.stat().st_size > self._options.largest:
                raise InputError(f"{path} is larger than any stack: leave it out")
            load_image(path)
            if mask is not None:
                load_image(mask)
        except FileNotFoundError:
            return
        except InputError as error:
            if time.time() - seen.since > self._options.patience:
                seen.refused = seen.version
                deliver(Refusal(examination, str(error).replace(f"{path.parent}{os.sep}", ""), arrived))
            return
        seen.done = seen.version
        deliver(Arrival(examination, path, mask, arrived, seen.version))


def folder_name(name: str) -> str:
    """A name of a folder without characters that mean something to shells, browsers or file systems."""
    return re.sub(r"[^\w-]+", "_", name)[:100].strip("_") or "examination"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir()


def _stacks_of(entries: list[os.DirEntry[str]], most: int) -> list[tuple[Path, Path | None]]:
    """Stacks among the files of a folder, oldest first, and the mask beside each."""
    found = [(match["stem"], entry) for entry in entries if (match := _STACK.fullmatch(entry.name))]
    files = {stem: Path(entry.path) for stem, entry in sorted(found)[:most] if entry.is_file()}
    masks = {match["of"]: path for stem, path in files.items() if (match := _MASK.fullmatch(stem))}
    stacks = [(stem, path) for stem, path in files.items() if not _MASK.fullmatch(stem)]
    # X_T2w.nii.gz has X_T2w_mask.nii.gz or, in BIDS, X_desc-brain_mask.nii.gz
    paired = [(path, masks.get(stem) or masks.get(stem.rpartition("_")[0])) for stem, path in stacks]
    return sorted(paired, key=lambda pair: (_changed(pair[0]), pair[0]))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _version(paths: list[Path]) -> tuple[str, float] | None:
    """Sizes and times of some files, and when the last of them changed; None if the first is gone."""
    known, latest = [], 0.0
    for number, path in enumerate(paths):
        try:
            state = path.stat()
        except FileNotFoundError:
            if number == 0:
                return None
            continue
        known.append(f"{path.name} {state.st_size} {state.st_mtime_ns}")
        latest = max(latest, state.st_mtime)
    return "; ".join(known), latest
