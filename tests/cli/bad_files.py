"""Stacks of which everything can be wrong, and a command that must refuse them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from gsvr.io.nifti import write_volume

SHAPE = (24, 20, 12)


def blob(seed: int, affine: np.ndarray) -> np.ndarray:
    """An ellipsoid of noise in nothing."""
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    inside = (((index - (np.array(SHAPE) - 1) / 2) / (np.array(SHAPE) / 2.5)) ** 2).sum(-1) < 1
    return (inside * np.random.default_rng(seed).uniform(50, 100, SHAPE)).astype(np.float32)


class Files:
    """Two good stacks, and a third of which everything can be wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.affines = []
        for number, axes in enumerate((np.eye(3), np.eye(3)[:, [1, 2, 0]], np.eye(3)[:, [2, 0, 1]])):
            affine = np.eye(4)
            affine[:3, :3] = axes * [2.0, 2.0, 4.0]
            affine[:3, 3] = -affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
            self.affines.append(affine)
            data = blob(number, affine)
            write_volume(self.path(number), data, affine)
            write_volume(self.mask(number), data > 0, affine)
            self.path(number).with_name(f"s{number}.json").write_text(json.dumps({"SliceThickness": 4.0}))

    def path(self, number: int) -> Path:
        return self.folder / f"s{number}.nii.gz"

    def mask(self, number: int) -> Path:
        return self.folder / f"s{number}_mask.nii.gz"

    @property
    def paths(self) -> list[Path]:
        return [self.path(number) for number in range(3)]

    @property
    def masks(self) -> list[Path]:
        return [self.mask(number) for number in range(3)]

    def save(self, path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
        """Write without the checks of the code under test."""
        nibabel.save(nibabel.Nifti1Image(data, self.affines[2] if affine is None else affine), path)


Refused = Callable[..., str]


def refusal(files: Files, command: Callable[..., Any]) -> Refused:
    """``gsvr reconstruct`` on the files with more options: returns the one sentence that refuses."""

    def run(*options: Any, stacks: list[Path] | None = None, masks: list[Path] | None = None) -> str:
        before = sorted(files.folder.rglob("*"))
        masks = files.masks if masks is None else masks
        mask_options = ["--stack-masks", *masks] if masks else []
        inputs = ("--input-stacks", files.paths if stacks is None else stacks, mask_options)
        output = () if "--output-volume" in options else ("--output-volume", files.output / "v.nii.gz")
        result = command("reconstruct", inputs[0], inputs[1], inputs[2], output, *options)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("gsvr: error: ")
        assert sorted(files.folder.rglob("*")) == before
        return lines[0]

    return run
