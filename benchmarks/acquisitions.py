"""Simulated acquisitions as files, made once by ``gsvr simulate`` and kept in benchmarks/output/acquisitions."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gsvr
from benchmarks.command import GSVR, run_command
from benchmarks.subjects import OUTPUT, Subject

_PACKAGE = Path(gsvr.__file__).parent
# What an acquisition depends on besides its options: if one of these changes, it is made anew.
_SOURCES = (
    *("simulate", "simulated_artefacts", "simulated_motion", "slice_sampling", "smooth_noise", "signed_distance"),
    *("phantom", "psf", "geometry"),
)


@dataclass(frozen=True)
class Acquisition:
    """Files of stacks, masks and truth in one folder, named as ``gsvr simulate`` names them."""

    name: str
    folder: Path
    n_stacks: int

    @property
    def stacks(self) -> list[Path]:
        """Stacks in order."""
        return [self.folder / f"stack-{number}.nii.gz" for number in range(self.n_stacks)]

    @property
    def masks(self) -> list[Path]:
        """Their masks."""
        return [self.folder / f"stack-{number}_mask.nii.gz" for number in range(self.n_stacks)]

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

    @property
    def facts(self) -> dict[str, Any]:
        """Options and mean displacement."""
        return json.loads((self.folder / "simulation.json").read_text(encoding="utf-8"))


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
    n_stacks = int(given["n-stacks"])
    name = "_".join(
        [
            subject.name,
            motion,
            f"{n_stacks}-stacks",
            f"seed-{seed}",
            *(f"{key}-{value}" for key, value in settings.items()),
        ]
    )
    folder = OUTPUT / "acquisitions" / name
    stamp = folder / "stamp.txt"
    digest = _digest(subject)
    acquisition = Acquisition(name, folder, n_stacks)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return acquisition
    shutil.rmtree(folder, ignore_errors=True)
    words = [*GSVR, "simulate", subject.volume, "--output-dir", folder]
    words += [word for key, value in given.items() for word in (f"--{key}", str(value))]
    if subject.mask is not None:
        words += ["--mask", subject.mask]
    run_command(words, OUTPUT / "logs" / f"simulate_{name}.txt")
    stamp.write_text(digest, encoding="utf-8")
    return acquisition


def _digest(subject: Subject) -> str:
    digest = hashlib.sha256()
    for source in _SOURCES:
        digest.update((_PACKAGE / f"{source}.py").read_bytes())
    for path in (subject.volume, subject.mask):
        if isinstance(path, Path):
            digest.update(path.read_bytes())
    return digest.hexdigest()
