"""One acquisition as every method gets it, and the measure that every method is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from benchmarks.acquisitions import Acquisition
from benchmarks.scoring import PoseScorer, read_truth, volume_scores
from gsvr.io.transforms import read_poses_json
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import StackInputs, prepare


@dataclass(frozen=True)
class Problem:
    """Slices to reconstruct, and the truth, which only the score may look at.

    Attributes
    ----------
    slices
        The acquisition.
    options
        Default options of the solver, with stages that suit the stacks.
    true_poses
        Pose of every slice; for the limit that uses them.
    truth
        What was imaged.
    scorer
        Compares poses with the true ones.
    """

    slices: Slices
    options: SolverOptions
    true_poses: Float[np.ndarray, "n 4 4"]
    truth: Volume
    scorer: PoseScorer

    def score(self, volume: Volume, poses: Float[np.ndarray, "n 4 4"]) -> dict[str, float]:
        """PSNR, SSIM, NCC, NRMSE, and pose errors in mm."""
        scores, _ = volume_scores(volume, self.truth)
        return scores | self.scorer.scores(slice_keys(self.slices), poses)


def slice_keys(slices: Slices) -> list[tuple[str, int]]:
    """Stack and number of every slice."""
    names = [slices.stack_names[number] for number in slices.stack_index]
    return [(name, int(index)) for name, index in zip(names, slices.slice_index, strict=True)]


def read_problem(acquisition: Acquisition) -> Problem:
    """Read an acquisition and its truth."""
    job = prepare(StackInputs(acquisition.stacks, acquisition.masks, []))
    assert isinstance(job.options, SolverOptions)
    truth = read_truth(acquisition)
    true = {(pose.stack, pose.slice_index): pose.matrix for pose in read_poses_json(acquisition.true_poses)}
    return Problem(
        slices=job.slices,
        options=job.options,
        true_poses=np.stack([true[key] for key in slice_keys(job.slices)]),
        truth=truth,
        scorer=PoseScorer(job.stacks, acquisition.true_poses, truth),
    )
