"""Brains to image: the package's phantom, and others where their files are at hand.

Atlas brains come from the folder in ``GSVR_DATA`` (default: ``../shared/data`` beside the repository), the adult brain
``ch2bet.nii.gz`` from the file in ``GSVR_CH2BET`` or from Debian's package mricron-data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from benchmarks.machine import REPOSITORY
from gsvr.io.nifti import write_volume

OUTPUT = REPOSITORY / "benchmarks" / "output"
_CH2BET = (
    Path("/usr/share/mricron/templates/ch2bet.nii.gz"),
    Path("/usr/share/mricron/ch2bet.nii.gz"),
    Path("/usr/share/data/mricron/ch2bet.nii.gz"),
)


class SubjectMissingError(Exception):
    """The files of a subject are not at hand; the message says which."""


@dataclass(frozen=True)
class Subject:
    """What ``gsvr simulate`` images.

    Attributes
    ----------
    name
        Short name.
    volume
        NIfTI file, or ``"phantom"``.
    mask
        Brain mask (NIfTI), or None: where the volume is above 5 % of its maximum.
    free
        Whether pictures of it may be published with the project.
    """

    name: str
    volume: Path | str
    mask: Path | None = None
    free: bool = False


def data_folder() -> Path:
    """Folder of the data that the project does not ship.

    Raises
    ------
    SubjectMissingError
        If there is none.
    """
    folder = Path(os.environ.get("GSVR_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        raise SubjectMissingError(f"no shared data at {folder} (set GSVR_DATA to the folder)")
    return folder


def _phantom() -> Subject:
    return Subject("phantom", "phantom", free=True)


def _atlas(week: int) -> Subject:
    folder = data_folder() / "atlas-crl"
    subject = Subject(f"atlas-{week}", folder / f"STA{week}.nii.gz", folder / f"STA{week}_mask_dil.nii.gz")
    for path in (subject.volume, subject.mask):
        if not Path(str(path)).is_file():
            raise SubjectMissingError(f"{path} is missing")
    return subject


def _ch2bet_file() -> Path:
    named = os.environ.get("GSVR_CH2BET")
    found = [path for path in ([Path(named)] if named else _CH2BET) if path.is_file()]
    if not found:
        raise SubjectMissingError("no ch2bet.nii.gz (install mricron-data or set GSVR_CH2BET to the file)")
    return found[0]


def _ch2bet() -> Subject:
    """An adult brain shrunk to the size of a fetal one: 1 mm voxels become 0.5 mm."""
    whole, shrunk = _ch2bet_file(), OUTPUT / "subjects" / "ch2bet-half.nii.gz"
    if not shrunk.exists():
        image = nibabel.load(whole)  # pyright: ignore[reportPrivateImportUsage]
        affine = np.diag([0.5, 0.5, 0.5, 1.0]) @ image.affine  # pyright: ignore[reportAttributeAccessIssue]
        shrunk.parent.mkdir(parents=True, exist_ok=True)
        write_volume(shrunk, np.asarray(image.dataobj, dtype=np.float32), affine)  # pyright: ignore[reportAttributeAccessIssue]
    return Subject("ch2bet", shrunk)


# of the size of a fetal brain: what methods of slice-to-volume reconstruction are compared on
BRAINS = ("phantom", "atlas-33", "atlas-27", "ch2bet")
SUBJECTS: dict[str, Callable[[], Subject]] = {
    "phantom": _phantom,
    "atlas-33": lambda: _atlas(33),
    "atlas-27": lambda: _atlas(27),
    "ch2bet": _ch2bet,
    "ch2bet-adult": lambda: Subject("ch2bet-adult", _ch2bet_file()),
}


def find_subject(name: str) -> Subject:
    """The subject of that name.

    Raises
    ------
    SubjectMissingError
        If its files are not at hand.
    """
    return SUBJECTS[name]()
