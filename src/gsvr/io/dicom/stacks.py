"""Planes sorted into stacks: one series, one orientation, one contrast, evenly spaced, every place once."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gsvr.io.dicom.frame import Contrast, Frame
from gsvr.io.dicom.timing import slice_times

# Cosine of the angle up to which two planes are parallel: a tenth of a degree.
_PARALLEL = np.cos(np.deg2rad(0.1))
# mm (and share of the slice spacing) up to which two planes are at the same place, or where they should be.
_SAME_PLACE, _EVEN = 0.01, 0.05
_ORIENTATIONS = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class DicomStack:
    """Slices of one stack, sorted by position along their normal.

    Attributes
    ----------
    frames
        The slices.
    part
        Which of the stacks that its series was split into, from 1; 0 if it is the only one.
    """

    frames: tuple[Frame, ...]
    part: int = 0

    @property
    def first(self) -> Frame:
        """A slice that speaks for all in what they share."""
        return self.frames[0]

    @property
    def contrast(self) -> Contrast:
        """What was done to make the images."""
        return self.first.contrast

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return len(self.frames)

    @property
    def orientation(self) -> str:
        """Axial, coronal or sagittal, whichever is closest."""
        return _ORIENTATIONS[int(np.abs(self.first.normal).argmax())]

    @property
    def name(self) -> str:
        """What to call it: number of the series and orientation, since descriptions may hold anything."""
        part = f"-{self.part}" if self.part else ""
        return f"series-{self.first.series_number:03d}{part}-{self.orientation}"

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Index of column, row and slice -> world (RAS+ mm)."""
        first, last = self.frames[0], self.frames[-1]
        affine = np.eye(4)
        affine[:3, 0] = first.axes[0] * first.spacing[0]
        affine[:3, 1] = first.axes[1] * first.spacing[1]
        affine[:3, 2] = (last.position - first.position) / (self.n_slices - 1) if self.n_slices > 1 else first.normal
        affine[:3, 3] = first.position
        return affine

    @property
    def spacing(self) -> float:
        """Distance between the centres of neighbouring slices (mm)."""
        return float(np.linalg.norm(self.affine[:3, 2]))

    @property
    def thickness(self) -> float | None:
        """Slice thickness (mm), or None."""
        return self.first.thickness

    @property
    def times(self) -> Float[np.ndarray, " n"] | None:
        """When each slice was acquired (s), or None if the headers do not tell."""
        return slice_times(self.frames)

    @property
    def files(self) -> list[Path]:
        """The files that hold it."""
        return sorted({frame.file for frame in self.frames})


def stacks_of(frames: Iterable[Frame]) -> list[DicomStack]:
    """Sort planes into stacks, in the order of study, series and time.

    A series with several orientations, contrasts, repetitions or gaps becomes several stacks.
    """
    by_series: dict[tuple, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_series[frame.patient, frame.study, frame.series].append(frame)
    found: list[DicomStack] = []
    for series in by_series.values():
        parts = [
            run for alike in _alike(series) for repetition in _repetitions(alike) for run in _evenly_spaced(repetition)
        ]
        alone = len(parts) == 1
        found += [DicomStack(tuple(part), 0 if alone else number) for number, part in enumerate(parts, 1)]
    return sorted(found, key=_order)


def without(stack: DicomStack, broken: Sequence[Frame]) -> list[DicomStack]:
    """What is left of a stack when slices of it cannot be read; the name stays if that is one stack."""
    bad = {(frame.file, frame.number) for frame in broken}
    runs = _evenly_spaced([frame for frame in stack.frames if (frame.file, frame.number) not in bad])
    if len(runs) == 1:
        return [replace(stack, frames=tuple(runs[0]))]
    return [DicomStack(tuple(run), stack.part * 100 + number) for number, run in enumerate(runs, 1)]


def _order(stack: DicomStack) -> tuple:
    first = stack.first
    return (first.study_time, first.study, first.series_number, first.series, stack.part)


def _alike(frames: list[Frame]) -> list[list[Frame]]:
    """Planes of one grid, direction and contrast."""
    groups: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda frame: (frame.order, frame.time or 0.0, frame.instance, frame.number)):
        for group in groups:
            if _belong_together(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _belong_together(first: Frame, second: Frame) -> bool:
    return (
        first.shape == second.shape
        and first.frame_of_reference == second.frame_of_reference
        and first.contrast.image_type == second.contrast.image_type
        and first.contrast.echo_time == second.contrast.echo_time
        and first.contrast.diffusion == second.contrast.diffusion
        and bool(np.allclose(first.spacing, second.spacing, rtol=1e-4))
        and all(a @ b > _PARALLEL for a, b in zip(first.axes, second.axes, strict=True))
    )


def _repetitions(frames: list[Frame]) -> list[list[Frame]]:
    """Planes that were acquired again, told apart by time: the n-th at every place make the n-th repetition."""
    normal = frames[0].normal
    frames = sorted(frames, key=lambda frame: frame.position @ normal)
    places: list[list[Frame]] = []
    for frame in frames:
        if places and (frame.position - places[-1][-1].position) @ normal < _SAME_PLACE:
            places[-1].append(frame)
        else:
            places.append([frame])
    for place in places:
        place.sort(key=lambda frame: (frame.time or 0.0, frame.timer or 0.0, frame.order))
    return [
        [place[number] for place in places if len(place) > number] for number in range(max(map(len, places), default=0))
    ]


def _evenly_spaced(frames: list[Frame]) -> list[list[Frame]]:
    """Runs of planes, sorted by position, one step apart: where one is missing a new run begins."""
    if len(frames) < 3:
        return [frames] if frames else []
    positions = np.array([frame.position for frame in frames])
    steps = np.diff(positions, axis=0)
    step = np.median(steps, axis=0)
    uneven = np.linalg.norm(steps - step, axis=1) > max(_SAME_PLACE, _EVEN * float(np.linalg.norm(step)))
    starts = [0, *(np.flatnonzero(uneven) + 1).tolist(), len(frames)]
    return [frames[begin:end] for begin, end in itertools.pairwise(starts)]
