"""Programs for batches: what they are told to do, they do, good or bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gsvr.workflows.batch import Task

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from gsvr.workflows.task_process import MEMORY_EXIT_CODE, REFUSED_EXIT_CODE, answer_and_end, receive_task

task = receive_task()
trace = Path(task["trace"])
number = len(list(trace.glob(task["name"] + ".*")))  # of attempts before this one
started = trace / f"{task['name']}.{number}"
started.write_text(f"{os.getpid()} {os.environ['GSVR_THREADS']} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
todo = task["todo"][min(number, len(task["todo"]) - 1)]
began = time.time()
print("this is no answer")
if todo == "hang":
    time.sleep(600)
elif todo == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
elif todo == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif todo == "refuse":
    answer_and_end({"sentence": "a.nii.gz is damaged: export it again"}, REFUSED_EXIT_CODE)
elif todo == "memory":
    answer_and_end({}, MEMORY_EXIT_CODE)
elif todo == "crash":
    raise RuntimeError("this is a defect")
elif todo == "silence":
    sys.exit(0)
else:
    time.sleep(float(todo))
answer_and_end({"from": began, "to": time.time(), "name": task["name"]})
"""


def task(trace: Path, name: str, *todo: str, memory: int = 0, size: float = 1.0, **more: Any) -> Task:
    """A task that does this in its first, second, ... attempt; numbers are seconds of sleep."""
    content = {"trace": str(trace), "name": name, "todo": list(todo), **more}
    return Task(name, ("-c", PROGRAM), content, memory, size)


def attempts(trace: Path, name: str) -> list[list[str]]:
    """Process, threads and card of each attempt."""
    return [path.read_text().split() for path in sorted(trace.glob(f"{name}.*"))]
