"""A folder of DICOM files as a BIDS data set, without anything that identifies a patient."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsvr import __version__
from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path, check_writable_folder
from gsvr.io.dicom.dcm2niix import ConversionFailed, convert
from gsvr.io.dicom.folder import read_folder
from gsvr.io.dicom.pixels import read_dicom_stack
from gsvr.io.dicom.selection import LeftOut
from gsvr.io.dicom.stacks import DicomStack
from gsvr.io.dicom.study import Study, described, studies_of
from gsvr.io.nifti import write_volume
from gsvr.io.record import write_record

logger = logging.getLogger(__name__)

_BIDS_VERSION = "1.10.0"
_LABEL = re.compile(r"[0-9A-Za-z]+")
_README = """\
Slices of fetal or neonatal MRI, converted from DICOM by gsvr {version}. Subjects are numbered in the order of their
first examination. Names, dates and descriptions were not carried over. Faces were not removed.
"""


@dataclass(frozen=True)
class BidsOptions:
    """What to call things, and what to take.

    Attributes
    ----------
    subject
        Label of the subject, if there is one patient; None: 01, 02, ... in the order of their first examination.
    session
        Label of the session, if there is one study; None: 01, 02, ... if a patient has several, else none.
    series
        Numbers of the series to take, whatever their contrast; none: T2-weighted stacks.
    dry_run
        Only tell what would be done.
    """

    subject: str | None = None
    session: str | None = None
    series: Sequence[int] = ()
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in ("subject", "session"):
            label = getattr(self, name)
            if label is not None and not _LABEL.fullmatch(label):
                raise InputError(f"`{name}` must be letters and digits, as BIDS has it, not {label[:40]!r}")


@dataclass
class BidsConversion:
    """What became of a folder.

    Attributes
    ----------
    written
        Images, relative to the data set, with what each is.
    left_out
        Stacks that were not converted, and why.
    passed_over
        Files that were no MR images, by what they are.
    broken
        Number of files that cannot be read.
    """

    written: list[tuple[Path, str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    broken: int = 0


def dicom_to_bids(
    folders: Iterable[str | Path], bids: str | Path, options: BidsOptions | None = None
) -> BidsConversion:
    """Convert the T2-weighted stacks of every study in folders.

    Parameters
    ----------
    folders
        DICOM exports.
    bids
        The data set; created if missing.
    options
        Labels and choice of series.

    Raises
    ------
    InputError
        If there is nothing to convert, or a subject or session is there already.
    InstallationError
        If a package of ``gsvr[dicom]`` is missing.
    """
    options = options or BidsOptions()
    bids, folders = Path(bids), [Path(folder) for folder in folders]
    check_writable_folder(bids)
    found = read_folder(folders)
    studies = studies_of(found, options.series)
    done = BidsConversion(passed_over=found.passed_over, broken=len(found.broken))
    done.left_out = [left for study in studies for left in study.left_out]
    _refuse_ambiguous(studies, options)
    used = [study for study in studies if study.stacks]
    if not used:
        raise InputError(f"{' '.join(map(str, folders))}: no series of T2-weighted slices to convert")
    places = [_place(study, studies, options) for study in used]
    for place in places:
        if os.path.exists(bids / place):
            raise InputError(f"{bids / place} is there already: remove it, or choose another `subject` or `session`")
    for study, place in zip(used, places, strict=True):
        for stack, stem in zip(study.stacks, _stems(study.stacks, place), strict=True):
            target = bids / place / "anat" / f"{stem}_T2w.nii.gz"
            if not options.dry_run:
                _write(stack, target)
            done.written.append((target.relative_to(bids), described(stack)))
    if not options.dry_run:
        _write_description(bids, [place.parts[0] for place in places])
    return done


def _refuse_ambiguous(studies: list[Study], options: BidsOptions) -> None:
    patients = len({study.patient for study in studies})
    if options.subject is not None and patients > 1:
        raise InputError(f"`subject` names one patient, and there are {patients}: convert them one by one")
    if options.session is not None and len(studies) > 1:
        raise InputError(f"`session` names one study, and there are {len(studies)}: convert them one by one")


def _place(study: Study, studies: list[Study], options: BidsOptions) -> Path:
    """Folder of a study in the data set."""
    width = max(2, len(str(max(other.patient for other in studies))))
    subject = options.subject or f"{study.patient:0{width}d}"
    several = sum(other.patient == study.patient for other in studies) > 1
    session = options.session or (f"{study.session:02d}" if several else None)
    return Path(f"sub-{subject}") if session is None else Path(f"sub-{subject}", f"ses-{session}")


def _stems(stacks: list[DicomStack], place: Path) -> list[str]:
    """Names of the images, runs of one orientation counted."""
    runs: Counter[str] = Counter()
    stems = []
    for stack in stacks:
        runs[stack.orientation] += 1
        stems.append("_".join([*place.parts, f"acq-{stack.orientation}", f"run-{runs[stack.orientation]}"]))
    return stems


def _write(stack: DicomStack, target: Path) -> None:
    """The image as dcm2niix makes it, or by pydicom where that fails; and its sidecar."""
    try:
        converted = convert(stack)
    except ConversionFailed as failure:
        logger.warning("%s: %s; converted with pydicom", stack.name, failure)
        read = read_dicom_stack(stack)
        indices, sidecar = list(range(read.n_slices)), _own_sidecar(stack)
        times = stack.times if read.n_slices == stack.n_slices else None
        write_volume(target, read.data, read.affine)
    else:
        indices, sidecar, times = converted.slices, converted.sidecar, stack.times
        with atomic_path(target) as temporary:
            temporary.write_bytes(converted.content)
    if stack.thickness is not None:
        sidecar["SliceThickness"] = stack.thickness
    sidecar["SpacingBetweenSlices"] = stack.spacing
    if times is not None:
        sidecar["SliceTiming"] = [float(times[index]) for index in indices]
    write_record(target.with_name(target.name.replace(".nii.gz", ".json")), sidecar)


def _own_sidecar(stack: DicomStack) -> dict[str, Any]:
    contrast = stack.contrast
    sidecar: dict[str, Any] = {"Modality": "MR", "ConversionSoftware": "gsvr", "ConversionSoftwareVersion": __version__}
    if contrast.echo_time is not None:
        sidecar["EchoTime"] = contrast.echo_time / 1000
    return sidecar


def _write_description(bids: Path, subjects: list[str]) -> None:
    """The files at the top of a data set; what is there is kept, and subjects are added."""
    if not os.path.exists(bids / "dataset_description.json"):
        description = {
            "Name": "Slices converted from DICOM",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "raw",
            "GeneratedBy": [{"Name": "gsvr", "Version": __version__}],
        }
        with atomic_path(bids / "dataset_description.json") as temporary:
            temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    if not any(os.path.exists(bids / name) for name in ("README", "README.md", "README.rst", "README.txt")):
        with atomic_path(bids / "README") as temporary:
            temporary.write_text(_README.format(version=__version__), encoding="utf-8")
    participants = bids / "participants.tsv"
    lines = participants.read_text(encoding="utf-8").splitlines() if os.path.exists(participants) else []
    header, *rows = lines or ["participant_id"]
    columns = header.split("\t")
    known = {row.split("\t")[columns.index("participant_id")] for row in rows} if "participant_id" in columns else None
    if known is None:
        logger.warning("%s has no column participant_id; subjects were not added", participants)
        return
    for subject in sorted(set(subjects) - known):
        rows.append("\t".join(subject if name == "participant_id" else "n/a" for name in columns))
    with atomic_path(participants) as temporary:
        temporary.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
