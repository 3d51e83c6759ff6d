"""Many tasks, each in a process of its own, as many at a time as cores and memory allow.

What fails for a reason that may pass (killed, out of memory, too slow, crashed, worker lost) is tried once more,
elsewhere if there is another place; what was refused for its input is not. The others go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gsvr.errors import InputError
from gsvr.workflows.task_process import Ending, TaskCall, TaskResult

logger = logging.getLogger(__name__)

_PAUSE = 0.05
# Share of a place's memory that is given away.
_USABLE = 0.9
# How much more a task is thought to need after it ran out of memory.
_MORE = 2.0
# Beyond its time limit, until a task that says nothing counts as lost (s): its own process is ended before.
_SILENCE = 60.0
_PASSING: tuple[Ending, ...] = ("memory", "killed", "time", "crashed", "lost")
_FOR_WANT_OF_MEMORY: tuple[Ending, ...] = ("memory", "killed")


@dataclass(frozen=True)
class Task:
    """Something to do in a process.

    Attributes
    ----------
    name
        Unlike that of any other; its log is named after it.
    words, content
        Arguments of Python, and task, see `gsvr.workflows.task_process.TaskCall`.
    memory
        Estimate (bytes).
    size
        How long it takes, in whatever unit all tasks share.
    """

    name: str
    words: Sequence[str]
    content: Mapping[str, Any]
    memory: int = 0
    size: float = 1.0


@dataclass(frozen=True)
class Place:
    """Where tasks run.

    Attributes
    ----------
    name
        Of the machine or worker.
    slots
        Tasks at a time.
    threads
        Of each.
    memory
        Bytes for all of them.
    cards
        Graphics cards, one for each task; empty: tasks need none.
    """

    name: str
    slots: int
    threads: int
    memory: int
    cards: tuple[str, ...] = ()


@runtime_checkable
class Running(Protocol):
    """A call that was started."""

    def done(self) -> bool:
        """Whether it has ended, or was lost."""
        ...

    def result(self) -> TaskResult:
        """What became of it; ``lost`` if its worker is gone."""
        ...

    def cancel(self) -> None:
        """Wait for it no longer."""
        ...


@runtime_checkable
class Workers(Protocol):
    """Those who do the work: this machine or a cluster."""

    def places(self) -> Sequence[Place]:
        """Those that are there now.

        Raises
        ------
        InputError
            If there will never be any.
        """
        ...

    def start(self, place: str, call: TaskCall) -> Running:
        """Start a process in one of the places."""
        ...


@dataclass(frozen=True)
class BatchOptions:
    """Limits of a batch.

    Attributes
    ----------
    seconds
        For each task; None: no limit.
    attempts
        For each task.
    patience
        Seconds to wait for a place to come up when there is none.
    """

    seconds: float | None = None
    attempts: int = 2
    patience: float = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes
    ----------
    name
        Of the task.
    result
        Of its last attempt.
    attempts
        How many there were.
    """

    name: str
    result: TaskResult
    attempts: int


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes
    ----------
    last
        What ended just now.
    done, total
        Tasks, those that failed among the done.
    failed
        Tasks.
    seconds_left
        Estimate; None: nothing to go by yet.
    """

    last: Outcome
    done: int
    total: int
    failed: int
    seconds_left: float | None


@dataclass(frozen=True)
class _Attempt:
    task: Task
    memory: int
    number: int = 1
    avoid: str = ""


@dataclass
class _Job:
    """An attempt under way."""

    attempt: _Attempt
    place: Place
    card: str | None
    running: Running
    began: float = field(default_factory=time.monotonic)


def run_batch(
    tasks: Sequence[Task],
    workers: Workers,
    logs: Path,
    options: BatchOptions = BatchOptions(),
    callback: Callable[[BatchProgress], None] | None = None,
) -> list[Outcome]:
    """Run all tasks, the largest first.

    Parameters
    ----------
    logs
        Folder for the log of each task.
    callback
        Told whenever a task is done or given up.

    Returns
    -------
    list[Outcome]
        In the order of the tasks.

    Raises
    ------
    InputError
        If there is no place to run anything, or it is gone for good.
    """
    waiting = [_Attempt(task, task.memory) for task in sorted(tasks, key=lambda task: -task.size)]
    jobs: list[_Job] = []
    outcomes: dict[str, Outcome] = {}
    began, done_size, total_size = time.monotonic(), 0.0, sum(task.size for task in tasks)
    seen = began
    try:
        while waiting or jobs:
            places = workers.places()
            now = time.monotonic()
            seen = now if places else seen
            if now - seen > options.patience:
                raise InputError(f"no worker has come up in {options.patience:.0f} s: look at the cluster")
            for attempt in list(waiting):
                chosen = _chosen(attempt, places, jobs)
                if chosen is not None:
                    waiting.remove(attempt)
                    jobs.append(_started(attempt, *chosen, workers, logs, options))
            ended = [(job, result) for job in jobs if (result := _ended(job, places, options)) is not None]
            for job, result in ended:
                jobs.remove(job)
                if result.ending in _PASSING and job.attempt.number < options.attempts:
                    logger.info("%s: %s; it is tried once more", job.attempt.task.name, result.sentence)
                    waiting.append(_again(job, result))
                    continue
                outcome = Outcome(job.attempt.task.name, result, job.attempt.number)
                outcomes[outcome.name] = outcome
                done_size += job.attempt.task.size
                if callback is not None:
                    elapsed = time.monotonic() - began
                    left = elapsed * (total_size - done_size) / done_size if done_size > 0 else None
                    failed = sum(other.result.ending != "done" for other in outcomes.values())
                    callback(BatchProgress(outcome, len(outcomes), len(tasks), failed, left))
            if not ended:
                time.sleep(_PAUSE)
    finally:
        for job in jobs:
            job.running.cancel()
    return [outcomes[task.name] for task in tasks]


def _chosen(attempt: _Attempt, places: Sequence[Place], jobs: Sequence[_Job]) -> tuple[Place, str | None] | None:
    """The emptiest place that has room, and one of its cards; a place that has nothing to do has room for anything."""
    others = [place for place in places if place.name != attempt.avoid] or list(places)
    best: tuple[float, Place, str | None] | None = None
    for place in others:
        here = [job for job in jobs if job.place.name == place.name]
        cards = [card for card in place.cards if card not in {job.card for job in here}]
        given = sum(job.attempt.memory for job in here)
        fits = not here or given + attempt.memory <= _USABLE * place.memory
        if len(here) >= place.slots or not fits or (place.cards and not cards):
            continue
        load = len(here) / place.slots
        if best is None or load < best[0]:
            best = load, place, cards[0] if cards else None
    return None if best is None else best[1:]


def _started(
    attempt: _Attempt, place: Place, card: str | None, workers: Workers, logs: Path, options: BatchOptions
) -> _Job:
    task = attempt.task
    call = TaskCall(
        task.words, task.content, place.threads, logs.absolute() / f"{task.name}.log", card, options.seconds
    )
    return _Job(attempt, place, card, workers.start(place.name, call))


def _ended(job: _Job, places: Sequence[Place], options: BatchOptions) -> TaskResult | None:
    seconds = time.monotonic() - job.began
    if job.running.done():
        return job.running.result()
    if job.place.name not in {place.name for place in places}:
        job.running.cancel()
        return TaskResult("lost", f"the worker {job.place.name} is gone", seconds=seconds)
    if options.seconds is not None and seconds > options.seconds + _SILENCE:
        job.running.cancel()
        return TaskResult("lost", f"the worker {job.place.name} does not answer", seconds=seconds)
    return None


def _again(job: _Job, result: TaskResult) -> _Attempt:
    """Once more; a task that may have run out of memory gets more room."""
    attempt = job.attempt
    more = _MORE if result.ending in _FOR_WANT_OF_MEMORY else 1.0
    return replace(
        attempt,
        memory=int(more * attempt.memory),
        number=attempt.number + 1,
        avoid=job.place.name,
    )
