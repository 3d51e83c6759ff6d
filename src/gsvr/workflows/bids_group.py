"""All sessions of a derivative dataset on one page and in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.io.bids import DESCRIPTION, BidsSession
from gsvr.io.sidecar import read_json_object
from gsvr.report.group_page import GroupRow, group_row, write_group_page, write_group_table
from gsvr.workflows.bids_app import NOT_RECONSTRUCTED
from gsvr.workflows.bids_examination import BidsExamination
from gsvr.workflows.stored import stored_examination


@dataclass(frozen=True)
class GroupFiles:
    """What is written.

    Attributes
    ----------
    page
        HTML.
    table
        TSV.
    """

    page: Path
    table: Path


def write_group(examinations: Sequence[BidsExamination], logs: Path) -> tuple[GroupFiles, list[GroupRow]]:
    """Write ``group.html`` and ``group.tsv`` into the derivative dataset.

    Parameters
    ----------
    examinations
        All that should be there, in one derivative dataset.
    logs
        Folder with the logs of those that were not reconstructed.

    Raises
    ------
    InputError
        If none of them has been reconstructed.
    """
    output, source = examinations[0].output, examinations[0].source
    rows = parallel_map(lambda examination: _row(examination, logs), examinations)
    if not any(row.planes for row in rows):
        raise InputError(f"{output} holds no reconstruction of these sessions: run the level participant first")
    files = GroupFiles(output / "group.html", output / "group.tsv")
    write_group_page(files.page, str(read_json_object(source / DESCRIPTION).get("Name") or "unnamed dataset"), rows)
    write_group_table(files.table, rows)
    return files, rows


def _row(examination: BidsExamination, logs: Path) -> GroupRow:
    """What the files of a session tell; its stacks are not read."""
    session = examination.session
    report = examination.paths.report
    assert report is not None
    try:
        stored = stored_examination(examination.paths.record, with_slices=False)
    except InputError:
        return GroupRow(session.subject, session.session or "", "none", [_reason(session, logs)])
    return group_row(session.subject, session.session or "", stored, report.name if report.is_file() else "")


def _reason(session: BidsSession, logs: Path) -> str:
    """The last word of its log."""
    log = logs / f"{session.name}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1].partition(NOT_RECONSTRUCTED)[2] if lines and NOT_RECONSTRUCTED in lines[-1] else "not run yet"
