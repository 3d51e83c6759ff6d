"""Simulated acquisitions as files, made once by ``gsvr simulate`` and kept in benchmarks/output/acquisitions."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gsvr
from benchmarks.command import Gsvr
from benchmarks.subjects import OUTPUT, Subject

_PACKAGE = Path(gsvr.__file__).parent
# What an acquisition depends on besides its options: if one of these changes, it is made anew.
_SOURCES = ("simulation/*.py", "model/point_spread.py", "model/geometry.py")


@dataclass(frozen=True)
class Acquisition:
    """Files of stacks, masks and truth in one folder, named as ``gsvr simulate`` names them."""

    folder: Path

    @property
    def name(self) -> str:
        """That of the folder."""
        return self.folder.name

    @property
    def masks(self) -> list[Path]:
        """Masks of the stacks."""
        return sorted(self.folder.glob("stack-*_mask.nii.gz"))

    @property
    def stacks(self) -> list[Path]:
        """Stacks in the same order."""
        return [mask.with_name(mask.name.replace("_mask", "")) for mask in self.masks]

    @property
    def truth(self) -> Path:
        """What was imaged."""
        return self.folder / "truth.nii.gz"

    @property
    def truth_mask(self) -> Path:
        """Where it counts."""
        return self.folder / "truth_mask.nii.gz"

    @property
    def true_poses(self) -> Path:
        """Pose of every slice."""
        return self.folder / "truth_poses.json"


# Protocol of Dannecker et al. (MIDL 2026, Table 1): three orthogonal stacks of 0.5 x 0.5 x 3 mm, independent motion.
PUBLISHED = "published"
_PROTOCOL = {"motion": "uniform", "n-stacks": 3, "in-plane-spacing": 0.5}
_N_STACKS = 6


def acquire(
    subject: Subject,
    motion: str = "moderate",
    seed: int = 0,
    settings: Mapping[str, str | float] | None = None,
) -> Acquisition:
    """Simulate an acquisition, unless the same one is there already.

    Parameters
    ----------
    subject
        What is imaged.
    motion, seed
        Options of ``gsvr simulate``; the others keep their defaults. The motion may be `PUBLISHED`: then the whole
        protocol is.
    settings
        More options of ``gsvr simulate``, by name; they are part of the acquisition's name.
    """
    settings = settings or {}
    given = {"motion": motion, "n-stacks": _N_STACKS, "seed": seed, **settings}
    if motion == PUBLISHED:
        given |= _PROTOCOL
    parts = [subject.name, motion, f"{given['n-stacks']}-stacks", f"seed-{seed}"]
    name = "_".join([*parts, *(f"{key}-{value}" for key, value in settings.items())])
    acquisition = Acquisition(OUTPUT / "acquisitions" / name)
    stamp, digest = acquisition.folder / "stamp.txt", _digest(subject)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return acquisition
    shutil.rmtree(acquisition.folder, ignore_errors=True)
    words: list[object] = ["simulate", subject.volume, "--output-dir", acquisition.folder]
    words += [word for key, value in given.items() for word in (f"--{key}", value)]
    words += [] if subject.mask is None else ["--mask", subject.mask]
    Gsvr().run(words, OUTPUT / "logs" / f"simulate_{name}.txt")
    stamp.write_text(digest, encoding="utf-8")
    return acquisition


def _digest(subject: Subject) -> str:
    digest = hashlib.sha256()
    for path in (path for pattern in _SOURCES for path in sorted(_PACKAGE.glob(pattern))):
        digest.update(path.read_bytes())
    for path in (subject.volume, subject.mask):
        if isinstance(path, Path):
            digest.update(path.read_bytes())
    return digest.hexdigest()
