"""What a BIDS dataset holds for a reconstruction: T2-weighted runs, session by session, with their masks."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gsvr.errors import InputError
from gsvr.io.bids_names import BidsName, parse_name
from gsvr.io.sidecar import read_json_object

logger = logging.getLogger(__name__)

DESCRIPTION = "dataset_description.json"
_IMAGES = (".nii.gz", ".nii")
# In the names of masks only: they tell how a mask was made, not of which run it is.
_OF_DERIVATIVES = ("space", "res", "den", "label", "desc")


@dataclass(frozen=True)
class BidsRun:
    """One stack.

    Attributes
    ----------
    path
        NIfTI file.
    name
        Its parts.
    mask
        Brain mask of this run, or None.
    """

    path: Path
    name: BidsName
    mask: Path | None = None


@dataclass(frozen=True)
class BidsSession:
    """The runs of a subject that belong together.

    Attributes
    ----------
    subject, session
        Labels without ``sub-`` and ``ses-``; None: the dataset has no sessions.
    runs
        By name.
    """

    subject: str
    session: str | None
    runs: tuple[BidsRun, ...]

    @property
    def name(self) -> str:
        """As file names begin: ``sub-01_ses-02``."""
        return self.folder.as_posix().replace("/", "_")

    @property
    def folder(self) -> Path:
        """Relative to the dataset: ``sub-01/ses-02``."""
        return Path(f"sub-{self.subject}", *([] if self.session is None else [f"ses-{self.session}"]))


@dataclass(frozen=True)
class BidsSelection:
    """What is wanted of a dataset; an empty tuple wants everything.

    Attributes
    ----------
    participants, sessions, acquisitions
        Labels, with or without ``sub-``, ``ses-``, ``acq-``.
    """

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    acquisitions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, key in (("participants", "sub-"), ("sessions", "ses-"), ("acquisitions", "acq-")):
            object.__setattr__(self, name, tuple(label.removeprefix(key) for label in getattr(self, name)))


def find_sessions(
    root: Path, selection: BidsSelection = BidsSelection(), derivatives: Sequence[Path] | None = None
) -> list[BidsSession]:
    """All sessions with T2-weighted runs, by name.

    Runs with a ``part`` other than the magnitude are left out, and so are those with ``rec`` where there are runs
    without: they are the same recordings again, or volumes that were made of them.

    Parameters
    ----------
    root
        Folder of the dataset.
    selection
        What of it is wanted.
    derivatives
        Datasets with masks, the first that has one counts; default: everything in ``root/derivatives``, where only one
        may have one. A mask beside its run counts before those.

    Raises
    ------
    InputError
        If this is no dataset, labels that are asked for are not there, nothing is found, or it is open which mask is
        meant.
    """
    if not root.is_dir():
        raise InputError(f"{root} does not exist or is no folder: give the folder of a BIDS dataset")
    if not (root / DESCRIPTION).is_file():
        raise InputError(f"{root} holds no {DESCRIPTION}: give the folder of a BIDS dataset")
    if read_json_object(root / DESCRIPTION).get("DatasetType") == "derivative":
        raise InputError(f"{root} is a derivative, not the scans themselves: give the folder of the dataset above it")
    for folder in derivatives or ():
        if not folder.is_dir():
            raise InputError(f"{folder} does not exist or is no folder: give the folder of a derivative dataset")
    sessions = list(_sessions(root))
    _check_labels(sessions, selection)
    given = derivatives if derivatives is not None else _datasets_in(root / "derivatives")
    chosen: list[BidsSession] = []
    for session in sessions:
        if selection.participants and session.subject not in selection.participants:
            continue
        if selection.sessions and session.session not in selection.sessions:
            continue
        runs = _wanted_runs(session, selection)
        if runs:
            masks = _masks(root, session, given, first_counts=derivatives is not None)
            runs = [replace(run, mask=masks.get(run.name.without())) for run in runs]
            chosen.append(replace(session, runs=tuple(runs)))
    if not chosen:
        raise InputError(f"{root} holds no T2-weighted run (sub-*/[ses-*/]anat/*_T2w.nii.gz) of what is asked for")
    return chosen


def _sessions(root: Path) -> Iterator[BidsSession]:
    for subject in _folders(root, "sub-"):
        with_sessions = [(folder, folder.name[4:]) for folder in _folders(subject, "ses-")]
        for folder, session in with_sessions or [(subject, None)]:
            runs = []
            for path, name in _named_files(folder / "anat"):
                if name.suffix == "T2w" and name.extension in _IMAGES:
                    if name.get("sub") == subject.name[4:] and name.get("ses") == session:
                        runs.append(BidsRun(path, name))
                    else:
                        logger.warning("%s is left out: it lies in the folder of another subject or session", path)
            if runs:
                yield BidsSession(subject.name[4:], session, tuple(runs))


def _wanted_runs(session: BidsSession, selection: BidsSelection) -> list[BidsRun]:
    runs = list(session.runs)
    if selection.acquisitions:
        runs = [run for run in runs if run.name.get("acq") in selection.acquisitions]
    magnitudes = [run for run in runs if run.name.get("part") in (None, "mag")]
    plain = [run for run in magnitudes if run.name.get("rec") is None] or magnitudes
    for run in runs:
        if run not in plain:
            reason = "it is made of the other runs (rec-)" if run in magnitudes else "it is no magnitude image"
            logger.info("%s is left out: %s", run.path, reason)
    return plain


def _check_labels(sessions: Sequence[BidsSession], selection: BidsSelection) -> None:
    there = {
        "sub": {session.subject for session in sessions},
        "ses": {session.session for session in sessions},
        "acq": {run.name.get("acq") for session in sessions for run in session.runs},
    }
    asked = (
        ("sub", selection.participants, "participant_label"),
        ("ses", selection.sessions, "session_label"),
        ("acq", selection.acquisitions, "acquisition_label"),
    )
    for key, labels, argument in asked:
        missing = [label for label in labels if label not in there[key]]
        if missing:
            raise InputError(f"`{argument}` {missing[0]}: the dataset has no T2-weighted run with {key}-{missing[0]}")


def _masks(
    root: Path, session: BidsSession, derivatives: Sequence[Path], first_counts: bool
) -> dict[frozenset[tuple[str, str]], Path]:
    """The brain masks of a session, by the entities of the run that they belong to."""
    found: dict[frozenset[tuple[str, str]], Path] = {}
    home: dict[frozenset[tuple[str, str]], Path] = {}
    for dataset in (root, *derivatives):
        here: dict[frozenset[tuple[str, str]], list[Path]] = defaultdict(list)
        for path, name in _named_files(dataset / session.folder / "anat"):
            if name.suffix == "mask" and name.extension in _IMAGES and name.get("desc") in (None, "brain"):
                here[name.without(*_OF_DERIVATIVES)].append(path)
        for key, paths in here.items():
            if len(paths) > 1:
                raise InputError(f"{paths[0]} and {paths[1].name} are masks of the same run: remove one")
            if key in found and home[key] != root and not first_counts:
                raise InputError(
                    f"{found[key]} and {paths[0]} are masks of one run: say with `derivatives` whose count"
                )
            if key not in found:
                found[key], home[key] = paths[0], dataset
    return found


def _datasets_in(folder: Path) -> list[Path]:
    return [path for path in _folders(folder, "") if not path.name.startswith(".")]


def _folders(folder: Path, prefix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    names = sorted(name for name in os.listdir(folder) if name.startswith(prefix) and name != prefix)
    return [folder / name for name in names if (folder / name).is_dir()]


def _named_files(folder: Path) -> Iterator[tuple[Path, BidsName]]:
    if not folder.is_dir():
        return
    for file in sorted(os.listdir(folder)):
        name = parse_name(file)
        if name is not None and (folder / file).is_file():
            yield folder / file, name
