"""``gsvr reconstruct``: stacks in, volume out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gsvr.render import VOXEL_SIZE

if TYPE_CHECKING:
    from rich.console import Console

    from gsvr.workflows.orientation import Space
    from gsvr.workflows.outputs import OutputPaths
    from gsvr.workflows.pipeline import Job, Reconstruction


# Everything is written, and not to be trusted.
FAILED_EXIT_CODE = 3


def reconstruct_command(
    output_volume: Annotated[
        Path, typer.Option(help="Where the volume goes (.nii.gz); other outputs follow its name.")
    ],
    input_stacks: Annotated[list[Path] | None, typer.Option(help="Two or more stacks of slices (NIfTI).")] = None,
    input_slices: Annotated[
        Path | None,
        typer.Option(help="In place of stacks: folder of N.nii.gz and mask_N.nii.gz with poses in their affines."),
    ] = None,
    input_dicom: Annotated[
        list[Path] | None, typer.Option(help="In place of stacks: folders of one examination in DICOM.")
    ] = None,
    dicom_series: Annotated[
        list[int] | None,
        typer.Option(help="Numbers of the series to use. Default: those of T2-weighted slices, no localisers."),
    ] = None,
    stack_masks: Annotated[
        list[Path] | None,
        typer.Option(
            help="Brain masks, in the order of the stacks; or fewer, each on its stack's grid; or one for all; "
            "or auto. Default: the brain is found where stacks show more than it, else the foreground."
        ),
    ] = None,
    thicknesses: Annotated[
        list[float] | None,
        typer.Option(
            help="Slice thickness (mm), one for all or one a stack. Default: JSON sidecar, else slice spacing."
        ),
    ] = None,
    output_resolution: Annotated[float, typer.Option(help="Voxel size of the volume (mm).")] = VOXEL_SIZE,
    orientation: Annotated[
        str, typer.Option(help="Axes of the volume: scanner, where the stacks are; anatomical, those of the brain.")
    ] = "scanner",
    orientation_template: Annotated[
        Path | None,
        typer.Option(help="A brain (NIfTI) whose axes are the anatomical ones. Default: symmetry, shape."),
    ] = None,
    slice_order: Annotated[
        str,
        typer.Option(
            help="auto (sidecar, else interleaved), interleaved, interleaved-even-first, ascending, descending."
        ),
    ] = "auto",
    preset: Annotated[
        str, typer.Option(help="default; fast: a quarter less time; paper, published-code: slow, to compare.")
    ] = "default",
    motion: Annotated[
        str, typer.Option(help="What moves: slices; stacks as a whole; none: super-resolution alone.")
    ] = "slices",
    initial_poses: Annotated[
        Path | None, typer.Option(help="Poses to start with (JSON as --output-poses writes it). Default: the headers.")
    ] = None,
    trust_headers: Annotated[
        bool, typer.Option("--trust-headers", help="Never search for the place of a stack, nor doubt thickness.")
    ] = False,
    bias_field: Annotated[
        str, typer.Option(help="Smooth brightness of each stack (coils): auto, estimated with the volume; off.")
    ] = "auto",
    profile: Annotated[
        str | None, typer.Option(help="Slice profile: slab, slab-gaussian or gaussian. Default: the preset's.")
    ] = None,
    output_mask: Annotated[Path | None, typer.Option(help="Brain mask (.nii.gz).")] = None,
    output_poses: Annotated[Path | None, typer.Option(help="Pose of every slice (JSON).")] = None,
    output_transforms: Annotated[Path | None, typer.Option(help="Folder of ITK transforms.")] = None,
    output_model: Annotated[Path | None, typer.Option(help="The Gaussians, for gsvr render (.safetensors).")] = None,
    output_json: Annotated[Path | None, typer.Option(help="Record of the run.")] = None,
    output_picture: Annotated[Path | None, typer.Option(help="Mid-slices (PNG).")] = None,
    output_report: Annotated[Path | None, typer.Option(help="All there is to see, on one page (.html).")] = None,
    output_dicom: Annotated[
        Path | None, typer.Option(help="Folder for the volume as a derived DICOM series, without the patient's name.")
    ] = None,
    dicom_patient: Annotated[
        bool, typer.Option("--dicom-patient", help="Copy the patient from --input-dicom to --output-dicom.")
    ] = False,
    output_slices: Annotated[Path | None, typer.Option(help="Folder for the motion-corrected slices.")] = None,
    simulated_slices: Annotated[
        Path | None, typer.Option(help="Folder for the slices as the model predicts them.")
    ] = None,
    output_stack_masks: Annotated[
        Path | None, typer.Option(help="Folder for the masks that every stack started with.")
    ] = None,
    output_uncertainty: Annotated[
        Path | None, typer.Option(help="Standard deviation of every voxel (.nii.gz); takes about as long again.")
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda, cuda:1, mps (plain PyTorch), or torch (plain PyTorch on the CPU, slow)."),
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Source of all chance; recorded.")] = 0,
    no_overwrite: Annotated[
        bool, typer.Option("--no-overwrite", help="Refuse to replace files. Default: outputs of an earlier run are.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is decided and why.")] = False,
) -> None:
    """Reconstruct one sharp volume from stacks of slices of a moving subject."""
    settings = dict(locals())  # every option, for the record
    # but folders of DICOM exports are often called like the patient
    settings["input_dicom"] = [str(number) for number, _ in enumerate(input_dicom or [], 1)]
    from rich.console import Console

    from gsvr.cli.group import typed
    from gsvr.cli.progress import count_progress, log_to, say
    from gsvr.errors import InputError
    from gsvr.io.dicom.installed import require
    from gsvr.io.outputs import counted, earlier_outputs, sole_writer
    from gsvr.io.slice_folder import files_of_slices
    from gsvr.render.volume import check_voxel_size
    from gsvr.workflows.orientation import Orientation
    from gsvr.workflows.outputs import UNCERTAINTY_SAMPLES, OutputPaths, write_outputs
    from gsvr.workflows.pipeline import StackInputs, prepare
    from gsvr.workflows.presets import chosen_options
    from gsvr.workflows.provenance import command_line

    console = Console(stderr=True)
    log_to(console, verbose)
    started = time.perf_counter()
    oriented = Orientation(cast("Space", orientation), orientation_template)
    paths = OutputPaths.beside(
        *(output_volume, oriented.space),
        mask=output_mask,
        poses=output_poses,
        transforms=output_transforms,
        model=output_model,
        record=output_json,
        picture=output_picture,
        slices=output_slices,
        simulated_slices=simulated_slices,
        uncertainty=output_uncertainty,
        stack_masks=output_stack_masks,
        report=output_report,
        dicom=output_dicom,
    )
    if output_dicom is not None:
        require("pydicom")
    elif dicom_patient:
        raise InputError("`dicom_patient` is about the series in `output_dicom`: give that, too")
    automatic = stack_masks == [Path("auto")]
    masks = None if automatic else stack_masks
    inputs = StackInputs(
        *(input_stacks or [], masks, thicknesses, slice_order, input_slices),
        *(input_dicom or [], dicom_series or [], dicom_patient, initial_poses),
    )
    options = chosen_options(
        *(preset, profile, device, seed, UNCERTAINTY_SAMPLES if output_uncertainty else 0, motion, not trust_headers),
        bias_field,
    )
    if automatic:
        options = replace(options, masks=replace(options.masks, automatic="always"))
    check_voxel_size(output_resolution)
    slices = [] if input_slices is None else files_of_slices(input_slices)
    paths.check(inputs.stacks, [*inputs.masks, inputs.poses, orientation_template, *slices])
    earlier = earlier_outputs(paths.written, refuse=no_overwrite)
    with count_progress(console, "looking for the brain, step") as searching:
        job = prepare(inputs, options, searching=searching, orientation=oriented)
    if earlier:
        say(console, f"{counted(earlier)} will be replaced (--no-overwrite refuses that)")
    with sole_writer(paths.volume):
        reconstruction = _run_with_progress(console, job, output_resolution)
        write_outputs(reconstruction, paths, settings, command_line(["gsvr", *typed.get()], private="--input-dicom"))
    _summarise(reconstruction, paths, time.perf_counter() - started)
    if reconstruction.verdict.grade == "failed":
        raise typer.Exit(FAILED_EXIT_CODE)


def _run_with_progress(console: Console, job: Job, resolution: float) -> Reconstruction:
    from gsvr.cli.progress import iteration_progress
    from gsvr.compiled.allocator import keep_freed_memory
    from gsvr.workflows.pipeline import run

    keep_freed_memory()
    with iteration_progress(console) as (show, sampling):
        return run(job, resolution, lambda progress: show(progress, ""), sampling)


def _summarise(reconstruction: Reconstruction, paths: OutputPaths, seconds: float) -> None:
    """The last lines on the screen: what was made, of what, and whether to trust it."""
    from gsvr.evaluation.verdict import Limits

    result = reconstruction.result
    pixels = result.slices.sum_per_slice(result.slices.mask)
    used = pixels > 0
    doubted = int(((result.slice_weights < Limits.believed) & used).sum())
    shape = " x ".join(str(n) for n in reconstruction.volume.data.shape)
    typer.echo(f"{paths.volume}: {shape} voxels of {reconstruction.volume.spacing[0]:g} mm in {seconds:.1f} s")
    typer.echo(
        f"  {int(used.sum())} slices of {len(reconstruction.job.stacks)} stacks, {result.slices.n_pixels:,} pixels; "
        f"{doubted} of the slices fit badly and count less than half"
    )
    for label, path in (
        ("mask", paths.mask),
        ("poses", paths.poses),
        ("transforms", paths.transforms),
        ("field", paths.model),
        ("record", paths.record),
        ("picture", paths.picture),
        ("uncertainty", paths.uncertainty),
        ("stack masks", paths.stack_masks),
        ("report", paths.report),
        ("DICOM series", paths.dicom),
        ("transform from scanner coordinates", paths.orientation),
    ):
        if path is not None:
            typer.echo(f"  {label}: {path}")
    if reconstruction.turn is not None:
        typer.echo(f"orientation: {reconstruction.turn.sentence}")
    typer.echo(f"verdict: {reconstruction.verdict.sentence}")
