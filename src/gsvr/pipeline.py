"""One reconstruction, from files to files. The only module that puts option objects together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gsvr.acquisition import Slices, Stack, slices_from_stacks
from gsvr.errors import InputError
from gsvr.geometry import transform_points
from gsvr.io.nifti import read_mask, read_stack
from gsvr.masking import StackMasks, first_masks
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, default_stages
from gsvr.solver.state import Result
from gsvr.volume import render_volume
from gsvr.volume_grid import Volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
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
    """

    stacks: list[Path]
    masks: list[Path]
    thicknesses: list[float]
    slice_order: str = "auto"


@dataclass(frozen=True)
class Reconstruction:
    """A finished job.

    Attributes
    ----------
    stacks
        What was read.
    result
        Field, poses and weights.
    volume
        The field on a voxel grid, with the brain mask.
    timings
        Wall seconds by step.
    """

    stacks: list[Stack]
    result: Result
    volume: Volume
    timings: dict[str, float]


def read_stacks(inputs: StackInputs) -> list[Stack]:
    """Read stacks and match masks to them.

    Raises
    ------
    InputError
        For fewer than two stacks, numbers of options that do not fit, or an unusable file.
    """
    n = len(inputs.stacks)
    if n < 2:
        raise InputError(
            "one stack cannot be corrected for motion: give two or more stacks in different orientations "
            "to --input-stacks"
        )
    if len(inputs.thicknesses) not in (0, 1, n):
        raise InputError(f"{len(inputs.thicknesses)} thicknesses for {n} stacks: give one for all, or one each")
    if len(inputs.masks) > n:
        raise InputError(f"{len(inputs.masks)} masks for {n} stacks: give at most one each")
    thicknesses: list[float | None] = list(inputs.thicknesses) or [None]
    thicknesses = thicknesses * n if len(thicknesses) == 1 else thicknesses
    stacks = [
        read_stack(path, thickness=thickness, order=inputs.slice_order)
        for path, thickness in zip(inputs.stacks, thicknesses, strict=True)
    ]
    return _with_masks(_with_distinct_names(stacks), inputs.masks)


def _with_distinct_names(stacks: list[Stack]) -> list[Stack]:
    names = [stack.name for stack in stacks]
    return [
        replace(stack, name=f"{stack.name}-{number}") if names.count(stack.name) > 1 else stack
        for number, stack in enumerate(stacks)
    ]


def _with_masks(stacks: list[Stack], paths: list[Path]) -> list[Stack]:
    """Masks belong to the stacks in order; if there are fewer, each goes to the stack whose grid it has."""
    if len(paths) == len(stacks):
        return [replace(stack, mask=read_mask(path, stack)) for stack, path in zip(stacks, paths, strict=True)]
    masked = list(stacks)
    for path in paths:
        refusal: InputError | None = None
        for number, stack in enumerate(masked):
            if stack.mask is not None:
                continue
            try:
                masked[number] = replace(stack, mask=read_mask(path, stack))
            except InputError as error:
                refusal = refusal or error
                continue
            logger.info("%s: mask of %s", path, stack.name)
            break
        else:
            if len(paths) == 1 and refusal:
                raise InputError(f"{path} is on the grid of none of the stacks ({refusal})") from refusal
            raise InputError(
                f"{path} is on the grid of none of the stacks that are still without a mask: give each mask "
                "on its stack's grid, in the order of the stacks"
            )
    return masked


def prepare_slices(stacks: list[Stack], options: SolverOptions) -> tuple[Slices, StackMasks]:
    """Masks, overlap check and slices.

    Raises
    ------
    InputError
        If stacks do not overlap, or nothing is inside the masks.
    """
    masks = first_masks(stacks, options.masks)
    _check_overlap(stacks, masks)
    return slices_from_stacks(stacks, masks.masks, masks.fields_of_view, masks.drawn), masks


def _check_overlap(stacks: list[Stack], masks: StackMasks) -> None:
    """Every stack's field of view must meet that of some other stack in world space."""
    boxes = []
    for stack, view in zip(stacks, masks.fields_of_view, strict=True):
        placed = transform_points(stack.affine, np.argwhere(view))
        boxes.append((placed.min(axis=0), placed.max(axis=0)))
    for number, (low, high) in enumerate(boxes):
        meets = [
            np.all(low < other_high) and np.all(other_low < high)
            for other, (other_low, other_high) in enumerate(boxes)
            if other != number
        ]
        if not any(meets):
            raise InputError(
                f"{stacks[number].name} overlaps none of the other stacks in scanner coordinates: check that "
                "all stacks are of one examination, or leave it out"
            )


def fitting_options(stacks: list[Stack], options: SolverOptions) -> SolverOptions:
    """The options with stages whose finest Gaussians suit the in-plane pixel spacing of the stacks."""
    spacing = float(np.median([stack.spacing[:2].mean() for stack in stacks]))
    return replace(options, stages=default_stages(float(np.clip(spacing, 0.8, 1.5))))


def run(
    inputs: StackInputs,
    output_resolution: float = 0.8,
    options: SolverOptions | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Reconstruction:
    """Read, reconstruct, render. Nothing is written.

    Parameters
    ----------
    output_resolution
        Voxel size (mm).
    options
        Solver options, used as they are; None: the defaults, fitted to the stacks (`fitting_options`).

    Raises
    ------
    InputError
        If the input cannot be used.
    """
    clock = [time.perf_counter()]
    timings: dict[str, float] = {}

    def lap(name: str) -> None:
        clock.append(time.perf_counter())
        timings[name] = clock[-1] - clock[-2]

    stacks = read_stacks(inputs)
    lap("read")
    options = options or fitting_options(stacks, SolverOptions())
    slices, _ = prepare_slices(stacks, options)
    lap("masks")
    try:
        result = reconstruct(slices, options, callback)
    except ValueError as error:
        raise InputError(f"{inputs.stacks[0]} and the other stacks cannot be reconstructed: {error}") from error
    lap("reconstruction")
    volume = render_volume(result.field, output_resolution, result.mask)
    lap("rendering")
    return Reconstruction(stacks, result, volume, timings)
