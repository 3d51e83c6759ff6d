"""What a long command shows on the screen: log messages, and the progress of rounds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from gsvr.solver.reconstruct import Progress


def log_to(console: Console, verbose: bool) -> None:
    """Show warnings, and with `verbose` every decision, on the console; in a log file one line each."""
    from rich.logging import RichHandler

    level = logging.INFO if verbose else logging.WARNING
    if console.is_terminal:
        handler = RichHandler(console=console, show_time=False, show_path=False)
        logging.basicConfig(level=level, handlers=[handler], format="%(message)s")
    else:
        logging.basicConfig(level=level, stream=console.file, format="%(levelname)-8s %(message)s")


@contextmanager
def iteration_progress(console: Console, repeats: int = 1) -> Iterator[Callable[[Progress, str], None]]:
    """Progress bar over all outer iterations of `repeats` reconstructions; off a terminal, a line after each stage.

    Yields
    ------
    Callable
        To be called after each of them, with words that come before the name of the stage.
    """
    if not console.is_terminal:
        yield _stage_lines(console)
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("iteration {task.completed:>3.0f} of {task.total:.0f}"),
        TextColumn("{task.fields[residual]}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("starting", total=1, residual="")
        finished = 0

        def show(progress: Progress, words: str = "") -> None:
            nonlocal finished
            bar.update(
                task,
                completed=finished + progress.done,
                total=repeats * progress.total,
                description=words + progress.stage.name,
                residual=f"residual {100 * progress.state.weights.noise:.1f} %",
            )
            finished += progress.total if progress.done == progress.total else 0

        yield show


def _stage_lines(console: Console) -> Callable[[Progress, str], None]:
    """Tell of each stage, when it is over, how long it took and what it left."""
    last: tuple[Progress, str] | None = None
    began = time.perf_counter()

    def show(progress: Progress, words: str = "") -> None:
        nonlocal last
        if last is not None and last[0].stage is not progress.stage:
            tell(*last)
        last = progress, words
        if progress.done == progress.total:
            tell(progress, words)
            last = None

    def tell(progress: Progress, words: str) -> None:
        nonlocal began
        now = time.perf_counter()
        line = f"{words}{progress.stage.name}: {now - began:.1f} s, residual {100 * progress.state.weights.noise:.1f} %"
        console.print(line, soft_wrap=True, markup=False, highlight=False)
        began = now

    return show
