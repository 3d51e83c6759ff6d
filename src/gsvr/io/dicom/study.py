"""The studies in a folder, and of each the stacks that a reconstruction can use."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gsvr.errors import InputError
from gsvr.io.dicom.folder import DicomFolder, read_folder
from gsvr.io.dicom.selection import LeftOut, select, too_small
from gsvr.io.dicom.stacks import DicomStack, stacks_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """One examination of one patient.

    Attributes
    ----------
    patient
        Number of the patient in the folder, from 1.
    session
        Number of the study of this patient, from 1, by date.
    stacks
        What can be used, in the order of the series.
    left_out
        What cannot, and why.
    """

    patient: int
    session: int
    stacks: list[DicomStack]
    left_out: list[LeftOut]


def studies_of(folder: DicomFolder, series: Sequence[int] = ()) -> list[Study]:
    """Sort what was read into studies, in the order of patients by their first study.

    Parameters
    ----------
    folder
        What was read.
    series
        Numbers of the series to use, whatever their contrast; none: those that `select` finds fit.
    """
    by_study: dict[tuple[str, str], list[DicomStack]] = {}
    for stack in stacks_of(folder.frames):  # sorted by date
        by_study.setdefault((stack.first.patient, stack.first.study), []).append(stack)
    patients: list[str] = []
    sessions: dict[str, int] = {}
    studies: list[Study] = []
    for (patient, _), stacks in by_study.items():
        if patient not in patients:
            patients.append(patient)
        sessions[patient] = sessions.get(patient, 0) + 1
        chosen, left_out = _asked_for(stacks, series) if series else select(stacks)
        studies.append(Study(patients.index(patient) + 1, sessions[patient], _distinctly_named(chosen), left_out))
    return sorted(studies, key=lambda study: (study.patient, study.session))


def read_study(folders: Iterable[str | Path], series: Sequence[int] = ()) -> Study:
    """The one study in folders; says in the log what is left out, and why.

    Parameters
    ----------
    folders
        Folders of a DICOM export, or files.
    series
        See `studies_of`.

    Raises
    ------
    InputError
        If there is none, or more than one; if a series that was asked for is not there.
    """
    folders = [Path(folder) for folder in folders]
    names = " ".join(map(str, folders))
    found = read_folder(folders)
    studies = studies_of(found, series)
    for kind, number in found.passed_over.items():
        logger.info("%d file%s passed over: %s", number, "" if number == 1 else "s", kind)
    if not studies:
        kinds = ", ".join(f"{number} with {kind}" for kind, number in found.passed_over.most_common(3))
        raise InputError(f"{names}: no MR images among the files{f' ({kinds})' if kinds else ''}: give a DICOM export")
    if len(studies) > 1:
        patients = len({study.patient for study in studies})
        whose = f"{patients} patients" if patients > 1 else "one patient"
        raise InputError(
            f"{names} holds {len(studies)} studies of {whose}: give the folder of one, or convert all with gsvr "
            "dicom2bids"
        )
    study = studies[0]
    for other in study.left_out:
        logger.warning("%s left out: %s", described(other.stack), other.reason)
    missing = sorted(set(series) - {stack.first.series_number for stack in study.stacks})
    if missing:
        raise InputError(f"{names} holds no stack in series {missing[0]}: look at the numbers with -v")
    if not study.stacks:
        raise InputError(f"{names}: none of the series can be used: choose some by number if they can all the same")
    if len({stack.first.frame_of_reference for stack in study.stacks}) > 1:
        logger.warning("the stacks have several frames of reference: the patient may have been moved between them")
    for stack in study.stacks:
        logger.info("%s", described(stack))
    return study


def described(stack: DicomStack) -> str:
    """What a stack is, in words that tell nothing of the patient."""
    spacing = stack.first.spacing
    times = "times of slices known" if stack.times is not None else "times of slices unknown"
    thick = "thickness unknown" if stack.thickness is None else f"{stack.thickness:.3g} mm thick"
    return (
        f"{stack.name}: {stack.n_slices} slices of {stack.first.shape[0]} x {stack.first.shape[1]} pixels of "
        f"{spacing[0]:.3g} x {spacing[1]:.3g} mm, {thick}, {stack.spacing:.3g} mm apart, {times}"
    )


def _asked_for(stacks: list[DicomStack], series: Sequence[int]) -> tuple[list[DicomStack], list[LeftOut]]:
    chosen: list[DicomStack] = []
    left_out: list[LeftOut] = []
    for stack in stacks:
        reason = too_small(stack) if stack.first.series_number in series else "not asked for"
        if reason is None:
            chosen.append(stack)
        else:
            left_out.append(LeftOut(stack, reason))
    return chosen, left_out


def _distinctly_named(stacks: list[DicomStack]) -> list[DicomStack]:
    """Series of one number, which scanners should not have, become parts."""
    names = [stack.name for stack in stacks]
    return [
        DicomStack(stack.frames, 1000 + number) if names.count(stack.name) > 1 else stack
        for number, stack in enumerate(stacks)
    ]
