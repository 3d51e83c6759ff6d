"""``gsvr report``: the page that shows a reconstruction, made anew from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="What gsvr reconstruct wrote (.json).")],
    output_report: Annotated[
        Path | None, typer.Option(help="Where the page goes (.html). Default: beside the record, with its name.")
    ] = None,
    input_stacks: Annotated[
        list[Path] | None, typer.Option(help="The stacks. Default: those beside the record, or here.")
    ] = None,
    input_dicom: Annotated[
        list[Path] | None, typer.Option(help="The examination in DICOM, if the stacks were read from that.")
    ] = None,
) -> None:
    """Show a reconstruction on one page: verdict, before and after, motion, every slice."""
    from jinja2 import UndefinedError
    from rich.console import Console

    from gsvr.cli.progress import log_to
    from gsvr.errors import InputError
    from gsvr.io.outputs import refuse_overwriting
    from gsvr.report.page import check_report_path, write_report
    from gsvr.workflows.stored import stored_examination

    log_to(Console(stderr=True), verbose=False)
    target = record.with_suffix(".html") if output_report is None else output_report
    check_report_path(target)
    refuse_overwriting([target], [record, *(input_stacks or [])])
    try:
        examination = stored_examination(record, input_stacks or [], input_dicom=input_dicom or [])
        write_report(target, examination)
    except InputError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, UndefinedError) as error:
        # hundreds of values, any of which an editor may have changed
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        raise InputError(f"{record} is damaged ({reason}): reconstruct again") from error
    without = "  (without its slices: give the stacks with --input-stacks or --input-dicom)"
    typer.echo(f"{target}{without if examination.acquisition is None else ''}")
