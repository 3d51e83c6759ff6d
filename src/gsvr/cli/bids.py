"""``gsvr bids``: a BIDS App, from a BIDS dataset to a derivative dataset."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gsvr.cli.reconstruct import FAILED_EXIT_CODE
from gsvr.render import VOXEL_SIZE

if TYPE_CHECKING:
    from gsvr.workflows.bids_app import SessionOutcome

# Of some session there is no volume.
NOT_RECONSTRUCTED_EXIT_CODE = 1


class Level(StrEnum):
    """Levels of analysis of a BIDS App."""

    participant = "participant"
    group = "group"


def bids_command(
    bids_dir: Annotated[Path, typer.Argument(metavar="BIDS_DIR", help="A BIDS dataset.")],
    output_dir: Annotated[
        Path, typer.Argument(metavar="OUTPUT_DIR", help="Where the derivative dataset goes; created if missing.")
    ],
    level: Annotated[
        Level, typer.Argument(metavar="LEVEL", help="participant: reconstruct; group: show all on one page.")
    ],
    participant_label: Annotated[list[str] | None, typer.Option(help="Only these subjects.")] = None,
    session_label: Annotated[list[str] | None, typer.Option(help="Only these sessions.")] = None,
    acquisition_label: Annotated[list[str] | None, typer.Option(help="Only runs with these acq- labels.")] = None,
    derivatives: Annotated[
        list[Path] | None, typer.Option(help="Datasets with brain masks. Default: all in BIDS_DIR/derivatives.")
    ] = None,
    find_masks: Annotated[
        bool, typer.Option("--find-masks", help="Find the brain automatically, and use no masks of the dataset.")
    ] = False,
    output_resolution: Annotated[float, typer.Option(help="Voxel size of the volumes (mm).")] = VOXEL_SIZE,
    slice_order: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "auto",
    orientation: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "scanner",
    orientation_template: Annotated[Path | None, typer.Option(help="As for gsvr reconstruct.")] = None,
    preset: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "default",
    motion: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "slices",
    profile: Annotated[str | None, typer.Option(help="As for gsvr reconstruct.")] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also the standard deviation of every voxel; doubles the time.")
    ] = False,
    device: Annotated[str, typer.Option(help="As for gsvr reconstruct.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Source of all chance; recorded.")] = 0,
    n_procs: Annotated[
        int | None, typer.Option(min=1, help="Sessions at a time. Default: as many as cores, memory or cards allow.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(min=0.1, help="Memory (GB) for all of them. Default: what is available.")
    ] = None,
    time_limit: Annotated[float, typer.Option(min=0, help="Minutes for each session; 0: no limit.")] = 120.0,
    cluster: Annotated[
        str | None,
        typer.Option(help="With Dask (gsvr[batch]): local, slurm, or a scheduler's address (tcp://host:8786)."),
    ] = None,
    cluster_options: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of a Slurm job: queue, account, walltime, cores, memory ...")
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Folder for the log of each session. Default: OUTPUT_DIR/logs.")
    ] = None,
    skip_bids_validation: Annotated[
        bool, typer.Option("--skip-bids-validation", help="Do not ask the BIDS validator first.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is decided and why.")] = False,
) -> None:
    """Reconstruct every session of a BIDS dataset, several at a time; what is done already is passed over."""
    from rich.console import Console

    from gsvr.cli.group import typed
    from gsvr.cli.progress import log_to, session_progress
    from gsvr.io.atomic import check_writable_folder
    from gsvr.io.bids import BidsSelection
    from gsvr.workflows.batch import BatchOptions
    from gsvr.workflows.bids_app import plan_examinations, reconstruct_sessions, split_done, tasks_of
    from gsvr.workflows.bids_examination import ReconstructionSettings
    from gsvr.workflows.bids_group import write_group
    from gsvr.workflows.cluster import ClusterOptions, DaskWorkers
    from gsvr.workflows.provenance import command_line
    from gsvr.workflows.this_machine import ThisMachine

    console = Console(stderr=True)
    log_to(console, verbose)
    selection = BidsSelection(
        *(tuple(labels or ()) for labels in (participant_label, session_label, acquisition_label)),
    )
    settings = ReconstructionSettings(
        *(output_resolution, slice_order, preset, motion, profile, device, seed, uncertainty, find_masks),
        *(orientation, None if orientation_template is None else str(orientation_template)),
    )
    cluster_chosen = None if cluster is None else ClusterOptions(cluster, n_procs, _pairs(cluster_options or []))
    logs = output_dir / "logs" if work_dir is None else work_dir
    check_writable_folder(logs)
    validate = level is Level.participant and not skip_bids_validation
    examinations = plan_examinations(bids_dir, output_dir, selection, settings, derivatives, validate)
    if level is Level.group:
        files, rows = write_group(examinations, logs)
        missing = sum(row.grade == "none" for row in rows)
        typer.echo(
            f"{files.page}: {len(rows)} sessions" + (f", {missing} of them not reconstructed" if missing else "")
        )
        typer.echo(f"{files.table}")
        return
    options = BatchOptions(seconds=60 * time_limit or None)
    done, waiting = split_done(examinations)
    tasks = tasks_of(waiting, options, command_line(["gsvr", *typed.get()]))
    if cluster_chosen is None or not tasks:
        with_cards = device in ("auto", "cuda") and settings.options.backend.startswith("cuda")
        workers = ThisMachine(tasks, n_procs, None if memory is None else int(1e9 * memory), with_cards)
    else:
        workers = DaskWorkers(tasks, cluster_chosen)
    with closing(workers), session_progress(console) as show:
        outcomes = reconstruct_sessions(done, tasks, workers, logs, options, show)
    _summarise(outcomes, len(done), logs)


def _pairs(options: list[str]) -> dict[str, str]:
    """Names and values of ``KEY=VALUE``."""
    from gsvr.errors import InputError

    for option in options:
        if not option.partition("=")[0].isidentifier() or "=" not in option:
            raise InputError(f"`cluster_options` {option}: give KEY=VALUE, such as queue=short")
    return {key: value for key, _, value in (option.partition("=") for option in options)}


def _summarise(outcomes: list[SessionOutcome], n_before: int, logs: Path) -> None:
    """The last lines: how many of what, and everything that needs a look."""
    counts = Counter(outcome.grade for outcome in outcomes)
    words = [f"{counts[grade]} {grade}" for grade in ("good", "doubtful", "failed") if counts[grade]]
    words += [f"{counts[None]} not reconstructed"] if counts[None] else []
    before = f" ({n_before} of them done before)" if n_before else ""
    typer.echo(f"{len(outcomes)} session{'s' * (len(outcomes) != 1)}{before}: {', '.join(words)}")
    for outcome in outcomes:
        if outcome.grade in (None, "failed"):
            typer.echo(f"  {outcome.name}: {outcome.sentence}")
    if counts[None]:
        typer.echo(f"logs: {logs}")
        raise typer.Exit(NOT_RECONSTRUCTED_EXIT_CODE)
    if counts["failed"]:
        raise typer.Exit(FAILED_EXIT_CODE)
