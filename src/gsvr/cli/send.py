"""``gsvr send``: the volume of a live examination to a PACS, on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def send_command(
    examination: Annotated[
        Path, typer.Argument(metavar="EXAMINATION", help="Folder of an examination that gsvr live made.")
    ],
    to: Annotated[str, typer.Option(help="AET@HOST:PORT of a DICOM node, such as a PACS.")],
    ae_title: Annotated[str, typer.Option(help="Title of this side.")] = "GSVR",
    dicom_patient: Annotated[
        bool, typer.Option("--dicom-patient", help="Name the patient, as in what was received.")
    ] = False,
) -> None:
    """Send the volume of an examination as a DICOM series (C-STORE)."""
    from gsvr.errors import InputError
    from gsvr.io.dicom.installed import require
    from gsvr.io.dicom.peers import Peer
    from gsvr.io.dicom.sender import SenderOptions, send
    from gsvr.workflows.live.returning import instances_of

    peer, options = Peer.parse(to), SenderOptions(ae_title)
    require("pynetdicom", "live")
    if not (examination / "journal.jsonl").is_file():
        raise InputError(f"{examination} is no examination of gsvr live: give one of the folders in its output folder")
    sent = send(instances_of(examination, dicom_patient), peer, options)
    typer.echo(f"{sent} images were sent to {peer}")
