"""The command ``gsvr``.

The modules of the commands declare options and import what they run inside the command, so that
``gsvr --help`` answers at once.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import Annotated

import typer

from gsvr import __version__
from gsvr.cli.bids import bids_command
from gsvr.cli.dicom2bids import dicom2bids_command
from gsvr.cli.evaluate import evaluate_command
from gsvr.cli.group import INPUT_ERROR_EXIT_CODE, CommandGroup, end_like_an_interruption
from gsvr.cli.live import live_command
from gsvr.cli.mask import mask_command
from gsvr.cli.multiple import MultipleValuesCommand
from gsvr.cli.narrow import COLUMNS, IS_NARROW, ReadableCommand
from gsvr.cli.plane import plane_command
from gsvr.cli.reconstruct import reconstruct_command
from gsvr.cli.render import render_command
from gsvr.cli.report import report_command
from gsvr.cli.send import send_command
from gsvr.cli.simulate import simulate_command
from gsvr.cli.view import view_command

app = typer.Typer(
    name="gsvr",
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # a table of options would cut off their names there
    rich_markup_mode=None if IS_NARROW else "rich",
    context_settings={"help_option_names": ["-h", "--help"], "terminal_width": COLUMNS if IS_NARROW else None},
)


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"gsvr {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _gsvr(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Reconstruct a sharp 3-D volume from stacks of slices that moved, with 3-D Gaussian primitives."""


app.command("reconstruct", cls=MultipleValuesCommand)(reconstruct_command)
app.command("bids", cls=MultipleValuesCommand)(bids_command)
app.command("dicom2bids", cls=MultipleValuesCommand)(dicom2bids_command)
app.command("live", cls=MultipleValuesCommand)(live_command)
app.command("send", cls=ReadableCommand)(send_command)
app.command("mask", cls=MultipleValuesCommand)(mask_command)
app.command("render", cls=ReadableCommand)(render_command)
app.command("plane", cls=MultipleValuesCommand)(plane_command)
app.command("evaluate", cls=MultipleValuesCommand)(evaluate_command)
app.command("report", cls=MultipleValuesCommand)(report_command)
app.command("view", cls=ReadableCommand)(view_command)
app.command("simulate", cls=ReadableCommand)(simulate_command)


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, end_like_an_interruption)
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="gsvr")
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        # what is left of the output would fail again at the end of the process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"gsvr: error: standard output cannot be written ({error.strerror})", file=sys.stderr)
        sys.exit(INPUT_ERROR_EXIT_CODE)
