"""One line for a warning that several files have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Keeper(logging.Handler):
    """Keeps warnings, and passes on what is less."""

    def __init__(self, above: logging.Logger | None) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._above = above

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.records.append(record)
        elif self._above is not None:
            self._above.handle(record)


@contextmanager
def told_together(name: str) -> Iterator[None]:
    """Keep the warnings of a logger and of those below it until the end, and join those that differ in the file only.

    Such a warning is ``"%s: ..."``, with the file, or the name of a stack, as its first argument.
    """
    logger = logging.getLogger(name)
    keeper, passes_on = _Keeper(logger.parent), logger.propagate
    logger.addHandler(keeper)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(keeper)
        logger.propagate = passes_on
        for record in _joined(keeper.records):
            logger.handle(record)


def _joined(records: list[logging.LogRecord]) -> list[logging.LogRecord]:
    """The first record of each text, with the files of all that say the same."""
    firsts: dict[str, logging.LogRecord] = {}
    files: dict[str, list[object]] = {}
    for record in records:
        text = _without_file(record)
        firsts.setdefault(text, record)
        files.setdefault(text, []).append(record.args[0] if isinstance(record.args, tuple) and record.args else None)
    for text, record in firsts.items():
        if len(files[text]) > 1 and isinstance(record.args, tuple):
            record.args = (_list(files[text]), *record.args[1:])
    return list(firsts.values())


def _without_file(record: logging.LogRecord) -> str:
    message, arguments = str(record.msg), record.args
    if not (message.startswith("%s: ") and isinstance(arguments, tuple)):
        return str(id(record))  # like no other
    return message % ("", *arguments[1:])


def _list(files: list[object]) -> object:
    """Names one after another; of paths still a path, so that whoever leaves folders out can do that."""
    first, names = files[0], ", ".join(file.name if isinstance(file, Path) else str(file) for file in files)
    return first.with_name(names) if isinstance(first, Path) else names
