"""A batch of real processes: order, limits, retries, and what is reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from gsvr.workflows.batch import BatchOptions, BatchProgress, Outcome, Place, Task, run_batch
from gsvr.workflows.task_process import TaskCall, run_in_process
from gsvr.workflows.this_machine import ThisMachine, graphics_cards
from tests.workflows.task_programs import PROGRAM, attempts, task

ROOM = 10**12


def run(
    tasks: Sequence[Task], tmp_path: Path, at_once: int = 2, memory: int = ROOM, options: BatchOptions | None = None
) -> tuple[list[Outcome], list[BatchProgress]]:
    told: list[BatchProgress] = []
    workers = ThisMachine(tasks, at_once, memory)
    try:
        return run_batch(tasks, workers, tmp_path / "logs", options or BatchOptions(), told.append), told
    finally:
        workers.close()


def most_at_once(outcomes: Sequence[Outcome]) -> int:
    times = [(outcome.result.answer["from"], outcome.result.answer["to"]) for outcome in outcomes]
    return max(sum(begin <= moment < end for begin, end in times) for moment, _ in times)


def test_every_task_gets_a_process_and_its_answer_comes_back(tmp_path: Path):
    tasks = [task(tmp_path, name, "0") for name in "abc"]
    outcomes, told = run(tasks, tmp_path)
    assert [outcome.name for outcome in outcomes] == ["a", "b", "c"]
    assert all(outcome.result.ending == "done" and outcome.attempts == 1 for outcome in outcomes)
    assert [outcome.result.answer["name"] for outcome in outcomes] == ["a", "b", "c"]
    assert len({attempts(tmp_path, name)[0][0] for name in "abc"}) == 3
    assert [(progress.done, progress.total, progress.failed) for progress in told] == [(1, 3, 0), (2, 3, 0), (3, 3, 0)]
    assert told[-1].seconds_left == 0
    assert all(progress.seconds_left is not None for progress in told)


def test_the_largest_comes_first(tmp_path: Path):
    outcomes, told = run([task(tmp_path, f"t{size}", "0", size=float(size)) for size in (1, 3, 2)], tmp_path, at_once=1)
    assert [progress.last.name for progress in told] == ["t3", "t2", "t1"]
    assert [outcome.name for outcome in outcomes] == ["t1", "t3", "t2"]


@pytest.mark.parametrize(
    ("todo", "ending", "words", "tries"),
    [
        ("refuse", "refused", "a.nii.gz is damaged: export it again", 1),
        ("memory", "memory", "out of memory", 2),
        ("kill", "killed", "killed, perhaps for want of memory", 2),
        ("crash", "crashed", "RuntimeError: this is a defect", 2),
        ("silence", "crashed", "exit code 0", 2),
        ("hang", "time", "more than 5 s", 2),
    ],
)
def test_one_that_fails_is_reported_and_the_others_go_on(
    tmp_path: Path, todo: str, ending: str, words: str, tries: int
):
    tasks = [task(tmp_path, "bad", todo, size=9.0), task(tmp_path, "good", "0"), task(tmp_path, "other", "0")]
    (bad, *others), told = run(tasks, tmp_path, options=BatchOptions(seconds=5.0))
    assert bad.result.ending == ending
    assert words in bad.result.sentence
    assert bad.attempts == tries == len(attempts(tmp_path, "bad"))
    assert [other.result.ending for other in others] == ["done", "done"]
    assert told[-1].failed == 1


@pytest.mark.parametrize("todo", ["kill", "crash", "memory"])
def test_what_goes_well_the_second_time_is_done(tmp_path: Path, todo: str):
    (outcome,), _ = run([task(tmp_path, "a", todo, "0")], tmp_path)
    assert outcome.result.ending == "done"
    assert outcome.attempts == 2


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gsvr.workflows.task_process._GRACE", 1.0)
    (outcome,), _ = run([task(tmp_path, "a", "deaf")], tmp_path, options=BatchOptions(seconds=3.0, attempts=1))
    assert outcome.result.ending == "time"
    assert outcome.result.seconds < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(attempts(tmp_path, "a")[0][0]), 0)


def test_no_more_at_once_than_asked_for(tmp_path: Path):
    tasks = [task(tmp_path, name, "0.5") for name in "abcd"]
    outcomes, _ = run(tasks, tmp_path, at_once=2)
    assert most_at_once(outcomes) <= 2


def test_memory_is_not_given_away_twice(tmp_path: Path):
    tasks = [task(tmp_path, name, "0.3", memory=60) for name in "abc"]
    outcomes, _ = run(tasks, tmp_path, at_once=3, memory=100)
    assert most_at_once(outcomes) == 1


def test_one_that_needs_more_than_there_is_runs_alone(tmp_path: Path):
    tasks = [task(tmp_path, "large", "0.3", memory=500, size=9.0), task(tmp_path, "small", "0.3", memory=1)]
    outcomes, _ = run(tasks, tmp_path, memory=100)
    assert [outcome.result.ending for outcome in outcomes] == ["done", "done"]
    assert most_at_once(outcomes) == 1


def test_after_it_ran_out_of_memory_a_task_gets_more_room(tmp_path: Path):
    """Of 100, two of 45 may run side by side, but not one of 90 beside one of 45."""
    tasks = [task(tmp_path, "a", "memory", "0.5", memory=45, size=9.0)]
    tasks += [task(tmp_path, name, "2", memory=45) for name in "bc"]
    outcomes, _ = run(tasks, tmp_path, memory=100)
    again, *others = (outcome.result.answer for outcome in outcomes)
    assert all(again["to"] <= other["from"] or again["from"] >= other["to"] for other in others)


def test_slots_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GSVR_THREADS", "7")
    tasks = [task(tmp_path, name, "0") for name in "abc"]
    run(tasks, tmp_path, at_once=3)
    assert [attempts(tmp_path, name)[0][1] for name in "abc"] == ["2", "2", "2"]
    run([task(tmp_path, "alone", "0")], tmp_path, at_once=3)
    assert attempts(tmp_path, "alone")[0][1] == "7"


def test_how_many_at_once_follows_from_cores_memory_and_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GSVR_THREADS", "8")
    tasks = [task(tmp_path, str(number), "0", memory=10) for number in range(20)]

    def place(tasks: Sequence[Task], memory: int = ROOM, **more: bool) -> Place:
        workers = ThisMachine(tasks, None, memory, **more)
        workers.close()
        return workers.places()[0]

    assert (place(tasks).slots, place(tasks).threads) == (8, 1)
    assert (place(tasks, 35).slots, place(tasks, 35).threads) == (3, 2)
    assert (place(tasks[:2]).slots, place(tasks[:2]).threads) == (2, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert graphics_cards() == ("3", "5")
    with_cards = place(tasks, with_cards=True)
    assert (with_cards.slots, with_cards.threads, with_cards.cards) == (2, 4, ("3", "5"))


def test_each_has_a_card_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    tasks = [task(tmp_path, name, "1") for name in "abcd"]
    workers = ThisMachine(tasks, None, ROOM, with_cards=True)
    outcomes = run_batch(tasks, workers, tmp_path / "logs")
    workers.close()
    cards = {name: attempts(tmp_path, name)[0][2] for name in "abcd"}
    assert set(cards.values()) == {"3", "5"}
    for first in outcomes:
        for second in outcomes:
            one, other = first.result.answer, second.result.answer
            if one["name"] < other["name"] and one["from"] < other["to"] and other["from"] < one["to"]:
                assert cards[one["name"]] != cards[other["name"]]


ORPHANS = f"""
import sys
from pathlib import Path
from gsvr.workflows.task_process import TaskCall, run_in_process

run_in_process(TaskCall(("-c", {PROGRAM!r}), {{"trace": sys.argv[1], "name": "a", "todo": ["deaf"]}}, 1, Path(sys.argv[1], "log")))
"""  # noqa: E501


def test_when_the_one_who_waits_is_killed_the_process_ends(tmp_path: Path):
    waiting = subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path)])
    started = tmp_path / "a.0"
    wait_until(lambda: started.exists() and started.read_text() != "")
    process = int(started.read_text().split()[0])
    os.kill(process, 0)
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()
    wait_until(lambda: not is_running(process))


def wait_until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.05)


def is_running(process: int) -> bool:
    """Whether a process lives; one that is dead but not asked for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_the_process_says_is_in_its_log(tmp_path: Path):
    call = TaskCall(("-c", PROGRAM), task(tmp_path, "a", "0").content, 1, tmp_path / "logs" / "a.log")
    assert run_in_process(call).ending == "done"
    assert (tmp_path / "logs" / "a.log").read_text() == "this is no answer\n"


def test_interruption_ends_the_processes(tmp_path: Path):
    def interrupt(progress: BatchProgress) -> None:
        raise KeyboardInterrupt

    tasks = [task(tmp_path, "a", "0"), task(tmp_path, "b", "hang")]
    workers = ThisMachine(tasks, 2, ROOM)
    with pytest.raises(KeyboardInterrupt):
        run_batch(tasks, workers, tmp_path / "logs", callback=interrupt)
    wait_until(lambda: attempts(tmp_path, "b") and attempts(tmp_path, "b")[0])
    workers.close()
    assert not is_running(int(attempts(tmp_path, "b")[0][0]))
