"""Estimated against true poses, from files: which slices, and at which of their points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gsvr.errors import InputError
from gsvr.evaluation import pose_errors
from gsvr.io.nifti import read_stack
from gsvr.io.sidecar import sidecar_path
from gsvr.io.transforms import SlicePose, read_poses_json
from gsvr.model.geometry import invert, transform_points
from gsvr.model.volume import Volume

# Where nothing tells the pixels of a slice, it is judged at points this far (mm) from the brain's centre.
_FALLBACK_RADIUS = 30.0


def compare_pose_files(poses: Path, true_poses: Path, truth: Volume | None, mask: np.ndarray | None) -> dict[str, Any]:
    """Compare the poses of the slices that both files name and that hold anatomy.

    Where stacks and masks lie beside the true poses as ``gsvr simulate`` writes them (``<stack>.nii.gz`` and
    ``<stack>_mask.nii.gz``), each slice is judged at the pixels inside its stack's mask whose true place is
    inside the truth's mask; a slice without any holds no anatomy. Otherwise every slice is judged at seven
    points: those which truly lie in the centre of the truth's mask and 30 mm from it along each axis.
    Without a truth, the pixels inside the stacks' masks count.

    Parameters
    ----------
    poses, true_poses
        JSON files of poses.
    truth, mask
        The true volume, and where it counts, or None.

    Raises
    ------
    InputError
        If a file cannot be used, the files share no slice, or no slice meets the mask.
    """
    estimated = {(pose.stack, pose.slice_index): pose for pose in read_poses_json(poses)}
    true = {(pose.stack, pose.slice_index): pose for pose in read_poses_json(true_poses)}
    if not true.keys() & estimated.keys():
        raise InputError(f"{poses} and {true_poses} share no slice: the stacks must have the same names in both")
    points, source = _points_of_slices(list(true.values()), true_poses.parent, truth, mask)
    points_of = {key: group for key, group in zip(true, points, strict=True) if len(group)}
    compared = [key for key in points_of if key in estimated]
    if not compared:
        raise InputError(f"{true_poses}: no slice of {poses} meets the truth's mask: give the poses of this truth")
    errors = pose_errors(
        np.stack([estimated[key].matrix for key in compared]),
        np.stack([true[key].matrix for key in compared]),
        [points_of[key] for key in compared],
    )
    entries = [
        {"stack": stack, "slice_index": index, "displacement": float(error)}
        for (stack, index), error in zip(compared, errors.per_slice, strict=True)
    ]
    summary = {name: getattr(errors, name) for name in ("mean", "median", "p90", "p95", "global_rigid")}
    return summary | {
        "points": source,
        "n_slices": len(compared),
        "n_not_estimated": len(points_of) - len(compared),
        "n_without_anatomy": len(true) - len(points_of),
        "slices": entries,
    }


def files_beside(true_poses: Path) -> list[Path]:
    """Stacks, masks and sidecars that `compare_pose_files` may read beside the true poses."""
    images = [
        true_poses.parent / f"{name}.nii.gz" for name in sorted({pose.stack for pose in read_poses_json(true_poses)})
    ]
    masks = [path.with_name(path.name.replace(".nii.gz", "_mask.nii.gz")) for path in images]
    return [*images, *masks, *map(sidecar_path, images)]


def pose_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What a table shows of the record of `compare_pose_files`: names and values."""
    return [
        ("median displacement", f"{record['median']:.3f} mm"),
        ("mean", f"{record['mean']:.3f} mm"),
        ("90th percentile", f"{record['p90']:.3f} mm"),
        ("95th percentile", f"{record['p95']:.3f} mm"),
        ("slices compared", f"{record['n_slices']}"),
        ("not estimated", f"{record['n_not_estimated']}"),
        ("without anatomy", f"{record['n_without_anatomy']}"),
        ("measured at", record["points"]),
    ]


def _points_of_slices(
    slices: list[SlicePose], folder: Path, truth: Volume | None, mask: np.ndarray | None
) -> tuple[list[np.ndarray], str]:
    """Points (acquired world, mm) to judge each slice's pose by, maybe none, and what they are."""
    names = sorted({pose.stack for pose in slices})
    if all((folder / f"{name}{end}.nii.gz").is_file() for name in names for end in ("", "_mask")):
        positions = {name: _pixels_in_mask(folder, name) for name in names}
        points = []
        for pose in slices:
            pixels = positions[pose.stack].get(pose.slice_index, np.empty((0, 3)))
            if truth is not None and mask is not None:
                pixels = pixels[_is_inside(transform_points(pose.matrix, pixels), truth, mask)]
            points.append(pixels)
        return points, f"pixels inside the masks of stack{' and truth' if truth is not None else 's'}"
    if truth is None or mask is None:
        raise InputError(
            f"{folder} does not hold all stacks of the true poses with their masks, which tell where the brain is: "
            "give --truth as well"
        )
    centre = truth.voxel_positions(mask).mean(axis=0)
    offsets = _FALLBACK_RADIUS * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    source = f"mask's centre and 6 points {_FALLBACK_RADIUS:.0f} mm from it"
    return [transform_points(invert(pose.matrix), centre + offsets) for pose in slices], source


def _pixels_in_mask(folder: Path, name: str) -> dict[int, np.ndarray]:
    """Positions (acquired world, mm) of the pixels in each slice's mask."""
    stack = read_stack(folder / f"{name}.nii.gz", folder / f"{name}_mask.nii.gz")
    assert stack.mask is not None
    index = np.argwhere(stack.mask)
    positions = index @ stack.affine[:3, :3].T + stack.affine[:3, 3]
    return {int(k): positions[index[:, 2] == k] for k in np.unique(index[:, 2])}


def _is_inside(points: np.ndarray, truth: Volume, mask: np.ndarray) -> np.ndarray:
    index = np.rint(transform_points(np.linalg.inv(truth.affine), points)).astype(int)
    on_grid = np.all((index >= 0) & (index < np.array(mask.shape)), axis=1)
    inside = np.zeros(len(points), dtype=bool)
    inside[on_grid] = mask[tuple(index[on_grid].T)]
    return inside
