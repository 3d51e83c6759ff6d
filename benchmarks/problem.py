"""One acquisition as every method gets it, and the measure that every method is judged by."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from benchmarks.acquisitions import Acquisition
from benchmarks.scoring import read_truth, scores
from gsvr.io.transforms import SlicePose, read_poses_json, write_poses_json
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import StackInputs, fitting_options, prepare_slices, read_stacks


@dataclass(frozen=True)
class Problem:
    """Slices to reconstruct, and the truth, which only the score may look at.

    Attributes
    ----------
    slices
        The acquisition.
    options
        Default options of the solver, with stages that suit the stacks.
    truth
        What was imaged.
    acquisition
        The files of it all.
    """

    slices: Slices
    options: SolverOptions
    truth: Volume
    acquisition: Acquisition

    @property
    def true_poses(self) -> Float[np.ndarray, "n 4 4"]:
        """Pose of every slice; for the limit that uses them."""
        true = {(pose.stack, pose.slice_index): pose.matrix for pose in read_poses_json(self.acquisition.true_poses)}
        return np.stack([true[key] for key in self._keys()])

    def score(self, volume: Volume, poses: Float[np.ndarray, "n 4 4"]) -> dict[str, float]:
        """PSNR, SSIM, NCC, NRMSE, and pose errors in mm."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "poses.json"
            write_poses_json(path, [SlicePose(*key, pose) for key, pose in zip(self._keys(), poses, strict=True)])
            return scores(volume, path, self.truth, self.acquisition)[0]

    def _keys(self) -> list[tuple[str, int]]:
        """Stack and number of every slice."""
        names = [self.slices.stack_names[number] for number in self.slices.stack_index]
        return [(name, int(index)) for name, index in zip(names, self.slices.slice_index, strict=True)]


def read_problem(acquisition: Acquisition) -> Problem:
    """Read an acquisition and its truth."""
    stacks = read_stacks(StackInputs(acquisition.stacks, acquisition.masks, []))
    options = fitting_options(stacks, SolverOptions())
    return Problem(prepare_slices(stacks, options), options, read_truth(acquisition), acquisition)
