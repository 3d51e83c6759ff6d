"""How much memory there is, and how much a reconstruction takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import nibabel
import numpy as np

# Bytes: of a process that has read nothing yet, for every voxel of a stack, for every pixel inside a mask, for the
# network that finds masks. Measured with the default settings, and a third more than that; the samples of the
# uncertainty, one array of amplitudes each, are 2 % of a session (466 and 476 MB for six stacks), and covered by it.
_PROCESS, _VOXEL, _PIXEL, _NETWORK = 160e6, 16.0, 1200.0, 120e6
# What may be brain in a stack where no mask says it: this share of the voxels, but no more than a brain (mm^3).
_LARGEST_SHARE, _LARGEST_BRAIN = 0.5, 600e3


def available_memory() -> int:
    """Bytes that this machine, or the control group of this process, has left."""
    limits = [*_of_machine(), *left_of_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]
    return min(limits) if limits else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_machine() -> list[int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return []
    return [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]


def left_of_groups(own: Path, root: Path) -> list[int]:
    """What the control groups of this process, and those above them, leave of their limits."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers:  # version 1
            continue
        group = root / path.lstrip("/")
        while True:
            with suppress(OSError, ValueError):  # "max", or no such file
                left.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
            if group in (root, group.parent):
                break
            group = group.parent
    return [max(number, 0) for number in left]


def estimated_memory(stacks: Sequence[Path], masks: Sequence[Path | None]) -> tuple[int, int]:
    """Bytes that a reconstruction takes at most, roughly, and how many pixels it has to do with.

    Read from headers and masks alone. The numbers are those of the default settings on the CPU.

    Parameters
    ----------
    stacks, masks
        Files; None: no mask of that stack.
    """
    sizes = [_voxels(path) for path in stacks]
    pixels = 0.0
    for (voxels, volume), mask in zip(sizes, masks, strict=True):
        likely = min(_LARGEST_SHARE * voxels, _LARGEST_BRAIN / volume)
        pixels += likely if mask is None else min(_inside(mask), voxels)
    network = _NETWORK if None in masks else 0.0
    return int(_PROCESS + network + _VOXEL * sum(voxels for voxels, _ in sizes) + _PIXEL * pixels), int(pixels)


def _voxels(path: Path) -> tuple[int, float]:
    """Number and volume (mm^3) of the voxels; none of a file that cannot be read, which its process will tell."""
    try:
        image = nibabel.load(path)
        volume = abs(float(np.linalg.det(image.affine[:3, :3])))  # pyright: ignore[reportAttributeAccessIssue]
        return int(np.prod(image.shape)), max(volume, 1e-3)  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:
        return 0, 1.0


def _inside(path: Path) -> int:
    try:
        return int(np.count_nonzero(np.asanyarray(nibabel.load(path).dataobj)))  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:
        return 0
