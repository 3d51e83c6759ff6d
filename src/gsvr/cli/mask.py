"""``gsvr mask``: find the brain in stacks, to look at the masks and correct them before a reconstruction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def mask_command(
    output_dir: Annotated[Path, typer.Option(help="Folder for the masks, <stack>_mask.nii.gz; created if missing.")],
    stacks: Annotated[
        list[Path] | None, typer.Argument(metavar="[STACKS]", help="Stacks of slices of one subject (NIfTI).")
    ] = None,
    input_dicom: Annotated[
        list[Path] | None, typer.Option(help="In place of stacks: folders of one examination in DICOM.")
    ] = None,
    dicom_series: Annotated[
        list[int] | None,
        typer.Option(help="Numbers of the series to use. Default: those of T2-weighted slices, no localisers."),
    ] = None,
    output_picture: Annotated[
        Path | None, typer.Option(help="Mid-slices of every stack with the mask outlined (PNG).")
    ] = None,
    no_overwrite: Annotated[
        bool, typer.Option("--no-overwrite", help="Refuse to replace files, such as masks corrected by hand.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is decided and why.")] = False,
) -> None:
    """Find the brain in stacks that show a mother around it. Several stacks of one subject help each other."""
    from rich.console import Console

    from gsvr.cli.progress import count_progress, log_to, say
    from gsvr.io.atomic import check_writable_folder
    from gsvr.io.nifti import stack_name
    from gsvr.io.outputs import counted, earlier_outputs, refuse_overwriting
    from gsvr.io.sidecar import sidecar_path
    from gsvr.masks.options import MaskOptions
    from gsvr.model.volume import Volume
    from gsvr.report.picture import PictureOptions, check_picture_path, save_mid_slices
    from gsvr.workflows.inputs import StackInputs, read_acquired
    from gsvr.workflows.outputs import mask_paths, write_stack_masks
    from gsvr.workflows.stack_masks import masks_to_start_with

    console = Console(stderr=True)
    log_to(console, verbose)
    check_writable_folder(output_dir)
    if output_picture is not None:
        check_picture_path(output_picture)
    inputs = StackInputs(stacks or (), dicom=input_dicom or (), dicom_series=dicom_series or ())
    written = mask_paths(output_dir, map(stack_name, inputs.stacks))
    pictures = [] if output_picture is None else [output_picture]
    refuse_overwriting([*written, *pictures], [*inputs.stacks, *map(sidecar_path, inputs.stacks)])
    read = read_acquired(inputs)
    earlier = earlier_outputs([*mask_paths(output_dir, (stack.name for stack in read)), *pictures], no_overwrite)
    if earlier:
        say(console, f"{counted(earlier)} will be replaced (--no-overwrite refuses that)")
    with count_progress(console, "looking for the brain, step") as searching:
        masks = masks_to_start_with(read, MaskOptions(automatic="always"), searching=searching)
    paths = write_stack_masks(output_dir, read, masks)
    for path, stack, mask, found in zip(paths, read, masks.masks, masks.found, strict=True):
        volume = mask.sum() * float(stack.spacing.prod()) / 1000
        doubt = "" if found else "  (borrowed from the other stacks: look at it)"
        typer.echo(f"{path}: {volume:.0f} ml in {int(mask.any(axis=(0, 1)).sum())} of {stack.n_slices} slices{doubt}")
    if output_picture is not None:
        rows = [
            (stack.name, Volume(stack.data, stack.affine, mask)) for stack, mask in zip(read, masks.masks, strict=True)
        ]
        options = PictureOptions(shared_window=False, shared_position=False, outline=True, margin=30.0)
        save_mid_slices(output_picture, rows, options)
        typer.echo(f"  picture: {output_picture}")
