"""Quality where no truth is known: each stack is left out in turn and predicted from the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from gsvr.cli.progress import iteration_progress
from gsvr.cli.tables import result_table
from gsvr.errors import InputError
from gsvr.evaluation.holdout import HoldoutScore, leave_one_stack_out
from gsvr.model.geometry import transform_points
from gsvr.model.slices import Slices, Stack
from gsvr.model.volume import Volume
from gsvr.report.picture import PictureOptions, save_mid_slices
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.inputs import StackInputs, find_series, read_stacks
from gsvr.workflows.pipeline import fitting_options, prepare_slices

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_LEAST_STACKS = 3


def evaluate_holdout(inputs: StackInputs, console: Console, picture: Path | None) -> tuple[dict[str, Any], list[Table]]:
    """Leave every stack out once, and make the record and the table of it.

    Parameters
    ----------
    console
        Where the progress is shown.
    picture
        Where mid-slices of the measured and the predicted stacks go (PNG).

    Returns
    -------
    dict
        ``stacks``, one entry each with ``ncc``, ``psnr``, ``gain``, ``n_slices`` and its ``slices``; the ``mean`` over
        the stacks; and the ``options`` of the reconstructions.
    list
        The table.

    Raises
    ------
    InputError
        If the input cannot be used, or there are fewer than three stacks.
    """
    series = find_series(inputs)
    n_stacks = len(series or inputs.stacks)
    if n_stacks < _LEAST_STACKS:
        option = "--input-dicom" if inputs.dicom else "--input-stacks"
        raise InputError(
            f"{n_stacks} stacks for {option}: leaving one out takes at least {_LEAST_STACKS}, two to reconstruct from"
        )
    stacks = read_stacks(inputs, series)
    options = fitting_options(stacks, SolverOptions())
    slices = prepare_slices(stacks, options)
    with iteration_progress(console, repeats=len(stacks)) as (show, _):
        scores = leave_one_stack_out(slices, options, lambda name, progress: show(progress, f"without {name}, "))
    if picture is not None:
        rows = [
            row for stack, score in zip(stacks, scores, strict=True) for row in _measured_and_predicted(stack, score)
        ]
        save_mid_slices(picture, rows, PictureOptions(shared_window=False, shared_position=False))
    record = _record(scores) | {"options": options}
    table = result_table("stacks predicted from the others", _rows(record), ("left out", "NCC", "PSNR", "slices"))
    return record, [table]


def _rows(record: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [
        (entry["stack"], f"{entry['ncc']:.4f}", f"{entry['psnr']:.2f} dB", f"{entry['n_slices']}")
        for entry in record["stacks"]
    ]
    mean = record["mean"]
    return [*rows, ("mean", f"{mean['ncc']:.4f}", f"{mean['psnr']:.2f} dB", f"{mean['n_slices']:.0f}")]


def _record(scores: list[HoldoutScore]) -> dict[str, Any]:
    entries = []
    for score in scores:
        agreement = score.agreement
        shown = agreement.n_pixels > 0
        slices = [
            {"slice_index": int(index), "ncc": float(ncc), "psnr": float(psnr), "pixels": int(pixels)}
            for index, ncc, psnr, pixels in zip(
                score.slices.slice_index[shown],
                agreement.slice_ncc[shown],
                agreement.slice_psnr[shown],
                agreement.n_pixels[shown],
                strict=True,
            )
        ]
        entries.append(
            {
                "stack": score.stack,
                "ncc": agreement.ncc,
                "psnr": agreement.psnr,
                "gain": agreement.gain,
                "n_slices": len(slices),
                "slices": slices,
            }
        )
    mean = {key: float(np.mean([entry[key] for entry in entries])) for key in ("ncc", "psnr", "n_slices")}
    return {"stacks": entries, "mean": mean}


def _measured_and_predicted(stack: Stack, score: HoldoutScore) -> list[tuple[str, Volume]]:
    """Both as volumes on the grid of the stack, zero where there are no pixels."""
    slices = score.slices
    mask = _on_grid(slices, slices.mask.astype(np.float32), stack) > 0
    measured = Volume(_on_grid(slices, slices.values * slices.mask, stack), stack.affine, mask)
    predicted = _on_grid(slices, score.prediction * slices.mask * np.float32(score.agreement.gain), stack)
    return [(f"{stack.name}, measured", measured), ("predicted from the others", replace(measured, data=predicted))]


def _on_grid(slices: Slices, flat: Float32[np.ndarray, " p"], stack: Stack) -> Float32[np.ndarray, "x y z"]:
    grid = np.zeros(stack.data.shape, np.float32)
    first = np.rint(transform_points(np.linalg.inv(stack.affine), slices.frames[:, :3, 3])).astype(int)
    for number, ((column, row, k), (n_columns, n_rows)) in enumerate(zip(first, slices.shapes, strict=True)):
        grid[column : column + n_columns, row : row + n_rows, k] = slices.image(number, flat)
    return grid
