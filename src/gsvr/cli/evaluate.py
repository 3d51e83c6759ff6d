"""``gsvr evaluate``: how good a reconstruction is, against the truth or, where there is none, from its stacks alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate_command(
    reconstruction: Annotated[
        Path | None, typer.Argument(metavar="[RECONSTRUCTION]", help="NIfTI volume to compare with --truth.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="NIfTI volume it should be, of any grid and position.")] = None,
    truth_mask: Annotated[
        Path | None, typer.Option(help="Mask of the truth: where it counts. Default: where it is not zero.")
    ] = None,
    poses: Annotated[Path | None, typer.Option(help="Estimated poses of the slices (JSON).")] = None,
    true_poses: Annotated[
        Path | None,
        typer.Option(help="True poses (JSON); stacks and masks beside the file tell the pixels of a slice."),
    ] = None,
    align: Annotated[
        bool,
        typer.Option("--align/--no-align", help="Bring the reconstruction onto the truth rigidly first."),
    ] = True,
    input_stacks: Annotated[
        list[Path] | None,
        typer.Option(help="Without a truth: three or more stacks (NIfTI), each predicted from the others."),
    ] = None,
    input_dicom: Annotated[
        list[Path] | None, typer.Option(help="In place of stacks: folders of one examination in DICOM.")
    ] = None,
    dicom_series: Annotated[
        list[int] | None, typer.Option(help="Numbers of the series to use, as for gsvr reconstruct.")
    ] = None,
    stack_masks: Annotated[
        list[Path] | None, typer.Option(help="Brain masks of the stacks, as for gsvr reconstruct.")
    ] = None,
    thicknesses: Annotated[
        list[float] | None, typer.Option(help="Slice thickness (mm) of the stacks, as for gsvr reconstruct.")
    ] = None,
    slice_order: Annotated[
        str | None, typer.Option(help="Acquisition order of the stacks, as for gsvr reconstruct. Default: auto.")
    ] = None,
    output_json: Annotated[Path | None, typer.Option(help="Write all numbers to this file.")] = None,
    output_picture: Annotated[
        Path | None,
        typer.Option(help="Write mid-slices (PNG): truth, reconstruction and difference, or stacks and predictions."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is decided and why.")] = False,
) -> None:
    """Compare a reconstruction with the truth, or see how well stacks predict each other.

    With --truth: the volume; with --poses and --true-poses the poses of its slices, also without a volume. One rigid
    motion, one gain and one offset of the volume are free in slice-to-volume reconstruction: they are fitted first.
    The poses are freed of a rigid motion of their own.

    With --input-stacks or --input-dicom: each stack in turn is left out, a volume is made of the others, only the poses
    and gains of the slices left out are fitted to it, and its prediction of them is compared with what was measured.
    """
    from rich.console import Console

    from gsvr.cli.progress import log_to
    from gsvr.io.atomic import check_writable_file
    from gsvr.io.outputs import refuse_overwriting
    from gsvr.io.record import versions, write_record
    from gsvr.io.sidecar import sidecar_path
    from gsvr.report.picture import check_picture_path

    files = {"RECONSTRUCTION": reconstruction, "--truth": truth}
    more_files = {"--truth-mask": truth_mask, "--poses": poses, "--true-poses": true_poses}
    stacks_from = "--input-stacks" if input_stacks else "--input-dicom" if input_dicom else None
    of_volume = {"--no-align": not align, "--output-picture": bool(output_picture) and not stacks_from}
    _check_mode(
        files | more_files | of_volume,
        {
            "--dicom-series": dicom_series,
            "--stack-masks": stack_masks,
            "--thicknesses": thicknesses,
            "--slice-order": slice_order,
        },
        stacks_from,
    )
    if output_json is not None:
        check_writable_file(output_json)
    if output_picture is not None:
        check_picture_path(output_picture)
    written = [path for path in (output_json, output_picture) if path is not None]
    if written:
        stacks = input_stacks or []
        read = [reconstruction, truth, truth_mask, poses, true_poses, *stacks, *(stack_masks or [])]
        refuse_overwriting(written, [*read, *_files_beside(true_poses), *map(sidecar_path, stacks)])
    screen, errors = Console(), Console(stderr=True)
    log_to(errors, verbose)
    if stacks_from:
        from gsvr.cli.evaluate_holdout import evaluate_holdout
        from gsvr.workflows.pipeline import StackInputs

        inputs = StackInputs(
            *(input_stacks or [], stack_masks or [], thicknesses or [], slice_order or "auto"),
            dicom=input_dicom or [],
            dicom_series=dicom_series or [],
        )
        record, tables = evaluate_holdout(inputs, errors, output_picture)
    else:
        from gsvr.cli.evaluate_truth import evaluate_poses, evaluate_truth

        if reconstruction is None or truth is None:
            assert poses is not None
            assert true_poses is not None
            record, tables = evaluate_poses(poses, true_poses, truth, truth_mask)
        else:
            record, tables = evaluate_truth(reconstruction, truth, truth_mask, poses, true_poses, align, output_picture)
    if output_json is not None:
        write_record(output_json, record | {"versions": versions()})
    for table in tables:
        screen.print(table)


def _files_beside(true_poses: Path | None) -> list[Path]:
    """What tells the pixels of the slices."""
    if true_poses is None:
        return []
    from gsvr.cli.evaluate_poses import files_beside

    return files_beside(true_poses)


def _check_mode(of_truth: dict[str, Any], of_stacks: dict[str, Any], stacks: str | None) -> None:
    """Refuse options that do not go together, naming them."""
    from gsvr.errors import InputError

    given_of_truth = [name for name, value in of_truth.items() if value]
    given_of_stacks = [name for name, value in of_stacks.items() if value]
    if stacks and given_of_truth:
        raise InputError(
            f"{stacks} does not go with {' and '.join(given_of_truth)}: stacks are predicted from each other, "
            "without a truth; run the two evaluations one after the other"
        )
    if stacks:
        return
    if given_of_stacks:
        raise InputError(f"{' and '.join(given_of_stacks)} given without --input-stacks: give the stacks as well")
    if not given_of_truth:
        raise InputError(
            "nothing to evaluate: give a RECONSTRUCTION and --truth, or --poses and --true-poses, or, without a truth, "
            "three or more --input-stacks"
        )
    of_volume = ("RECONSTRUCTION", "--no-align", "--output-picture")
    if any(of_truth[name] for name in of_volume) or not (of_truth["--poses"] or of_truth["--true-poses"]):
        for name in ("RECONSTRUCTION", "--truth"):
            if not of_truth[name]:
                raise InputError(f"{name} is missing: a reconstruction is compared with the truth, give both")
    if of_truth["--truth-mask"] and not of_truth["--truth"]:
        raise InputError("--truth-mask given without --truth: give the volume that it is the mask of as well")
    if bool(of_truth["--poses"]) != bool(of_truth["--true-poses"]):
        raise InputError("poses are compared with true ones: give both --poses and --true-poses, or neither")
