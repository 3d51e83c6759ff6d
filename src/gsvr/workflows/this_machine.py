"""Workers of a batch on this machine: processes, and a thread that waits for each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from gsvr.compiled.threads import thread_count
from gsvr.workflows.batch import Place, Task
from gsvr.workflows.memory import available_memory
from gsvr.workflows.task_process import TaskCall, TaskResult, end_processes, run_in_process


def graphics_cards() -> tuple[str, ...]:
    """Nvidia cards as ``CUDA_VISIBLE_DEVICES`` numbers or names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(card.strip() for card in visible.split(",") if card.strip())
    return tuple(str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*")))))


class _Waiting:
    """A process that a thread waits for."""

    def __init__(self, future: Future[TaskResult]) -> None:
        self._future = future

    def done(self) -> bool:
        """See `gsvr.workflows.batch.Running`."""
        return self._future.done()

    def result(self) -> TaskResult:
        """See `gsvr.workflows.batch.Running`."""
        return self._future.result()

    def cancel(self) -> None:
        """The process is ended with all others, see `ThisMachine.close`."""
        self._future.cancel()


class ThisMachine:
    """One place: the cores and the memory that this process may use.

    Parameters
    ----------
    at_once
        Tasks at a time; None: as many as cores, and as memory allows, but no more than tasks; with cards, one for each.
    memory
        Bytes for all of them; None: what is available.
    with_cards
        Tasks run on graphics cards, one for each.
    """

    def __init__(
        self, tasks: Sequence[Task], at_once: int | None = None, memory: int | None = None, with_cards: bool = False
    ) -> None:
        cores, memory = thread_count(), available_memory() if memory is None else memory
        cards = graphics_cards() if with_cards else ()
        slots = at_once or len(cards) or min(cores, max(1, memory // _usual_memory(tasks)))
        slots = max(1, min(slots, len(tasks), len(cards) or slots))
        self._place = Place("this machine", slots, max(1, cores // slots), memory, cards)
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="batch")

    def places(self) -> Sequence[Place]:
        """The one."""
        return [self._place]

    def start(self, place: str, call: TaskCall) -> _Waiting:
        """Start a process."""
        return _Waiting(self._threads.submit(run_in_process, call))

    def close(self) -> None:
        """End what is still running."""
        end_processes()
        self._threads.shutdown(cancel_futures=True)


def _usual_memory(tasks: Sequence[Task]) -> int:
    return max(1, sum(task.memory for task in tasks) // max(1, len(tasks)))
