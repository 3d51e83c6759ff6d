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
    from gsvr.workflows.bids_app import SessionsProgress

_SECONDS_BEFORE_PROGRESS, _SECONDS_BETWEEN_LINES = 2.0, 10.0


def log_to(console: Console, verbose: bool) -> None:
    """Show warnings, and with `verbose` every decision, on the console; in a log file one line each."""
    from rich.logging import RichHandler

    level = logging.INFO if verbose else logging.WARNING
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # what fails is told in a sentence
    if console.is_terminal:
        handler = RichHandler(console=console, show_time=False, show_path=False)
        logging.basicConfig(level=level, handlers=[handler], format="%(message)s")
    else:
        logging.basicConfig(level=level, stream=console.file, format="%(levelname)-8s %(message)s")


@contextmanager
def count_progress(console: Console, words: str) -> Iterator[Callable[[int, int], None]]:
    """Progress of anything that can be counted: a bar; off a terminal, a line now and then, and one at the end.

    Nothing is shown of what takes less than two seconds.

    Parameters
    ----------
    words
        What is going on.

    Yields
    ------
    Callable
        To be called with how many are done, and how many there are.
    """
    began = time.monotonic()
    if not console.is_terminal:
        yield _count_lines(console, words, began)
        return
    from rich.progress import Progress as Bar

    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(words, total=None, visible=False)

        def show(done: int, total: int) -> None:
            visible = time.monotonic() - began > _SECONDS_BEFORE_PROGRESS
            bar.update(task, completed=done, total=total, visible=visible)

        yield show


def _count_lines(console: Console, words: str, began: float) -> Callable[[int, int], None]:
    told = began

    def show(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > _SECONDS_BETWEEN_LINES or (done == total and now - began > _SECONDS_BEFORE_PROGRESS):
            say(console, f"{words}: {done} of {total}, {now - began:.1f} s")
            told = now

    return show


@contextmanager
def iteration_progress(
    console: Console, repeats: int = 1
) -> Iterator[tuple[Callable[[Progress, str], None], Callable[[int, int], None]]]:
    """Progress bar over all outer iterations of `repeats` reconstructions; off a terminal, a line after each stage.

    Yields
    ------
    tuple
        To be called after each of them, with words that come before the name of the stage; and, where the uncertainty
        is sampled after them, with how many samples are drawn, and how many there will be.
    """
    if not console.is_terminal:
        yield _stage_lines(console), _sample_lines(console)
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.fields[unit]:<9} {task.completed:>3.0f} of {task.total:.0f}"),
        TextColumn("{task.fields[residual]}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("starting", total=1, unit="iteration", residual="")
        samples = bar.add_task("uncertainty", start=False, unit="sample", residual="", visible=False)
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
            if progress.done == progress.total:
                finished += progress.total
                bar.reset(samples, visible=False)  # samples are drawn next, if at all

        def show_samples(done: int, total: int) -> None:
            bar.update(samples, completed=done, total=total, visible=True)

        yield show, show_samples


def _stage_lines(console: Console) -> Callable[[Progress, str], None]:
    """Tell of each stage, when it is over, how long it took and what it left."""
    began = time.perf_counter()

    def show(progress: Progress, words: str = "") -> None:
        nonlocal began
        if progress.stage_done:
            now = time.perf_counter()
            residual = f"residual {100 * progress.state.weights.noise:.1f} %"
            say(console, f"{words}{progress.stage.name}: {now - began:.1f} s, {residual}")
            began = now

    return show


def _sample_lines(console: Console) -> Callable[[int, int], None]:
    """Tell of samples now and then, and when all are drawn."""
    told = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > _SECONDS_BETWEEN_LINES or done == total:
            say(console, f"uncertainty: {done} of {total} samples")
            told = now

    return show


def say(console: Console, text: str) -> None:
    """One line, as it is."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def session_progress(console: Console) -> Iterator[Callable[[SessionsProgress], None]]:
    """A line for each session that has ended, on the standard output; on a terminal also a bar with an estimate.

    Yields
    ------
    Callable
        To be called when one has ended.
    """
    if not console.is_terminal:
        yield lambda progress: print(_session_line(progress, with_estimate=True), flush=True)
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("sessions"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=None, words="starting")

        def show(progress: SessionsProgress) -> None:
            bar.update(task, completed=progress.done, total=progress.total, words=_count(progress))
            print(_session_line(progress, with_estimate=False), flush=True)

        yield show


def _session_line(progress: SessionsProgress, with_estimate: bool) -> str:
    last = progress.last
    line = f"{last.name}: {last.sentence} ({last.seconds:.0f} s)"
    return f"{line}  [{_count(progress)}]" if with_estimate else line


def _count(progress: SessionsProgress) -> str:
    words = f"{progress.done} of {progress.total}"
    if progress.not_reconstructed:
        words += f", {progress.not_reconstructed} not reconstructed"
    if progress.seconds_left and progress.done < progress.total:
        minutes = progress.seconds_left / 60
        words += f", about {f'{minutes:.0f} min' if minutes >= 1 else f'{progress.seconds_left:.0f} s'} left"
    return words
