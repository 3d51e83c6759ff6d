"""What a long command shows on the screen: log messages, and the progress of rounds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from gsvr.solver.reconstruct import Progress


def log_to(console: Console, verbose: bool) -> None:
    """Show warnings, and with `verbose` every decision, on the console."""
    from rich.logging import RichHandler

    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], format="%(message)s")


@contextmanager
def iteration_progress(console: Console, repeats: int = 1) -> Iterator[Callable[[Progress, str], None]]:
    """Progress bar over all outer iterations of `repeats` reconstructions.

    Yields
    ------
    Callable
        To be called after each of them, with words that come before the name of the stage.
    """
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
