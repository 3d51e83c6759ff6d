"""A reconstruction and its poses against the truth, from files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsvr.cli.evaluate_poses import compare_pose_files, pose_rows
from gsvr.cli.tables import result_table
from gsvr.errors import InputError
from gsvr.evaluation import Comparison, compare
from gsvr.evaluation.image import voxels_that_count
from gsvr.io.nifti import read_volume
from gsvr.model.geometry import invert, parts_about, transform_points
from gsvr.model.volume import Volume
from gsvr.report.picture import PictureOptions, save_mid_slices

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger(__name__)

_FULL_COVERAGE = 0.999


def evaluate_truth(
    reconstruction: Path,
    truth: Path,
    truth_mask: Path | None,
    poses: Path | None,
    true_poses: Path | None,
    align: bool,
    picture: Path | None,
) -> tuple[dict[str, Any], list[Table]]:
    """Compare, and make the record and the tables of it.

    Parameters
    ----------
    reconstruction, truth
        NIfTI volumes.
    truth_mask
        Where the truth counts, or None: where it is not zero.
    poses, true_poses
        Poses of the slices (JSON), both or neither.
    align
        Bring the reconstruction onto the truth rigidly first.
    picture
        Where mid-slices of truth, reconstruction and difference go (PNG).

    Raises
    ------
    InputError
        If a file cannot be used or compared.
    """
    true_volume = read_volume(truth, truth_mask)
    comparison = _compare_volumes(read_volume(reconstruction), true_volume, truth, align)
    record: dict[str, Any] = {"reconstruction": reconstruction.name, "truth": truth.name}
    record |= _comparison_record(comparison, true_volume)
    tables = [_comparison_table(comparison, record)]
    if poses is not None and true_poses is not None:
        record["poses"] = compare_pose_files(poses, true_poses, true_volume, comparison.mask)
        tables.append(result_table("poses against true poses", pose_rows(record["poses"])))
    if comparison.coverage < _FULL_COVERAGE:
        logger.warning("the reconstruction's grid leaves out %.1f %% of the mask", 100 * (1 - comparison.coverage))
    if picture is not None:
        shown = replace(true_volume, mask=comparison.mask)
        rows = [("truth", shown), ("reconstruction", Volume(comparison.aligned, true_volume.affine))]
        save_mid_slices(picture, rows, PictureOptions(difference=True))
    return record, tables


def evaluate_poses(
    poses: Path, true_poses: Path, truth: Path | None, truth_mask: Path | None
) -> tuple[dict[str, Any], list[Table]]:
    """Compare poses alone, and make the record and the table of it; see `evaluate_truth`."""
    volume = None if truth is None else read_volume(truth, truth_mask)
    mask = None if volume is None else voxels_that_count(volume)
    compared = compare_pose_files(poses, true_poses, volume, mask)
    return {"poses": compared}, [result_table("poses against true poses", pose_rows(compared))]


def _compare_volumes(reconstruction: Volume, truth: Volume, truth_path: Path, align: bool) -> Comparison:
    try:
        return compare(reconstruction, truth, align=align)
    except ValueError as error:
        raise InputError(f"{truth_path} cannot be compared with ({error}): give another volume or mask") from error


def _comparison_record(comparison: Comparison, truth: Volume) -> dict[str, Any]:
    """What the JSON file says about the volume; the translation is that of the mask's centre."""
    centre = truth.voxel_positions(comparison.mask).mean(axis=0)
    rotation, translation = parts_about(comparison.pose, transform_points(invert(comparison.pose), centre))
    return {
        "quality": comparison.quality,
        "alignment": {
            "convention": "matrix maps the reconstruction's world to the truth's, RAS+ in mm",
            "matrix": comparison.pose,
            "rotation_degrees": float(np.degrees(np.linalg.norm(rotation))),
            "translation_mm": float(np.linalg.norm(translation)),
            "gain": comparison.gain,
            "offset": comparison.offset,
        },
        "coverage": comparison.coverage,
    }


def _comparison_table(comparison: Comparison, record: dict[str, Any]) -> Table:
    quality, alignment = comparison.quality, record["alignment"]
    rows = [
        ("PSNR", f"{quality.psnr:.2f} dB"),
        ("SSIM", f"{quality.ssim:.4f}"),
        ("NCC", f"{quality.ncc:.4f}"),
        ("NRMSE", f"{quality.nrmse:.4f}"),
        ("voxels in the mask", f"{quality.n_voxels:,}"),
        ("inside the reconstruction's grid", f"{100 * comparison.coverage:.1f} %"),
        ("aligned by", f"{alignment['rotation_degrees']:.2f} deg, {alignment['translation_mm']:.2f} mm"),
        ("gain and offset", f"{comparison.gain:.4g}, {comparison.offset:.4g}"),
    ]
    return result_table("reconstruction against truth", rows)
