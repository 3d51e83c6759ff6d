"""A task in a process of its own: what it does to memory, cores and time ends with it.

The process gets the task as the first line of its standard input, which stays open as long as the one who waits for it
lives: at its end the process ends, too. Its answer is one JSON object, the last line of its standard output.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

# done: it has answered. refused: bad input, which stays bad. The others may go better another time.
Ending = Literal["done", "refused", "memory", "killed", "time", "crashed", "lost"]

REFUSED_EXIT_CODE, MEMORY_EXIT_CODE = 2, 4
# What a process gets to clean up after itself (s).
_GRACE = 10.0
# A process that went with the one it worked for.
_ORPHAN_EXIT_CODE = 5

_living: set[subprocess.Popen[str]] = set()


@dataclass(frozen=True)
class TaskCall:
    """What to start, and within which limits.

    Attributes
    ----------
    words
        Arguments of Python, of the one that waits for the process.
    content
        The task, in plain JSON.
    threads
        Of its kernels.
    card
        The graphics card that it may use, as ``CUDA_VISIBLE_DEVICES`` has it; None: as it comes.
    seconds
        After which it is ended; None: no limit.
    log
        File for its standard error.
    """

    words: Sequence[str]
    content: Mapping[str, Any]
    threads: int
    log: Path
    card: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class TaskResult:
    """What became of a process.

    Attributes
    ----------
    ending
        How it ended.
    sentence
        Why, unless it is done.
    answer
        What it said.
    seconds
        Wall time.
    """

    ending: Ending
    sentence: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def run_in_process(call: TaskCall) -> TaskResult:
    """Start the process and wait for its end; it never raises for what goes wrong in there."""
    call.log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with open(call.log, "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, *call.words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(call),
            start_new_session=True,  # Ctrl-C is for the one who waits
        )
    _living.add(process)
    try:
        late = _wait(process, call)
    finally:
        _end(process)
        _living.discard(process)
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read()
    seconds = time.monotonic() - began
    if late:
        return TaskResult("time", f"it took more than {call.seconds:.0f} s", seconds=seconds)
    answer = _answer(said)
    ending, sentence = _judge(process.returncode, answer, call.log)
    return TaskResult(ending, sentence, answer, seconds)


def end_processes() -> None:
    """End all processes that are waited for in this one."""
    for process in list(_living):
        process.terminate()


def _environment(call: TaskCall) -> dict[str, str]:
    threads = str(call.threads)
    environment = {
        **os.environ,
        **dict.fromkeys(("GSVR_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads),
        "PYTHONUNBUFFERED": "1",
    }
    return environment if call.card is None else {**environment, "CUDA_VISIBLE_DEVICES": call.card}


def _wait(process: subprocess.Popen[str], call: TaskCall) -> bool:
    """Whether the process took too long."""
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(call.content) + "\n")
        process.stdin.flush()
        process.wait(call.seconds)
    except BrokenPipeError:  # it is over before it has read
        process.wait(call.seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _end(process: subprocess.Popen[str]) -> None:
    """End a process that has not ended, first with a word."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _answer(said: str) -> dict[str, Any]:
    try:
        answer = json.loads(said.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _judge(code: int, answer: Mapping[str, Any], log: Path) -> tuple[Ending, str]:
    if code == 0 and answer:
        return "done", ""
    if code == REFUSED_EXIT_CODE and "sentence" in answer:
        return "refused", str(answer["sentence"])
    if code == MEMORY_EXIT_CODE:
        return "memory", "it ran out of memory"
    if code == -signal.SIGKILL:
        return "killed", "it was killed, perhaps for want of memory"
    if code < 0:
        return "killed", f"it was ended by signal {-code}"
    return "crashed", f"it ended with exit code {code}; the end of {log.name}: {_last_line(log)}"


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "(empty)"


def receive_task() -> dict[str, Any]:
    """In the process: the task. From here on, standard output goes where errors go, and the end of the input ends all.

    The answer is given by `answer_and_end`.
    """
    global _answers
    task = json.loads(sys.stdin.readline())
    _answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with suppress(OSError):  # where memory is short, the system ends this process and not the one that waits for it
        Path("/proc/self/oom_score_adj").write_text("500")
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    return task


_answers = 1


def answer_and_end(answer: Mapping[str, Any], code: int = 0) -> NoReturn:
    """In the process: its last word."""
    os.write(_answers, (json.dumps(answer) + "\n").encode())
    os.close(_answers)
    sys.exit(code)


def _end_with_the_input() -> None:
    # below Python's buffers, whose locks would be held when the interpreter ends
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(_ORPHAN_EXIT_CODE)
