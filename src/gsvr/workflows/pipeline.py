"""One reconstruction, from files to files. The only module that puts option objects together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gsvr.errors import InputError
from gsvr.evaluation.verdict import Limits, Verdict, judge
from gsvr.io.dicom.derived import DicomOrigin, origin_of
from gsvr.io.slice_folder import SliceFolder
from gsvr.io.transforms import read_poses_json
from gsvr.masks.checks import check_content, check_overlap
from gsvr.masks.first import StackMasks
from gsvr.model.copies import copies
from gsvr.model.slices import Slices, Stack, slices_from_stacks
from gsvr.model.volume import Volume
from gsvr.render import VOXEL_SIZE
from gsvr.render.volume import check_voxel_size, render_volume
from gsvr.solver.online.reconstruction import predicted_poses
from gsvr.solver.published import PublishedOptions, reconstruct_as_published
from gsvr.solver.reconstruct import Callback, Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, default_stages, moving_parts
from gsvr.solver.state import Result, StopReconstruction
from gsvr.workflows.inputs import StackInputs, find_series, read_slices, read_stacks
from gsvr.workflows.messages import told_together
from gsvr.workflows.orientation import Orientation, Turn, check_template, turned_result
from gsvr.workflows.provenance import Provenance, hashed_files, heard_warnings
from gsvr.workflows.stack_masks import masks_to_start_with

logger = logging.getLogger(__name__)

# What shows nothing is no success, whatever the reason.
_NOTHING = "the reconstruction came to nothing: look at the stacks for damage, and whether masks lie on the brain"
# Millions of pixels that are more than a brain, and memory for each million: six stacks of a whole abdomen without
# masks have 9.9 million in their foreground, and took 12 GB.
_MANY_PIXELS, _GIGABYTES = 3.0, 1.2


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
    copies
        Pairs of stacks that hold the same recording.
    poses
        Of the slices to start with, acquired world -> volume world; None: the solver's own first guess.
    provenance
        Files, options that were asked for, warnings, and when it began.
    dicom
        The examination that the stacks come from, or None.
    orientation
        The world of the volume.
    """

    stacks: list[Stack]
    masks: StackMasks
    slices: Slices
    options: SolverOptions | PublishedOptions
    timings: dict[str, float]
    copies: Sequence[tuple[int, int]] = ()
    poses: Float[np.ndarray, "n 4 4"] | None = None
    provenance: Provenance = field(default_factory=Provenance)
    dicom: DicomOrigin | None = None
    orientation: Orientation = Orientation()


@dataclass(frozen=True)
class Iteration:
    """One outer iteration (with the published settings: an epoch), for the record.

    Attributes
    ----------
    stage
        Of which stage.
    residual
        Robust standard deviation of the residuals, as a share of bright tissue.
    seconds
        Wall time since the start of the reconstruction.
    """

    stage: str
    residual: float
    seconds: float


@dataclass(frozen=True)
class Reconstruction:
    """A finished job.

    Attributes
    ----------
    job
        What was reconstructed, and how.
    result
        Field, poses and weights, in the world of the volume.
    volume
        The field on a voxel grid, with the brain mask.
    verdict
        Whether it is to be trusted.
    timings
        Wall seconds by step, those of the job among them.
    warnings
        All that were given, those of the job first; without folders.
    turn
        From the world of the scanner to that of the volume; None: they are the same.
    iterations
        Of the reconstruction that counts.
    """

    job: Job
    result: Result
    volume: Volume
    verdict: Verdict
    timings: dict[str, float]
    warnings: Sequence[str] = ()
    turn: Turn | None = None
    iterations: Sequence[Iteration] = ()


def prepare_masks(
    stacks: list[Stack], options: SolverOptions | PublishedOptions, searching: Callable[[int, int], None] | None = None
) -> StackMasks:
    """Masks that make sense together.

    Parameters
    ----------
    searching
        Told of the search for brains how many steps are done, and how many there are.

    Raises
    ------
    InputError
        If no brain is found, stacks do not overlap, or there is no signal inside the masks.
    """
    with told_together("gsvr.masks"):
        masks = masks_to_start_with(
            stacks, options.masks, options.search if isinstance(options, SolverOptions) else "lost", searching
        )
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
    """The options with stages whose Gaussians suit the in-plane pixel spacing and the thickness of the slices.

    A thickness that was given for every stack is believed; what files say of it is not always right.
    """
    spacing = float(np.median([stack.spacing[:2].mean() for stack in stacks]))
    thickness = float(np.median([stack.thickness for stack in stacks]))
    last, finest = options.stages[-1], float(np.clip(0.9 * spacing, 0.7, 1.5))
    stages = default_stages(finest, last.free, thickness, last.geometry_steps, moving_parts(options.stages))
    doubted = options.estimate_thickness and any(stack.thickness_source != "given" for stack in stacks)
    return replace(options, stages=stages, estimate_thickness=doubted)


def initial_poses(path: Path, slices: Slices) -> Float[np.ndarray, "n 4 4"]:
    """Poses to start with from a file of poses; slices that it leaves out start where the next one in time does.

    Raises
    ------
    InputError
        If it cannot be read, or has no pose for any slice that a stack shows the brain in.
    """
    known = {(record.stack, record.slice_index): record.matrix for record in read_poses_json(path)}
    there = {name for name, _ in known.keys() & set(slices.keys)}
    missing = [name for name in slices.stack_names if name not in there]
    if missing:
        raise InputError(
            f"{path} has no poses for slices of {', '.join(missing)}, only for {', '.join(sorted(there)) or 'none'}: "
            "stacks are told by the names of their files"
        )
    return predicted_poses(slices, known)


def prepare(
    inputs: StackInputs,
    options: SolverOptions | PublishedOptions | None = None,
    fit_stages: bool = True,
    searching: Callable[[int, int], None] | None = None,
    orientation: Orientation | None = None,
) -> Job:
    """Read everything and check that it can be reconstructed: quick, and nothing is compiled.

    Parameters
    ----------
    options
        Solver options, or those of the published settings; None: the defaults.
    fit_stages
        Replace the stages of the options, if they have any, by those that suit the stacks (`fitting_options`).
    searching
        As for `prepare_masks`.
    orientation
        The world of the volume; None: the scanner's.

    Raises
    ------
    InputError
        If the input cannot be used.
    """
    options = options or SolverOptions()
    orientation = orientation or Orientation()
    check_template(orientation.template)
    provenance = Provenance(inputs, options, orientation=orientation)
    with heard_warnings() as warnings:
        started = time.perf_counter()
        folder = None if inputs.slice_folder is None else read_slices(inputs)
        series = find_series(inputs)
        stacks = read_stacks(inputs, series) if folder is None else folder.stacks
        files = hashed_files(inputs, orientation.template)
        read = time.perf_counter()
        job = job_of(stacks, options, fit_stages, folder, searching)
        if inputs.poses is not None:
            job = replace(job, poses=initial_poses(inputs.poses, job.slices))
    return replace(
        job,
        timings={"read": read - started} | job.timings,
        provenance=replace(provenance, files=files, warnings=tuple(warnings)),
        dicom=origin_of(series, inputs.dicom_patient),
        orientation=orientation,
    )


def job_of(
    stacks: list[Stack],
    options: SolverOptions | PublishedOptions,
    fit_stages: bool = True,
    folder: SliceFolder | None = None,
    searching: Callable[[int, int], None] | None = None,
) -> Job:
    """Check that stacks can be reconstructed, and find their masks.

    Parameters
    ----------
    options, fit_stages
        As for `prepare`.
    folder
        What the stacks were made of, if they were single slices.
    searching
        As for `prepare_masks`.

    Raises
    ------
    InputError
        If they cannot.
    """
    started = time.perf_counter()
    if fit_stages and isinstance(options, SolverOptions):
        options = fitting_options(stacks, options)
    masks = prepare_masks(stacks, options, searching)
    if folder is not None:
        inside = [mask & recorded for mask, recorded in zip(masks.masks, folder.recorded, strict=True)]
        masks = replace(masks, masks=inside, fields_of_view=folder.recorded)
    options = with_margin(options, masks)
    slices = slices_of(stacks, masks)
    poses = None if folder is None else folder.poses_of(slices)
    if isinstance(options, SolverOptions):
        _refuse_narrow_masks(slices, max(stage.binning for stage in options.stages))
    _warn_of_effort(slices.n_pixels)
    timings = {"masks": time.perf_counter() - started}
    return Job(stacks, masks, slices, options, timings, _copies(stacks), poses)


def with_margin(options: SolverOptions | PublishedOptions, masks: StackMasks) -> SolverOptions | PublishedOptions:
    """The options with the margin of masks that were found, if nobody drew any."""
    drawn_by_hand = [drawn and not found for drawn, found in zip(masks.drawn, masks.found, strict=True)]
    if any(drawn_by_hand) or not any(masks.found):
        return options
    return replace(options, masks=replace(options.masks, margin=options.masks.margin_of_found))


def _warn_of_effort(n_pixels: int) -> None:
    """Say beforehand what will take minutes and gigabytes."""
    millions = n_pixels / 1e6
    if millions > _MANY_PIXELS:
        logger.warning(
            "%.1f million pixels are to be reconstructed, where a brain has about one: this takes minutes and some "
            "%.0f GB of memory; give masks of the brain alone, or have them found",
            millions,
            millions * _GIGABYTES,
        )


def _copies(stacks: list[Stack]) -> list[tuple[int, int]]:
    """Stacks that hold the same recording, with a warning."""
    found = copies(stacks)
    for first, second in found:
        logger.warning("%s holds the same recording as %s: leave one out", stacks[second].name, stacks[first].name)
    return found


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


def run(
    job: Job,
    output_resolution: float = VOXEL_SIZE,
    callback: Callback | None = None,
    sampling: Callable[[int, int], None] | None = None,
) -> Reconstruction:
    """Reconstruct, render and judge. Nothing is written.

    Parameters
    ----------
    output_resolution
        Voxel size (mm).
    callback
        Told a `Progress` after each outer iteration (with the published settings: each epoch); may raise to stop.
    sampling
        Told how many samples of the uncertainty are drawn, and how many there will be.

    Raises
    ------
    InputError
        If the voxel size is out of range, or what was found is no image.
    """
    check_voxel_size(output_resolution)
    with heard_warnings() as warnings:
        reconstruction = _run(job, output_resolution, callback, sampling)
    return replace(reconstruction, warnings=(*job.provenance.warnings, *warnings))


def _run(
    job: Job, output_resolution: float, callback: Callback | None, sampling: Callable[[int, int], None] | None
) -> Reconstruction:
    started = time.perf_counter()
    result, verdict, judging, iterations = _judged(job, callback, sampling)
    doubt = doubt_of_thickness(result, job.stacks)
    if doubt is not None:
        logger.warning("%s", doubt)
    reconstructed = time.perf_counter()
    result, turn = turned_result(result, job.orientation, job.options.backend)
    turned = time.perf_counter()
    volume = rendered_volume(result, output_resolution, job.options)
    timings = {
        "reconstruction": reconstructed - started - judging,
        **({} if turn is None else {"orientation": turned - reconstructed}),
        "rendering": time.perf_counter() - turned,
        "verdict": judging,
    }
    return Reconstruction(job, result, volume, verdict, job.timings | timings, turn=turn, iterations=iterations)


def doubt_of_thickness(result: Result, stacks: Sequence[Stack]) -> str | None:
    """What to tell where slices were not taken for what their files say."""
    looks = result.thickness
    if looks is None or not looks.used:
        return None
    stated = float(np.median([stack.thickness for stack in stacks]))
    if looks.gaussian:
        return (
            f"slices look as if their profile were a Gaussian of {looks.factor * stated:.3g} mm (full width at half "
            f"maximum), not a slab of {stated:.3g} mm, and are taken for that; if you know better, give --profile and "
            "--thicknesses"
        )
    return (
        f"slices look {looks.factor * stated:.3g} mm thick, not {stated:.3g} mm as their files say, and are taken for "
        "that: check the thickness; if you know it, give --thicknesses"
    )


def rendered_volume(result: Result, output_resolution: float, options: SolverOptions | PublishedOptions) -> Volume:
    """The field of a result on a voxel grid, with the brain mask.

    Raises
    ------
    InputError
        If the voxel size is out of range, or the field is no image.
    """
    check_voxel_size(output_resolution)
    logger.info("rendering with the backend %s", options.backend)
    if not np.isfinite(result.field.amplitudes).all():
        raise InputError(_NOTHING)
    volume = render_volume(result.field, output_resolution, result.mask, options.masks.shown, options.backend)
    if not volume.data.any():
        raise InputError(_NOTHING)
    return volume


def _judged(
    job: Job, callback: Callback | None, sampling: Callable[[int, int], None] | None
) -> tuple[Result, Verdict, float, list[Iteration]]:
    """The result, the verdict on it, the seconds that this took, and the iterations of the result.

    If the others do not predict a stack, it may have found a place that only looked right on coarse fields: all is done
    once more, from a search for the place of every stack, and the better result counts.
    """
    stopped = False

    def heard(progress: Progress) -> None:
        nonlocal stopped
        try:
            if callback:
                callback(progress)
        except StopReconstruction:
            stopped = True
            raise

    result, iterations = _reconstructed(job, job.options, heard, sampling)
    started = time.perf_counter()
    verdict = judge(result, job.copies)
    seconds = time.perf_counter() - started
    options = job.options
    if isinstance(options, PublishedOptions) or options.search != "lost" or moving_parts(options.stages) == "none":
        return result, verdict, seconds, iterations
    odd = [stack.name for stack in verdict.evidence.stacks if stack.compared and stack.agreeing < Limits.of_stack]
    if stopped or not odd:
        return result, verdict, seconds, iterations
    logger.warning(
        "%s: most slices are not where other stacks predict them; searching for the place of every stack",
        ", ".join(odd),
    )
    again, others = _reconstructed(job, replace(options, search="all"), callback, sampling)
    started = time.perf_counter()
    second = judge(again, job.copies)
    seconds += time.perf_counter() - started
    shares = [100 * judged.evidence.agreeing for judged in (verdict, second)]
    better = shares[1] > shares[0]
    logger.info("%.0f %% of the slices lie where other stacks predict them; %.0f %% after a search", *shares)
    return (again, second, seconds, others) if better else (result, verdict, seconds, iterations)


def _reconstructed(
    job: Job,
    options: SolverOptions | PublishedOptions,
    callback: Callback | None,
    sampling: Callable[[int, int], None] | None,
) -> tuple[Result, list[Iteration]]:
    iterations: list[Iteration] = []

    def heard(progress: Progress) -> None:
        iterations.append(Iteration(progress.stage.name, float(progress.state.weights.noise), progress.seconds))
        if callback:
            callback(progress)

    if isinstance(options, PublishedOptions):
        result = reconstruct_as_published(job.slices, options, heard, job.poses)
    else:
        result = reconstruct(job.slices, options, heard, job.poses, sampling=sampling)
    if not np.isfinite(result.field.amplitudes).all():
        raise InputError(_NOTHING)
    return result, iterations
