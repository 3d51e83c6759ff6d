"""Small BIDS datasets made from the moving brain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsvr.io.nifti import write_volume
from gsvr.model.slices import Stack
from tests.moving_brain import moving_brain

SESSIONS = (("01", "a"), ("01", "b"), ("02", "a"))


def write_description(folder: Path, name: str, kind: str = "raw") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"Name": name, "BIDSVersion": "1.9.0", "DatasetType": kind}
    if kind == "derivative":
        content["GeneratedBy"] = [{"Name": name}]  # pyright: ignore[reportArgumentType]
    (folder / "dataset_description.json").write_text(json.dumps(content))
    (folder / "README").write_text("Made for a test from a phantom: slices of a brain that moves, and nothing else.\n")


def write_dataset(
    root: Path,
    sessions: Sequence[tuple[str, str | None]] = SESSIONS,
    masks_of: Sequence[int] = (0, 1, 2),
    stacks: Sequence[Stack] | None = None,
) -> Path:
    """Three runs a session, the first with ``acq-haste``; masks in a derivative; the thickness told once, at the root.

    Parameters
    ----------
    masks_of
        Runs that have a mask.
    stacks
        Other runs than those of the moving brain.
    """
    write_description(root, "phantoms")
    masks = root / "derivatives" / "masks"
    if masks_of:
        write_description(masks, "masks", "derivative")
    runs = stacks or moving_brain().stacks
    (root / "T2w.json").write_text(json.dumps({"SliceThickness": runs[0].thickness}))
    for subject, session in sessions:
        folder = Path(f"sub-{subject}", *([] if session is None else [f"ses-{session}"]), "anat")
        stem = f"sub-{subject}" + ("" if session is None else f"_ses-{session}")
        for number, stack in enumerate(runs):
            run = f"{stem}{'_acq-haste' if number == 0 else ''}_run-{number + 1}"
            write_volume(root / folder / f"{run}_T2w.nii.gz", stack.data, stack.affine)
            if number in masks_of:
                assert stack.mask is not None
                write_volume(masks / folder / f"{run}_desc-brain_mask.nii.gz", np.asarray(stack.mask), stack.affine)
                sidecar = {"Type": "Brain", "Sources": [f"bids:raw:{folder.as_posix()}/{run}_T2w.nii.gz"]}
                (masks / folder / f"{run}_desc-brain_mask.json").write_text(json.dumps(sidecar))
    return root
