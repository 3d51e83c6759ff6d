"""A BIDS App: from a BIDS dataset to a derivative dataset of volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.evaluation.verdict import Grade
from gsvr.io.atomic import check_writable_folder
from gsvr.io.bids import BidsSelection, find_sessions
from gsvr.io.bids_derivative import write_description
from gsvr.io.outputs import same_file
from gsvr.io.sidecar import acquisition_times
from gsvr.render.volume import check_voxel_size
from gsvr.workflows import bids_process
from gsvr.workflows.batch import BatchOptions, BatchProgress, Outcome, Task, Workers, run_batch
from gsvr.workflows.bids_examination import BidsExamination, ReconstructionSettings
from gsvr.workflows.bids_validation import refuse_invalid_dataset
from gsvr.workflows.memory import estimated_memory

# Begins the last line of the log of a session of which there is no volume.
NOT_RECONSTRUCTED = "not reconstructed: "
# Seconds that a session waits for another run where there is no time limit.
_LONG = 86400.0


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


@dataclass(frozen=True)
class SessionOutcome:
    """What became of a session.

    Attributes
    ----------
    name
        Of the session.
    grade
        Of its verdict; None: it was not reconstructed.
    sentence
        The verdict, or why there is none.
    seconds
        Wall time of the last attempt; 0: it was done before.
    """

    name: str
    grade: Grade | None
    sentence: str
    seconds: float = 0.0


@dataclass(frozen=True)
class SessionsProgress:
    """How far all sessions are.

    Attributes
    ----------
    last
        The one that ended just now.
    done, total
        Sessions, those that were done before and those that failed among the done.
    not_reconstructed
        Sessions that failed.
    seconds_left
        Estimate; None: nothing to go by yet.
    """

    last: SessionOutcome
    done: int
    total: int
    not_reconstructed: int
    seconds_left: float | None


def split_done(examinations: Sequence[BidsExamination]) -> tuple[list[SessionOutcome], list[BidsExamination]]:
    """Sessions that are done already, and those that are not or whose input cannot be read."""

    def verdict(examination: BidsExamination) -> SessionOutcome | None:
        try:
            if not examination.is_done():
                return None
            return SessionOutcome(examination.name, *examination.verdict())
        except InputError:  # its process will tell
            return None

    found = parallel_map(verdict, examinations)
    waiting = [examination for examination, outcome in zip(examinations, found, strict=True) if outcome is None]
    return [outcome for outcome in found if outcome is not None], waiting


def tasks_of(
    examinations: Sequence[BidsExamination], options: BatchOptions = BatchOptions(), command: str | None = None
) -> list[Task]:
    """Sessions as tasks of a batch.

    Parameters
    ----------
    options
        Of the batch: the time limit is also how long a session waits for another run that is at work on it.
    command
        The command line, for the records.
    """

    def task(examination: BidsExamination) -> Task:
        memory, pixels = estimated_memory(examination.stacks, examination.masks)
        content = {"examination": examination.to_json(), "command": command, "wait": options.seconds or _LONG}
        return Task(examination.name, bids_process.WORDS, content, memory, float(max(pixels, 1)))

    return parallel_map(task, examinations)


def reconstruct_sessions(
    done: Sequence[SessionOutcome],
    tasks: Sequence[Task],
    workers: Workers,
    logs: Path,
    options: BatchOptions = BatchOptions(),
    callback: Callable[[SessionsProgress], None] | None = None,
) -> list[SessionOutcome]:
    """Reconstruct all sessions that are not done, each in a process of its own.

    Parameters
    ----------
    done
        What `split_done` found.
    tasks
        What `tasks_of` made of the others.
    logs
        Folder for their logs.
    callback
        Told of each session that is done or given up.

    Returns
    -------
    list[SessionOutcome]
        Of all sessions, by name.
    """

    def tell(progress: BatchProgress) -> None:
        outcome = _session_outcome(progress.last)
        if outcome.grade is None:
            with open(logs / f"{outcome.name}.log", "a", encoding="utf-8") as log:
                log.write(f"ERROR    {outcome.sentence}\n")
        if callback is not None:
            counts = progress.done + len(done), progress.total + len(done), progress.failed
            callback(SessionsProgress(outcome, *counts, progress.seconds_left))

    outcomes = run_batch(tasks, workers, logs, options, tell)
    return sorted([*done, *map(_session_outcome, outcomes)], key=lambda outcome: outcome.name)


def _session_outcome(outcome: Outcome) -> SessionOutcome:
    result = outcome.result
    if result.ending == "done":
        return SessionOutcome(outcome.name, result.answer["grade"], result.answer["sentence"], result.seconds)
    tries = f" ({outcome.attempts} times)" if outcome.attempts > 1 else ""
    return SessionOutcome(outcome.name, None, f"{NOT_RECONSTRUCTED}{result.sentence}{tries}", result.seconds)
