"""``gsvr dicom2bids``: DICOM exports in, a BIDS data set out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dicom2bids_command(
    dicom_dir: Annotated[Path, typer.Argument(help="Folder of DICOM files, of one patient or many.")],
    bids_dir: Annotated[Path, typer.Argument(help="The BIDS data set; created if missing.")],
    subject: Annotated[
        str | None, typer.Option(help="Label of the subject, if there is one patient. Default: 01, 02, ...")
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="Label of the session, if there is one study. Default: 01, ... if several.")
    ] = None,
    series: Annotated[
        list[int] | None,
        typer.Option(help="Numbers of the series to use. Default: those of T2-weighted slices, no localisers."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is decided and why.")] = False,
) -> None:
    """Convert T2-weighted stacks of slices from DICOM to BIDS, without anything that identifies a patient."""
    from rich.console import Console

    from gsvr.cli.progress import log_to
    from gsvr.workflows.dicom_to_bids import BidsOptions, dicom_to_bids

    log_to(Console(stderr=True), verbose)
    done = dicom_to_bids([dicom_dir], bids_dir, BidsOptions(subject, session, series or (), dry_run))
    for path, what in done.written:
        typer.echo(f"{path}: {what}")
    for left in done.left_out:
        typer.echo(f"left out: {left.stack.name}, {left.stack.n_slices} slices: {left.reason}")
    for kind, number in done.passed_over.items():
        typer.echo(f"passed over: {number} file{'' if number == 1 else 's'}, {kind}")
    if done.broken:
        typer.echo(f"broken: {done.broken} file{'' if done.broken == 1 else 's'}, see the warnings")
