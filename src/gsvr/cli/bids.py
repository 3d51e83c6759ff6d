"""``gsvr bids``: a BIDS App, from a BIDS dataset to a derivative dataset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gsvr.render import VOXEL_SIZE


class Level(StrEnum):
    """Levels of analysis of a BIDS App."""

    participant = "participant"


def bids_command(
    bids_dir: Annotated[Path, typer.Argument(metavar="BIDS_DIR", help="A BIDS dataset.")],
    output_dir: Annotated[
        Path, typer.Argument(metavar="OUTPUT_DIR", help="Where the derivative dataset goes; created if missing.")
    ],
    level: Annotated[Level, typer.Argument(metavar="LEVEL", help="participant: reconstruct every session.")],
    participant_label: Annotated[list[str] | None, typer.Option(help="Only these subjects.")] = None,
    session_label: Annotated[list[str] | None, typer.Option(help="Only these sessions.")] = None,
    acquisition_label: Annotated[list[str] | None, typer.Option(help="Only runs with these acq- labels.")] = None,
    derivatives: Annotated[
        list[Path] | None, typer.Option(help="Datasets with brain masks. Default: all in BIDS_DIR/derivatives.")
    ] = None,
    find_masks: Annotated[
        bool, typer.Option("--find-masks", help="Find the brain automatically, and use no masks of the dataset.")
    ] = False,
    output_resolution: Annotated[float, typer.Option(help="Voxel size of the volumes (mm).")] = VOXEL_SIZE,
    slice_order: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "auto",
    preset: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "default",
    motion: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "slices",
    profile: Annotated[str | None, typer.Option(help="As for gsvr reconstruct.")] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also the standard deviation of every voxel; doubles the time.")
    ] = False,
    device: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Source of all chance; recorded.")] = 0,
    skip_bids_validation: Annotated[
        bool, typer.Option("--skip-bids-validation", help="Do not ask the BIDS validator first.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is decided and why.")] = False,
) -> None:
    """Reconstruct every session of a BIDS dataset."""
    from rich.console import Console

    from gsvr.cli.group import typed
    from gsvr.cli.progress import iteration_progress, log_to
    from gsvr.io.bids import BidsSelection
    from gsvr.workflows.bids_app import plan_examinations
    from gsvr.workflows.bids_examination import ReconstructionSettings, reconstruct_examination
    from gsvr.workflows.provenance import command_line

    console = Console(stderr=True)
    log_to(console, verbose)
    selection = BidsSelection(
        *(tuple(labels or ()) for labels in (participant_label, session_label, acquisition_label)),
    )
    settings = ReconstructionSettings(
        *(output_resolution, slice_order, preset, motion, profile, device, seed, uncertainty, find_masks)
    )
    examinations = plan_examinations(
        bids_dir, output_dir, selection, settings, derivatives, validate=not skip_bids_validation
    )
    command = command_line(["gsvr", *typed.get()])
    for examination in examinations:
        with iteration_progress(console) as show:
            verdict = reconstruct_examination(examination, lambda progress, show=show: show(progress, ""), 0.0, command)
        typer.echo(f"{examination.name}: {'done before' if verdict is None else verdict.sentence}")
