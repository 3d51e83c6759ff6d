"""A BIDS App: from a BIDS dataset to a derivative dataset of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gsvr.errors import InputError
from gsvr.io.atomic import check_writable_folder
from gsvr.io.bids import BidsSelection, find_sessions
from gsvr.io.bids_derivative import write_description
from gsvr.io.outputs import same_file
from gsvr.io.sidecar import acquisition_times
from gsvr.render.volume import check_voxel_size
from gsvr.workflows.bids_examination import BidsExamination, ReconstructionSettings
from gsvr.workflows.bids_validation import refuse_invalid_dataset


def plan_examinations(
    source: Path,
    output: Path,
    selection: BidsSelection,
    settings: ReconstructionSettings,
    derivatives: Sequence[Path] | None = None,
    validate: bool = True,
) -> list[BidsExamination]:
    """What there is to reconstruct; the derivative dataset is described, and empty as yet.

    Parameters
    ----------
    source
        Folder of the BIDS dataset.
    output
        Folder of the derivative dataset; created if missing.
    derivatives
        See `gsvr.io.bids.find_sessions`.
    validate
        Ask the BIDS validator first, if there is one.

    Raises
    ------
    InputError
        If the dataset or an option cannot be used, or the folder for the output cannot be written.
    """
    check_settings(settings)
    if same_file(source) == same_file(output):
        raise InputError(f"{output} is the dataset itself: give another folder, such as {output / 'derivatives/gsvr'}")
    check_writable_folder(output)
    sessions = find_sessions(source, selection, derivatives)
    if validate:
        refuse_invalid_dataset(source)
    write_description(output, source)
    return [BidsExamination(source, output, session, settings) for session in sessions]


def check_settings(settings: ReconstructionSettings) -> None:
    """Refuse what would fail in every session.

    Raises
    ------
    InputError
        For a word that is none of the choices, a combination that does not exist, or a voxel size out of range.
    """
    check_voxel_size(settings.output_resolution)
    _ = settings.options
    acquisition_times(settings.slice_order, 2)
