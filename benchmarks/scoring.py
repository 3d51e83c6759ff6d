"""How good a volume and poses are for a simulated acquisition: the same measure for every method."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.acquisitions import Acquisition
from gsvr.evaluation import Comparison, compare, measure, pose_errors
from gsvr.io.nifti import read_volume
from gsvr.io.transforms import read_poses_json
from gsvr.model.geometry import transform_points
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume

# Inside the mask, voxels above this share of the truth's maximum are brain; the rest is background around it.
_BRAIN_SHARE = 0.05


def read_truth(acquisition: Acquisition) -> Volume:
    """What was imaged, with its mask."""
    return read_volume(acquisition.truth, acquisition.truth_mask)


def volume_scores(volume: Volume, truth: Volume) -> tuple[dict[str, float], Comparison]:
    """Image metrics after rigid alignment, gain and offset: in the truth's mask, and in the brain alone."""
    comparison = compare(volume, truth)
    brain = comparison.mask & (truth.data > _BRAIN_SHARE * truth.data[comparison.mask].max())
    inner = measure(comparison.aligned, truth.data, brain)
    quality = comparison.quality
    scores = {
        "psnr": quality.psnr,
        "ssim": quality.ssim,
        "ncc": quality.ncc,
        "nrmse": quality.nrmse,
        "psnr_brain": inner.psnr,
        "ssim_brain": inner.ssim,
        "coverage": comparison.coverage,
    }
    return scores, comparison


class PoseScorer:
    """Pose errors of the slices of one acquisition, at the pixels that truly show the brain.

    Parameters
    ----------
    stacks
        The acquisition, with masks.
    true_poses
        File of the true poses.
    truth
        What was imaged, with its mask.
    """

    def __init__(self, stacks: list[Stack], true_poses: Path, truth: Volume) -> None:
        self.true = {(pose.stack, pose.slice_index): pose.matrix for pose in read_poses_json(true_poses)}
        self._points: dict[tuple[str, int], np.ndarray] = {}
        assert truth.mask is not None
        to_index = np.linalg.inv(truth.affine)
        for stack in stacks:
            assert stack.mask is not None
            index = np.argwhere(stack.mask)
            placed = transform_points(stack.affine, index)
            for number in np.unique(index[:, 2]):
                key = (stack.name, int(number))
                points = placed[index[:, 2] == number]
                voxel = np.rint(transform_points(to_index @ self.true[key], points)).astype(int)
                on_grid = np.all((voxel >= 0) & (voxel < np.array(truth.mask.shape)), axis=1)
                points, voxel = points[on_grid], voxel[on_grid]
                points = points[truth.mask[tuple(voxel.T)]]
                if len(points):
                    self._points[key] = points

    def scores(self, keys: list[tuple[str, int]], poses: np.ndarray) -> dict[str, float]:
        """Displacements (mm) of the slices named by `keys` (stack, slice index) that show brain.

        Parameters
        ----------
        keys, poses
            Slices and their estimated poses, acquired world -> volume world.
        """
        kept = [number for number, key in enumerate(keys) if key in self._points]
        names = [keys[number] for number in kept]
        true = np.stack([self.true[name] for name in names])
        errors = pose_errors(poses[kept], true, [self._points[name] for name in names])
        return {
            "pose_median": errors.median,
            "pose_mean": errors.mean,
            "pose_p90": errors.p90,
            "pose_p95": errors.p95,
            "slices_compared": len(kept),
            "slices_not_estimated": len(self._points) - len(kept),
        }
