"""The files of an acquisition, and the stacks with masks that they hold together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.io.dicom.pixels import read_dicom_stack
from gsvr.io.dicom.stacks import DicomStack
from gsvr.io.dicom.study import read_study
from gsvr.io.image import Image, check_is_file, load_image
from gsvr.io.mask import is_mask, load_mask, reordered, resampled
from gsvr.io.nifti import read_stack, stack_from_image
from gsvr.io.outputs import counted, same_file
from gsvr.io.slice_folder import SliceFolder, read_slice_folder
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.workflows.messages import told_together

logger = logging.getLogger(__name__)


@dataclass(frozen=True, init=False)
class StackInputs:
    """The files of an acquisition.

    Attributes
    ----------
    stacks
        NIfTI files, at least two; or none, with `dicom`.
    masks
        One for each stack in order, None for a stack without; or fewer, each on the grid of one of the stacks; or one
        on a grid of its own; or none.
    thicknesses
        Slice thickness (mm): none, one for all, or one for each stack.
    slice_order
        Acquisition order, see `gsvr.io.sidecar.acquisition_times`.
    slice_folder
        Folder of single slices, in place of stacks and masks, see `gsvr.io.slice_folder`; or None.
    dicom
        Folders of one examination in DICOM, in place of stacks.
    dicom_series
        Numbers of the series to use of it, whatever their contrast; none: those that look fit.
    dicom_patient
        Whether a series that is derived from it says who the patient is.
    poses
        File of poses to start with, see `gsvr.workflows.pipeline.initial_poses`; None: the headers are the start.

    Raises
    ------
    InputError
        If something other than a list of files is given, or thicknesses are no numbers.
    """

    stacks: list[Path]
    masks: list[Path | None]
    thicknesses: list[float]
    slice_order: str
    slice_folder: Path | None
    dicom: list[Path]
    dicom_series: list[int]
    dicom_patient: bool
    poses: Path | None

    def __init__(
        self,
        stacks: Iterable[str | PathLike[str]] = (),
        masks: Iterable[str | PathLike[str] | None] | None = None,
        thicknesses: Iterable[float] | float | None = None,
        slice_order: str = "auto",
        slice_folder: str | PathLike[str] | None = None,
        dicom: Iterable[str | PathLike[str]] = (),
        dicom_series: Iterable[int] = (),
        dicom_patient: bool = False,
        poses: str | PathLike[str] | None = None,
    ) -> None:
        object.__setattr__(self, "stacks", _paths("stacks", stacks))
        for name, value in (
            ("masks", [] if masks is None else _masks(masks, self.stacks)),
            ("thicknesses", _millimetres(thicknesses)),
            ("slice_order", slice_order),
            ("slice_folder", None if slice_folder is None else Path(slice_folder)),
            ("dicom", _paths("dicom", dicom)),
            ("dicom_series", list(dicom_series)),
            ("dicom_patient", dicom_patient),
            ("poses", None if poses is None else Path(poses)),
        ):
            object.__setattr__(self, name, value)


def _paths(argument: str, given: Any) -> list[Path]:
    if isinstance(given, str | PathLike) or not isinstance(given, Iterable):
        raise InputError(f"`{argument}` must be a list of files, not {given!r}")
    files = list(given)
    for file in files:
        if not isinstance(file, str | PathLike):
            raise InputError(f"`{argument}` must be a list of files, and {file!r} is none")
    return [Path(file) for file in files]


def _masks(given: Any, stacks: list[Path]) -> list[Path | None]:
    """Masks with None in the place of those that there are not."""
    if isinstance(given, str | PathLike) or not isinstance(given, Iterable):
        return [*_paths("masks", given)]
    masks = list(given)
    if None not in masks:
        return [*_paths("masks", masks)]
    if len(masks) != len(stacks):
        raise InputError(f"{len(masks)} `masks`, None among them, for {len(stacks)} stacks: give one or None for each")
    return [None if mask is None else _paths("masks", [mask])[0] for mask in masks]


def _millimetres(given: Any) -> list[float]:
    values = [] if given is None else list(given) if isinstance(given, Iterable) else [given]
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise InputError(f"`thicknesses` must be numbers of mm, not {given!r}") from error


def read_slices(inputs: StackInputs) -> SliceFolder:
    """Read the folder of slices.

    Raises
    ------
    InputError
        If there are stacks or masks as well, more than one thickness, or an unusable file.
    """
    assert inputs.slice_folder is not None
    if inputs.stacks or inputs.masks or inputs.dicom:
        raise InputError("`slice_folder` holds slices and masks: give either that, or `stacks` with `masks`")
    if len(inputs.thicknesses) > 1:
        raise InputError(f"{len(inputs.thicknesses)} thicknesses for a folder of slices: give one for all")
    return read_slice_folder(inputs.slice_folder, next(iter(inputs.thicknesses), None), inputs.slice_order)


def find_series(inputs: StackInputs) -> list[DicomStack]:
    """The series of the examination in DICOM that are used; none if the input is something else.

    Raises
    ------
    InputError
        See `gsvr.io.dicom.study.read_study`; or if there are stacks as well.
    """
    if inputs.dicom and inputs.stacks:
        raise InputError("give either `stacks` or `dicom`")
    if inputs.dicom_series and not inputs.dicom:
        raise InputError("`dicom_series` chooses among the series of `dicom`: give that, too")
    if inputs.dicom_patient and not inputs.dicom:
        raise InputError("`dicom_patient` copies the patient from `dicom`: give that, too")
    return read_study(inputs.dicom, inputs.dicom_series).stacks if inputs.dicom else []


def read_stacks(inputs: StackInputs, series: Sequence[DicomStack] | None = None) -> list[Stack]:
    """Read stacks and match masks to them.

    Parameters
    ----------
    series
        What `find_series` found; None: it is asked.

    Raises
    ------
    InputError
        For fewer than two stacks, a stack given twice, numbers of options that do not fit, or an unusable file.
    """
    found = find_series(inputs) if series is None else series
    n = len(found or inputs.stacks)
    if n < 2:
        for path in inputs.stacks:
            check_is_file(path)
        if n == 0:
            raise InputError("nothing to reconstruct from: give two or more `stacks`, a `slice_folder`, or `dicom`")
        raise InputError(
            "one stack cannot be corrected for motion: give two or more "
            f"{'series' if inputs.dicom else '`stacks`'} in different orientations"
        )
    for number, path in enumerate(inputs.stacks):
        if same_file(path) in map(same_file, inputs.stacks[:number]):
            raise InputError(f"{path} is given twice: give each stack once")
    if len(inputs.thicknesses) not in (0, 1, n):
        raise InputError(f"{len(inputs.thicknesses)} thicknesses for {n} stacks: give one for all, or one each")
    if len(inputs.masks) > n:
        raise InputError(f"{len(inputs.masks)} masks for {n} stacks: give at most one each")
    thicknesses: list[float | None] = list(inputs.thicknesses) or [None]
    thicknesses = thicknesses * n if len(thicknesses) == 1 else thicknesses
    if found:
        pairs = zip(found, thicknesses, strict=True)
        stacks = [read_dicom_stack(stack, thickness, inputs.slice_order) for stack, thickness in pairs]
        return _with_masks(stacks, inputs.masks)
    # files side by side, but one after the other what there may be to say about them
    images = parallel_map(load_image, inputs.stacks)
    _refuse_masks(images)
    with told_together("gsvr.io"):
        stacks = [
            stack_from_image(image, thickness, inputs.slice_order)
            for image, thickness in zip(images, thicknesses, strict=True)
        ]
    return _with_masks(_with_distinct_names(stacks), inputs.masks)


def read_acquired(inputs: StackInputs) -> list[Stack]:
    """Stacks as they were acquired, one or more, in NIfTI or DICOM; nothing else of the inputs is looked at.

    Raises
    ------
    InputError
        If there are none, two have the same name, or a file cannot be used.
    """
    if not inputs.stacks and not inputs.dicom:
        raise InputError("nothing to look at: give `stacks` or `dicom`")
    series = find_series(inputs)
    stacks = [read_dicom_stack(stack) for stack in series] if series else [read_stack(path) for path in inputs.stacks]
    names = [stack.name for stack in stacks]
    if len(set(names)) < len(names):
        raise InputError("two of the `stacks` have the same name, and so would what is made of them: rename one")
    return stacks


def _refuse_masks(images: list[Image]) -> None:
    """A pattern of names may well have taken the masks together with the images."""
    masks = [image.path for image in images if is_mask(image.data)]
    if masks:
        are = "is a mask" if len(masks) == 1 else "are masks"
        raise InputError(f"{counted(masks)} {are}, of two values alone, and no slices: give masks with `masks`")


def _with_distinct_names(stacks: list[Stack]) -> list[Stack]:
    """Stacks from files of one name get a number, counted from 0 in the order given."""
    names = [stack.name for stack in stacks]
    taken = set(names)
    for number, stack in enumerate(stacks):
        if names.count(stack.name) == 1:
            continue
        name = f"{stack.name}-{number}"
        while name in taken:
            name += f"-{number}"
        taken.add(name)
        stacks = [*stacks[:number], replace(stack, name=name), *stacks[number + 1 :]]
    return stacks


def _with_masks(stacks: list[Stack], paths: list[Path | None]) -> list[Stack]:
    """Masks belong to the stacks in order; if there are fewer, each goes to the stack whose grid it has."""
    masks = parallel_map(lambda path: None if path is None else load_mask(path), paths)
    if len(paths) == len(stacks):
        own = [_own_mask(*pair, stacks) for pair in zip(paths, masks, stacks, strict=True)]
        return [replace(stack, mask=mask) for stack, mask in zip(stacks, own, strict=True)]
    masked, elsewhere = list(stacks), []
    for path, mask in zip(paths, masks, strict=True):
        assert path is not None  # `StackInputs` has seen to it
        assert mask is not None
        fitting = {number: reordered(mask, stack) for number, stack in enumerate(masked) if stack.mask is None}
        numbers = [number for number, found in fitting.items() if found is not None]
        if not numbers:
            elsewhere.append((path, mask))
            continue
        number, *others = numbers
        logger.info("%s: mask of %s", path, masked[number].name)
        if others:
            logger.warning(
                "%s: taken for the mask of %s, though %s has the same grid; give a mask for every stack to decide",
                path,
                masked[number].name,
                " and ".join(masked[other].name for other in others),
            )
        masked[number] = replace(masked[number], mask=fitting[number])
    return _with_mask_for_all(masked, elsewhere) if elsewhere else masked


def _own_mask(path: Path | None, mask: Volume | None, stack: Stack, stacks: list[Stack]) -> np.ndarray | None:
    """The mask of a stack among as many masks as there are stacks, if it has one."""
    if path is None or mask is None:
        return None
    found = reordered(mask, stack)
    if found is not None:
        return found
    for other in stacks:
        if reordered(mask, other) is not None:
            raise InputError(
                f"{path} is on the grid of {other.name}, not of {stack.name}: give the masks in the order of the stacks"
            )
    found = resampled(mask, stack)
    if not found.any():
        raise InputError(f"{path} does not meet {stack.name}: give the masks in the order of the stacks")
    logger.warning("%s is on another grid than %s, and was resampled onto it", path, stack.name)
    return found


def _with_mask_for_all(stacks: list[Stack], elsewhere: list[tuple[Path, Volume]]) -> list[Stack]:
    """One mask on a grid of its own shows where the brain is in the world of all stacks that have none."""
    path, mask = elsewhere[0]
    if len(elsewhere) > 1:
        raise InputError(
            f"{path} and {elsewhere[1][0]} are on the grid of none of the stacks that are still without a mask: give "
            "one mask for all stacks, or as many as there are stacks, in their order"
        )
    masks = [resampled(mask, stack) if stack.mask is None else stack.mask for stack in stacks]
    missed = [stack.name for stack, found in zip(stacks, masks, strict=True) if not found.any()]
    if missed:
        raise InputError(f"{path} does not meet {' and '.join(missed)}: give a mask that all stacks see, or one each")
    logger.warning("%s is on the grid of none of the stacks: it was resampled onto all that have no mask", path)
    return [replace(stack, mask=found) for stack, found in zip(stacks, masks, strict=True)]
