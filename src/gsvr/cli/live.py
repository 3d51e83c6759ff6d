"""``gsvr live``: a volume after every stack, while the examination goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gsvr.render import VOXEL_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gsvr.io.dicom.peers import Peer
    from gsvr.workflows.live.arrival import Source
    from gsvr.workflows.live.returning import Returner


def live_command(
    output_dir: Annotated[Path, typer.Option(help="Folder for the outputs, one folder in it for each examination.")],
    watch: Annotated[
        Path | None,
        typer.Option(
            help="Folder that NIfTI stacks or DICOM files are written to; each folder in it, and each DICOM study, "
            "is an examination of its own."
        ),
    ] = None,
    dicom_port: Annotated[
        int | None, typer.Option(help="Port of a DICOM node that scanners send to (C-STORE). Default: none.")
    ] = None,
    ae_title: Annotated[str, typer.Option(help="Title of the DICOM node.")] = "GSVR",
    allow_peer: Annotated[
        list[str] | None,
        typer.Option(help="AET@HOST that may send; several. Default: anybody on this machine, nobody else."),
    ] = None,
    mrd_port: Annotated[
        int | None, typer.Option(help="Port of an image server for MRD (ISMRMRD) streams. Default: none.")
    ] = None,
    mrd_peer: Annotated[
        list[str] | None,
        typer.Option(help="Address that may send MRD streams; several. Default: this machine, nobody else."),
    ] = None,
    send_to: Annotated[
        str | None,
        typer.Option(
            help="AET@HOST:PORT of a DICOM node, such as a PACS, that every volume is sent to. Default: none."
        ),
    ] = None,
    dicom_patient: Annotated[
        bool, typer.Option("--dicom-patient", help="Name the patient in what is sent, as in what was received.")
    ] = False,
    http_port: Annotated[
        int | None, typer.Option(help="Port of a page that shows it all (0: a free one). Default: no page.")
    ] = None,
    http_host: Annotated[
        str, typer.Option(help="Address that the page is at; elsewhere than on this machine it takes --http-token.")
    ] = "127.0.0.1",
    http_token: Annotated[
        str | None,
        typer.Option(envvar="GSVR_HTTP_TOKEN", help="What a visitor of the page has to know: 12 characters or more."),
    ] = None,
    exit_when_idle: Annotated[
        float | None,
        typer.Option(min=0.0, help="End when nothing arrived for so many seconds and all is done. Default: go on."),
    ] = None,
    output_resolution: Annotated[float, typer.Option(help="Voxel size of the volume (mm).")] = VOXEL_SIZE,
    device: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "auto",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is decided and why.")] = False,
) -> None:
    """Reconstruct while images arrive: a volume after every stack."""
    settings = {name: value for name, value in locals().items() if name != "http_token"}  # for the record
    from rich.console import Console

    from gsvr.cli.group import typed
    from gsvr.cli.live_lines import tell
    from gsvr.cli.progress import log_to
    from gsvr.compiled.allocator import keep_freed_memory
    from gsvr.errors import InputError
    from gsvr.io.atomic import check_writable_folder
    from gsvr.io.dicom.peers import Peer
    from gsvr.io.outputs import sole_writer
    from gsvr.render.volume import check_voxel_size
    from gsvr.solver.schedule import SolverOptions
    from gsvr.workflows.live.examination import LiveOptions
    from gsvr.workflows.live.mrd_server import MrdOptions, MrdServer
    from gsvr.workflows.live.node import LiveNode
    from gsvr.workflows.live.server import PageServer, ServerOptions
    from gsvr.workflows.presets import chosen_options

    log_to(Console(stderr=True), verbose)
    if watch is None and dicom_port is None and mrd_port is None:
        raise InputError("nothing to listen to: give --watch, --dicom-port or --mrd-port")
    for option, given, needed, there in (
        ("--allow-peer", allow_peer, "--dicom-port", dicom_port is not None),
        ("--mrd-peer", mrd_peer, "--mrd-port", mrd_port is not None),
        ("--dicom-patient", dicom_patient, "--send-to", send_to is not None),
    ):
        if given and not there:
            raise InputError(f"{option} is for {needed}: give that, too")
    check_voxel_size(output_resolution)
    check_writable_folder(output_dir)
    if watch is not None and output_dir.resolve().is_relative_to(watch.resolve()):
        raise InputError(f"{output_dir} is inside the watched folder: its volumes would be taken for stacks")
    solver = chosen_options("default", None, device, 0, 0)
    assert isinstance(solver, SolverOptions)
    options = LiveOptions(solver, output_resolution, settings, _without_token(typed.get(), http_token))
    peer = None if send_to is None else Peer.parse(send_to)
    served = None if http_port is None else ServerOptions(http_port, http_host, http_token, solver.backend)
    output_dir.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    with sole_writer(output_dir / "live"):
        sources: list[Source] = [] if watch is None else [_watched_folder(output_dir, watch)]
        if dicom_port is not None:
            sources.append(_dicom_node(output_dir, dicom_port, ae_title, allow_peer or []))
        if mrd_port is not None:
            sources.append(MrdServer(output_dir, MrdOptions(mrd_port, tuple(mrd_peer or []))))
        node = LiveNode(output_dir, options, sources, tell)
        returner = None if peer is None else _returner(peer, dicom_patient, ae_title, lambda: node.examinations)
        page = None if served is None else PageServer(served, lambda: node.examinations)
        if page is not None:
            page.start()
            typer.echo(f"page: {page.address}")
        idle = False
        if returner is not None:
            returner.start()
        try:
            node.run(exit_when_idle, lambda: typer.echo(f"listening; outputs go to {output_dir}"))
            idle = True
        finally:
            if returner is not None:
                returner.stop(last_attempt=idle)
            if page is not None:
                page.stop()


def _watched_folder(output_dir: Path, folder: Path) -> Source:
    """Of NIfTI stacks, and of DICOM files where the packages for them are there."""
    from gsvr.io.dicom.installed import is_installed
    from gsvr.workflows.live.dicom_series import DicomSeries
    from gsvr.workflows.live.watched_folder import WatchedFolder

    return WatchedFolder(folder, DicomSeries(output_dir) if is_installed("pydicom") else None)


def _dicom_node(output_dir: Path, port: int, title: str, peers: list[str]) -> Source:
    """Open to the network only for peers that are named."""
    from gsvr.io.dicom.peers import Peer
    from gsvr.io.dicom.receiver import ReceiverOptions
    from gsvr.workflows.live.dicom_node import DicomNode, DicomNodeOptions

    known = tuple(Peer.parse(peer) for peer in peers)
    host = "0.0.0.0" if known else "127.0.0.1"
    return DicomNode(output_dir, DicomNodeOptions(ReceiverOptions(title, port, host, known)))


def _returner(peer: Peer, named: bool, title: str, examinations: Callable[[], Mapping[str, Any]]) -> Returner:
    """Under the title of the node, which a PACS may ask for."""
    from gsvr.workflows.live.returning import Returner, ReturnOptions

    return Returner(ReturnOptions(peer, named, title), examinations)


def _without_token(words: tuple[str, ...], token: str | None) -> str:
    """The command line for the record, which others may read."""
    from gsvr.workflows.provenance import command_line

    line = command_line(["gsvr", *words])
    return line if token is None else line.replace(token, "...")
