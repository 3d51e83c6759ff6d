"""The process that reconstructs one session of a BIDS dataset: ``python -m gsvr.workflows.bids_process``."""

from __future__ import annotations

import logging
import resource
import signal
import sys
import time

from gsvr.compiled.allocator import keep_freed_memory
from gsvr.errors import InputError
from gsvr.solver.reconstruct import Progress
from gsvr.workflows.bids_examination import BidsExamination, reconstruct_examination
from gsvr.workflows.task_process import MEMORY_EXIT_CODE, REFUSED_EXIT_CODE, answer_and_end, receive_task

WORDS = ("-m", __name__)

logger = logging.getLogger(__name__)


def main() -> None:
    """Read a task, reconstruct, answer."""
    signal.signal(signal.SIGTERM, _interrupt)
    task = receive_task()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)-8s %(message)s")
    keep_freed_memory()
    examination = BidsExamination.from_json(task["examination"])
    try:
        reconstruct_examination(examination, _Stages(), task["wait"], task["command"])
        grade, sentence = examination.verdict()
    except InputError as error:
        answer_and_end({"sentence": " ".join(str(error).replace("`", "").split())}, REFUSED_EXIT_CODE)
    except MemoryError:
        answer_and_end({}, MEMORY_EXIT_CODE)
    answer_and_end({"grade": grade, "sentence": sentence, "peak_memory": _peak_memory()})


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _peak_memory() -> int:
    """Bytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


class _Stages:
    """Tells the log of each stage that begins."""

    def __init__(self) -> None:
        self._stage = ""
        self._began = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.stage.name != self._stage:
            self._stage = progress.stage.name
            logger.info("%s, after %.1f s", self._stage, time.monotonic() - self._began)


if __name__ == "__main__":
    main()
