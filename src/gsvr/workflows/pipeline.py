"""One reconstruction, from files to files. The only module that puts option objects together."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.io.image import check_is_file, load_image
from gsvr.io.nifti import read_mask, stack_from_image
from gsvr.io.outputs import same_file
from gsvr.masks.checks import check_content, check_overlap
from gsvr.masks.first import StackMasks, first_masks
from gsvr.model.slices import Slices, Stack, slices_from_stacks
from gsvr.model.volume import Volume
from gsvr.render.volume import check_voxel_size, render_volume
from gsvr.solver.published import PublishedOptions, reconstruct_as_published
from gsvr.solver.reconstruct import Callback, reconstruct
from gsvr.solver.schedule import SolverOptions, default_stages
from gsvr.solver.state import Result

logger = logging.getLogger(__name__)


@dataclass(frozen=True, init=False)
class StackInputs:
    """The files of an acquisition.

    Attributes
    ----------
    stacks
        NIfTI files, at least two.
    masks
        One for each stack in order; or fewer, each on the grid of one of the stacks; or none.
    thicknesses
        Slice thickness (mm): none, one for all, or one for each stack.
    slice_order
        Acquisition order, see `gsvr.io.sidecar.acquisition_times`.

    Raises
    ------
    InputError
        If something other than a list of files is given, or thicknesses are no numbers.
    """

    stacks: list[Path]
    masks: list[Path]
    thicknesses: list[float]
    slice_order: str

    def __init__(
        self,
        stacks: Iterable[str | PathLike[str]],
        masks: Iterable[str | PathLike[str]] | None = None,
        thicknesses: Iterable[float] | float | None = None,
        slice_order: str = "auto",
    ) -> None:
        for name, value in (
            ("stacks", _paths("stacks", stacks)),
            ("masks", [] if masks is None else _paths("masks", masks)),
            ("thicknesses", _millimetres(thicknesses)),
            ("slice_order", slice_order),
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


def _millimetres(given: Any) -> list[float]:
    values = [] if given is None else list(given) if isinstance(given, Iterable) else [given]
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise InputError(f"`thicknesses` must be numbers of mm, not {given!r}") from error


@dataclass(frozen=True)
class Job:
    """Input that was read and found usable, and how it is going to be reconstructed.

    Attributes
    ----------
    stacks
        What was read.
    masks
        Of every stack.
    slices
        What is reconstructed.
    options
        How.
    timings
        Wall seconds by step.
    """

    stacks: list[Stack]
    masks: StackMasks
    slices: Slices
    options: SolverOptions | PublishedOptions
    timings: dict[str, float]


@dataclass(frozen=True)
class Reconstruction:
    """A finished job.

    Attributes
    ----------
    job
        What was reconstructed, and how.
    result
        Field, poses and weights.
    volume
        The field on a voxel grid, with the brain mask.
    timings
        Wall seconds by step, those of the job among them.
    """

    job: Job
    result: Result
    volume: Volume
    timings: dict[str, float]


def read_stacks(inputs: StackInputs) -> list[Stack]:
    """Read stacks and match masks to them.

    Raises
    ------
    InputError
        For fewer than two stacks, a stack given twice, numbers of options that do not fit, or an unusable file.
    """
    n = len(inputs.stacks)
    if n < 2:
        for path in inputs.stacks:
            check_is_file(path)
        raise InputError(
            f"{'one stack' if n else 'no stack'} cannot be corrected for motion: give two or more `stacks` in "
            "different orientations"
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
    # files side by side, but one after the other what there may be to say about them
    stacks = [
        stack_from_image(image, thickness, inputs.slice_order)
        for image, thickness in zip(parallel_map(load_image, inputs.stacks), thicknesses, strict=True)
    ]
    return _with_masks(_with_distinct_names(stacks), inputs.masks)


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


def _with_masks(stacks: list[Stack], paths: list[Path]) -> list[Stack]:
    """Masks belong to the stacks in order; if there are fewer, each goes to the stack whose grid it has."""
    if len(paths) == len(stacks):
        masks = parallel_map(lambda pair: read_mask(*pair), zip(paths, stacks, strict=True))
        return [replace(stack, mask=mask) for stack, mask in zip(stacks, masks, strict=True)]
    masked = list(stacks)
    for path in paths:
        fitting, refusal = _stacks_on_grid(path, masked)
        if not fitting:
            if len(paths) == 1 and refusal:
                raise InputError(f"{path} is on the grid of none of the stacks ({refusal})") from refusal
            raise InputError(
                f"{path} is on the grid of none of the stacks that are still without a mask: give each mask "
                "on its stack's grid, in the order of the stacks"
            )
        number, *others = fitting
        logger.info("%s: mask of %s", path, masked[number].name)
        if others:
            logger.warning(
                "%s: taken for the mask of %s, though %s has the same grid; give a mask for every stack to decide",
                path,
                masked[number].name,
                " and ".join(masked[other].name for other in others),
            )
        masked[number] = replace(masked[number], mask=fitting[number])
    return masked


def _stacks_on_grid(path: Path, stacks: list[Stack]) -> tuple[dict[int, np.ndarray], InputError | None]:
    """The mask for each stack without one whose grid it has, and why it is not on the grid of the first other."""
    fitting: dict[int, np.ndarray] = {}
    refusal: InputError | None = None
    for number, stack in enumerate(stacks):
        if stack.mask is None:
            try:
                fitting[number] = read_mask(path, stack)
            except InputError as error:
                refusal = refusal or error
    return fitting, refusal


def prepare_masks(stacks: list[Stack], options: SolverOptions | PublishedOptions) -> StackMasks:
    """Masks that make sense together.

    Raises
    ------
    InputError
        If no brain is found, stacks do not overlap, or there is no signal inside the masks.
    """
    masks = first_masks(stacks, options.masks)
    check_overlap(stacks, masks)
    check_content(stacks, masks)
    return masks


def slices_of(stacks: list[Stack], masks: StackMasks) -> Slices:
    """Stacks cut into slices around their masks."""
    return slices_from_stacks(stacks, masks.masks, masks.fields_of_view, masks.drawn)


def prepare_slices(stacks: list[Stack], options: SolverOptions | PublishedOptions) -> Slices:
    """`prepare_masks` and `slices_of` in one."""
    return slices_of(stacks, prepare_masks(stacks, options))


def fitting_options(stacks: list[Stack], options: SolverOptions) -> SolverOptions:
    """The options with stages whose Gaussians suit the in-plane pixel spacing and the thickness of the slices."""
    spacing = float(np.median([stack.spacing[:2].mean() for stack in stacks]))
    thickness = float(np.median([stack.thickness for stack in stacks]))
    last, finest = options.stages[-1], float(np.clip(0.9 * spacing, 0.7, 1.5))
    return replace(options, stages=default_stages(finest, last.free, thickness, last.geometry_steps))


def prepare(
    inputs: StackInputs, options: SolverOptions | PublishedOptions | None = None, fit_stages: bool = True
) -> Job:
    """Read everything and check that it can be reconstructed: quick, and nothing is compiled.

    Parameters
    ----------
    options
        Solver options, or those of the published settings; None: the defaults.
    fit_stages
        Replace the stages of the options, if they have any, by those that suit the stacks (`fitting_options`).

    Raises
    ------
    InputError
        If the input cannot be used.
    """
    options = options or SolverOptions()
    started = time.perf_counter()
    stacks = read_stacks(inputs)
    read = time.perf_counter()
    if fit_stages and isinstance(options, SolverOptions):
        options = fitting_options(stacks, options)
    masks = prepare_masks(stacks, options)
    slices = slices_of(stacks, masks)
    if isinstance(options, SolverOptions):
        _refuse_narrow_masks(slices, max(stage.binning for stage in options.stages))
    return Job(stacks, masks, slices, options, {"read": read - started, "masks": time.perf_counter() - read})


def _refuse_narrow_masks(slices: Slices, binning: int) -> None:
    """Coarse stages average pixels, and of masks only a few pixels wide nothing may be left there."""
    coarse = slices.binned(binning)
    left = coarse.sum_per_slice(coarse.mask) > 0
    if slices.drawn is not None and slices.drawn.any():
        left &= slices.drawn  # only these vote on where the brain is
    if not left.any():
        raise InputError(
            f"the masks are narrower than {binning} pixels: draw them around all of the brain, or leave them out"
        )


def run(job: Job, output_resolution: float = 0.8, callback: Callback | None = None) -> Reconstruction:
    """Reconstruct and render. Nothing is written.

    Parameters
    ----------
    output_resolution
        Voxel size (mm).
    callback
        Told a `Progress` after each outer iteration (with the published settings: each epoch); may raise to stop.

    Raises
    ------
    InputError
        If the voxel size is out of range, or what was found is no image.
    """
    check_voxel_size(output_resolution)
    started = time.perf_counter()
    if isinstance(job.options, PublishedOptions):
        result = reconstruct_as_published(job.slices, job.options, callback)
    else:
        result = reconstruct(job.slices, job.options, callback)
    reconstructed = time.perf_counter()
    backend = job.options.backend
    logger.info("rendering with the backend %s", backend)
    volume = render_volume(result.field, output_resolution, result.mask, backend=backend)
    _refuse_nothing(volume)
    timings = {"reconstruction": reconstructed - started, "rendering": time.perf_counter() - reconstructed}
    return Reconstruction(job, result, volume, job.timings | timings)


def _refuse_nothing(volume: Volume) -> None:
    """What shows nothing is no success, whatever the reason."""
    if not np.isfinite(volume.data).all() or not volume.data.any():
        raise InputError(
            "the reconstruction came to nothing: look at the stacks for damage, and whether masks lie on the brain"
        )
