"""How good a volume and poses are for a simulated acquisition: the same measure for every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.acquisitions import Acquisition
from gsvr.cli.evaluate_poses import compare_pose_files
from gsvr.evaluation import Comparison, compare, measure
from gsvr.io.nifti import read_volume
from gsvr.model.volume import Volume

# Inside the mask, voxels above this share of the truth's maximum are brain; the rest is background around it.
_BRAIN_SHARE = 0.05


def read_truth(acquisition: Acquisition) -> Volume:
    """What was imaged, with its mask."""
    return read_volume(acquisition.truth, acquisition.truth_mask)


def scores(volume: Volume, poses: Path, truth: Volume, acquisition: Acquisition) -> tuple[dict[str, Any], Comparison]:
    """Image metrics after rigid alignment, gain and offset, and displacements (mm) of the slices that show brain.

    Parameters
    ----------
    poses
        Estimated poses (JSON).
    """
    comparison = compare(volume, truth)
    brain = comparison.mask & (truth.data > _BRAIN_SHARE * truth.data[comparison.mask].max())
    whole, inner = comparison.quality, measure(comparison.aligned, truth.data, brain)
    errors = compare_pose_files(poses, acquisition.true_poses, truth, comparison.mask)
    found = {name: getattr(whole, name) for name in ("psnr", "ssim", "ncc", "nrmse")}
    found |= {"psnr_brain": inner.psnr, "ssim_brain": inner.ssim, "coverage": comparison.coverage}
    found |= {f"pose_{name}": errors[name] for name in ("median", "mean", "p90", "p95")}
    found |= {"slices_compared": errors["n_slices"], "slices_not_estimated": errors["n_not_estimated"]}
    return found, comparison
