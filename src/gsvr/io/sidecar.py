"""BIDS sidecars: slice thickness and acquisition times from the JSON files of an image.

Thickness and spacing differ where slices have a gap or overlap, and NIfTI stores only the spacing.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from gsvr.errors import InputError
from gsvr.io.bids_names import inherited_sidecars
from gsvr.model.slices import ThicknessSource, interleaved_times

logger = logging.getLogger(__name__)

SliceOrder = Literal["auto", "interleaved", "interleaved-even-first", "ascending", "descending"]

# What is given counts, but where it is this many times what the sidecar says, or what the slices are apart, it may be a
# mistake.
_OTHER_THAN_SIDECAR, _MUCH_OVERLAP, _WIDE_GAP = 1.1, 1.5, 0.5
# No scanner records slices this many times thicker than their spacing (overlap) or thinner (gap):
# such a number is in other units.
_LARGEST_OVERLAP = 5.0
_LARGEST_GAP = 20.0


@dataclass(frozen=True)
class Sidecar:
    """What the JSON files of an image say about its slices.

    Attributes
    ----------
    slice_thickness
        mm, or None if not given.
    slice_timing
        Acquisition time of each slice in s, by increasing slice index, or None if not given.
    path
        The JSON file nearest to the image, or None if there is none.
    """

    slice_thickness: float | None = None
    slice_timing: tuple[float, ...] | None = None
    path: Path | None = None


def sidecar_path(nifti_path: str | Path) -> Path:
    """Where the sidecar of an image is, if it has one: ``X.json`` beside ``X.nii.gz`` or ``X.nii``."""
    nifti_path = Path(nifti_path)
    return nifti_path.parent / (nifti_path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def sidecar_paths(nifti_path: str | Path) -> list[Path]:
    """The JSON files that tell of an image: in a BIDS dataset those of the folders above it, and the one beside it.

    The later ones have the last word.
    """
    beside = sidecar_path(nifti_path)
    return [*inherited_sidecars(nifti_path), *([beside] if os.path.isfile(beside) else [])]


def read_sidecar(nifti_path: str | Path) -> Sidecar:
    """Read the sidecars of ``X.nii.gz`` or ``X.nii``: ``X.json`` in the same folder, and what a BIDS image inherits.

    An empty ``SliceTiming`` list, as some converters write it, counts as absent.

    Raises
    ------
    InputError
        If a file is not a JSON object, ``SliceThickness`` is not a positive number or ``SliceTiming``
        not a list of numbers.
    """
    paths = sidecar_paths(nifti_path)
    if not paths:
        return Sidecar()
    content: dict[str, Any] = {}
    for path in paths:
        content |= read_json_object(path)
    path = paths[-1]
    thickness = content.get("SliceThickness")
    if thickness is not None and not (_is_number(thickness) and thickness > 0):
        raise InputError(f"{path}: SliceThickness must be a positive number (mm), not {str(thickness)[:20]}")
    return Sidecar(
        slice_thickness=None if thickness is None else float(thickness),
        slice_timing=_slice_timing(content, path),
        path=path,
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that tells of an image or a dataset.

    Raises
    ------
    InputError
        If it is not readable, or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is not readable JSON ({reason}): repair or remove it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a BIDS sidecar: it must hold one JSON object, or be removed")
    return content


def _slice_timing(content: dict[str, Any], path: Path) -> tuple[float, ...] | None:
    timing = content.get("SliceTiming")
    if timing is None or timing == []:
        return None
    if not (isinstance(timing, list) and all(_is_number(time) for time in timing)):
        raise InputError(f"{path}: SliceTiming must be a list of numbers (s): repair or remove it")
    times = tuple(float(time) for time in timing)
    # BIDS: a minus says that the list starts at the slice with the largest index.
    return times[::-1] if str(content.get("SliceEncodingDirection", "")).endswith("-") else times


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def resolve_thickness(
    given: float | None, sidecar: Sidecar, spacing: float, path: str | Path
) -> tuple[float, ThicknessSource]:
    """Slice thickness in mm and where it comes from: what is given, else the sidecar, else the slice spacing.

    Parameters
    ----------
    given
        By the user (mm), or None.
    sidecar
        Of the same image.
    spacing
        Distance between slice centres (mm).
    path
        The image, for messages.

    Raises
    ------
    InputError
        If the thickness is not positive, or so far from `spacing` that it must be in other units.
    """
    if given is not None:
        thickness, source = float(given), "given"
        origin = f"{path}: the slice thickness given, {thickness:g} mm,"
    elif sidecar.slice_thickness is not None:
        thickness, source = sidecar.slice_thickness, "sidecar"
        origin = f"{sidecar.path}: SliceThickness, {thickness:g} mm,"
    else:
        logger.warning(
            "%s: slice thickness not known, using the slice spacing of %.4g mm; the two differ where slices "
            "have a gap or overlap: give the thickness, or SliceThickness in a JSON sidecar",
            path,
            spacing,
        )
        return float(spacing), "spacing"
    if not (math.isfinite(thickness) and thickness > 0):
        raise InputError(f"{origin} must be a positive number of mm")
    if not spacing / _LARGEST_GAP <= thickness <= spacing * _LARGEST_OVERLAP:
        raise InputError(f"{origin} does not go with a slice spacing of {spacing:.3g} mm: give the thickness in mm")
    if source == "given":
        _warn_of_contradiction(thickness, sidecar.slice_thickness, spacing, path)
    return thickness, source


def _warn_of_contradiction(given: float, known: float | None, spacing: float, path: str | Path) -> None:
    """Say where a thickness that was given is far from what the sidecar or the spacing has."""
    if known is not None and not 1 / _OTHER_THAN_SIDECAR <= given / known <= _OTHER_THAN_SIDECAR:
        logger.warning(
            "%s: the slice thickness given, %.4g mm, counts, though the sidecar says %.4g mm and the slices are "
            "%.4g mm apart: leave it out unless it is right",
            path,
            given,
            known,
            spacing,
        )
    elif known is None and not _WIDE_GAP <= given / spacing <= _MUCH_OVERLAP:
        logger.warning(
            "%s: the slice thickness given, %.4g mm, counts, though the slices are %.4g mm apart: look whether they "
            "really %s that much",
            path,
            given,
            spacing,
            "overlap by" if given > spacing else "leave out",
        )


def acquisition_times(
    order: SliceOrder | str, n_slices: int, sidecar: Sidecar | None = None
) -> Float[np.ndarray, " n"]:
    """Acquisition time of each slice; only the order of the numbers matters.

    Parameters
    ----------
    order
        Counting slices from 1 as scanners do: ``"interleaved"``: 1, 3, 5, ..., 2, 4, 6, ...;
        ``"interleaved-even-first"``: 2, 4, 6, ..., 1, 3, 5, ...; ``"ascending"``: 1, 2, 3, ...;
        ``"descending"``: the last slice first; ``"auto"``: the sidecar's ``SliceTiming``, else interleaved.
    n_slices
        Number of slices.
    sidecar
        Read only for ``"auto"``.

    Raises
    ------
    InputError
        If `order` is unknown.
    """
    if order not in get_args(SliceOrder):
        raise InputError(f"unknown slice order {order!r}: choose one of {', '.join(get_args(SliceOrder))}")
    index = np.arange(n_slices)
    if order == "ascending":
        return index.astype(np.float64)
    if order == "descending":
        return index[::-1].astype(np.float64)
    if order == "interleaved-even-first":
        times = np.empty(n_slices)
        times[np.concatenate([index[1::2], index[::2]])] = index
        return times
    if order == "auto" and sidecar is not None and sidecar.slice_timing is not None:
        problem = _timing_problem(sidecar.slice_timing, n_slices)
        if problem is None:
            return np.array(sidecar.slice_timing)
        logger.warning("%s: SliceTiming ignored, %s; assuming odd/even interleave", sidecar.path, problem)
    return interleaved_times(n_slices)


def _timing_problem(timing: Sequence[float], n_slices: int) -> str | None:
    if len(timing) != n_slices:
        return f"it lists {len(timing)} times for {n_slices} slices"
    if n_slices > 1 and len(set(timing)) == 1:
        return "all times are equal"
    return None
