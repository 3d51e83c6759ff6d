"""Which stacks of an examination a reconstruction can use, and why not the others.

The brain of a fetus is imaged with single-shot T2-weighted spin echoes: HASTE (Siemens), SSFSE (GE), SSh-TSE (Philips).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gsvr.io.dicom.stacks import DicomStack

# A stack of fewer slices is a localiser, or what was left of an interrupted one.
_FEWEST_SLICES = 5
# Slices of a localiser with several orientations, in each of them.
_LOCALISER_SLICES = 12
# mm: beyond, a projection of a slab.
_THICKEST = 12.0
# ms of echo time between which spin echoes are T2-weighted.
_T2_WEIGHTED = (50.0, 500.0)
# Up to which share of a pixel two stacks lie on one grid, and seconds up to which two times are the same.
_SAME_GRID, _SAME_TIME = 1e-3, 1e-3
_LOCALISER_WORDS = re.compile(
    r"(^|[^a-z])(loc|localis|localiz|scout|survey|surview|(3|three|tri)[ _-]?(pl|plane)|smartbrain)"
)


@dataclass(frozen=True)
class LeftOut:
    """A stack that is not used.

    Attributes
    ----------
    stack
        What it is.
    reason
        Why not, as the rest of a sentence.
    """

    stack: DicomStack
    reason: str


def select(stacks: Sequence[DicomStack]) -> tuple[list[DicomStack], list[LeftOut]]:
    """Stacks of T2-weighted slices, and the others, each with a reason.

    Of the same acquisition reconstructed twice, the one with distortions corrected is used.

    Parameters
    ----------
    stacks
        Of one study.
    """
    chosen: list[DicomStack] = []
    left_out: list[LeftOut] = []
    for stack in stacks:
        reason = _reason(stack, stacks)
        if reason is None:
            chosen.append(stack)
        else:
            left_out.append(LeftOut(stack, reason))
    for stack in list(chosen):
        better = next((other for other in chosen if other is not stack and _is_better(other, stack, chosen)), None)
        if better is not None:
            chosen = [other for other in chosen if other is not stack]
            left_out.append(LeftOut(stack, f"the same acquisition as {better.name}, reconstructed another way"))
    return chosen, left_out


def _reason(stack: DicomStack, stacks: Sequence[DicomStack]) -> str | None:
    """Why a stack cannot be used: by what it is, then by its contrast, then by its size."""
    series = [other for other in stacks if other.first.series == stack.first.series]
    orientations = {other.orientation for other in series}
    small = all(other.n_slices <= _LOCALISER_SLICES for other in series)
    if len(orientations) > 1 and small:
        return "a localiser"
    return unlike(stack) or too_small(stack)


def unlike(stack: DicomStack) -> str | None:
    """Why not even a slice of a stack is one of those that are used, by what its header says."""
    contrast = stack.contrast
    kinds = set(contrast.image_type)
    if "LOCALIZER" in kinds or _LOCALISER_WORDS.search(contrast.words):
        return "a localiser"
    if "SECONDARY" in kinds or kinds & {"MPR", "PROJECTION IMAGE", "MIP", "SUBTRACT"}:
        return "computed from other images"
    if kinds & {"P", "R", "I", "PHASE", "PHASE MAP", "REAL", "IMAGINARY", "VELOCITY"}:
        return "no magnitude image"
    if contrast.three_dimensional:
        return "acquired in three dimensions, not slice by slice"
    if contrast.diffusion or kinds & {"DIFFUSION", "ADC", "TRACEW", "FA", "EPI"} or "EP" in contrast.sequences:
        return "another contrast: echo-planar or diffusion-weighted"
    if "MOSAIC" in kinds:
        return "a mosaic of slices"
    if "GR" in contrast.sequences and "SE" not in contrast.sequences:
        return "another contrast: a gradient echo (such as balanced steady state)"
    if "IR" in contrast.sequences or contrast.inversion_time is not None:
        return "another contrast: inversion recovery"
    echo = contrast.echo_time
    if echo is not None and not _T2_WEIGHTED[0] <= echo <= _T2_WEIGHTED[1]:
        return f"another contrast: an echo time of {echo:.3g} ms"
    if stack.thickness is not None and stack.thickness > _THICKEST:
        return f"a slab of {stack.thickness:.3g} mm"
    return None


def too_small(stack: DicomStack) -> str | None:
    """Why a stack that somebody asked for cannot be used all the same."""
    if stack.n_slices < _FEWEST_SLICES:
        return f"only {stack.n_slices} slice{'' if stack.n_slices == 1 else 's'} next to each other"
    return None


def _is_better(first: DicomStack, second: DicomStack, among: Sequence[DicomStack]) -> bool:
    return _same_acquisition(first, second) and _rank(first, among) > _rank(second, among)


def _rank(stack: DicomStack, among: Sequence[DicomStack]) -> tuple[bool, bool, int]:
    """Corrected for distortion, then for the coil, then the earlier one."""
    kinds = set(stack.contrast.image_type)
    order = next(number for number, other in enumerate(among) if other is stack)
    return bool(kinds & {"DIS2D", "DIS3D"}), "NORM" in kinds, -order


def _same_acquisition(first: DicomStack, second: DicomStack) -> bool:
    """One grid, acquired at the same times."""
    if first.n_slices != second.n_slices or first.first.shape != second.first.shape:
        return False
    if np.abs(first.affine - second.affine).max() > _SAME_GRID * min(first.first.spacing):
        return False
    times = [(a.time, b.time) for a, b in zip(first.frames, second.frames, strict=True)]
    known = all(a is not None and b is not None for a, b in times) and first.times is not None
    return known and all(abs(a - b) <= _SAME_TIME for a, b in times if a is not None and b is not None)
