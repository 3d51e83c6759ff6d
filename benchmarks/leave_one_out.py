"""Each stack of a real examination predicted from the others: ``python -m benchmarks.leave_one_out FOLDER OUTPUT``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from gsvr.evaluation.holdout import leave_one_stack_out
from gsvr.io.record import write_record
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import StackInputs, fitting_options, prepare_slices, read_stacks


def bids_inputs(folder: Path) -> StackInputs:
    """Stacks and brain masks of a folder with BIDS names."""
    stacks = sorted(folder.glob("*run-*_T2w.nii.gz"))
    masks = [*sorted(folder.glob("*run-*_desc-brain_mask.nii.gz"))] or sorted(folder.glob("*run-*_mask.nii.gz"))
    return StackInputs(stacks, masks, [])


def main() -> None:
    """Score every stack and write the scores (JSON)."""
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    stacks = read_stacks(bids_inputs(folder))
    options = fitting_options(stacks, SolverOptions())
    scores = leave_one_stack_out(stacks, lambda some: prepare_slices(some, options)[0], options)
    rows = {
        score.stack: {
            "ncc": score.agreement.ncc,
            "psnr": score.agreement.psnr,
            "median_slice_ncc": float(np.nanmedian(score.agreement.slice_ncc)),
        }
        for score in scores
    }
    mean = {key: float(np.mean([row[key] for row in rows.values()])) for key in ("ncc", "psnr", "median_slice_ncc")}
    write_record(output, {"mean": mean, "stacks": rows})


if __name__ == "__main__":
    main()
