"""``gsvr evaluate``: how good a reconstruction and its poses are where the truth is known."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from gsvr.quality import Comparison
    from gsvr.volume_grid import Volume

logger = logging.getLogger(__name__)

_FULL_COVERAGE = 0.999


def evaluate_command(
    reconstruction: Annotated[Path, typer.Argument(metavar="RECONSTRUCTION", help="NIfTI volume to judge.")],
    truth: Annotated[Path, typer.Option(help="NIfTI volume it should be, of any grid and position.")],
    truth_mask: Annotated[
        Path | None, typer.Option(help="Mask of the truth: where it counts. Default: where it is not zero.")
    ] = None,
    poses: Annotated[Path | None, typer.Option(help="Estimated poses of the slices (JSON).")] = None,
    true_poses: Annotated[
        Path | None,
        typer.Option(help="True poses (JSON); stacks and masks beside the file tell the pixels of a slice."),
    ] = None,
    output_json: Annotated[Path | None, typer.Option(help="Write all numbers to this file.")] = None,
    output_picture: Annotated[
        Path | None, typer.Option(help="Write mid-slices of truth, reconstruction and difference (PNG).")
    ] = None,
    align: Annotated[
        bool,
        typer.Option("--align/--no-align", help="Bring the reconstruction onto the truth rigidly first."),
    ] = True,
) -> None:
    """Compare a reconstruction, and the poses of its slices, with the truth.

    One rigid motion, one gain and one offset of the volume are free in slice-to-volume reconstruction:
    they are fitted first. The poses are freed of a rigid motion of their own.
    """
    from rich.console import Console

    from gsvr.cli.evaluate_poses import compare_pose_files, pose_rows
    from gsvr.errors import InputError
    from gsvr.io.atomic import check_writable_file
    from gsvr.io.nifti import read_volume
    from gsvr.io.record import versions, write_record
    from gsvr.picture import PictureOptions, check_picture_path, save_mid_slices
    from gsvr.volume_grid import Volume

    if (poses is None) != (true_poses is None):
        raise InputError("poses are compared with true ones: give both --poses and --true-poses, or neither")
    if output_json is not None:
        check_writable_file(output_json)
    if output_picture is not None:
        check_picture_path(output_picture)
    true_volume = read_volume(truth, truth_mask)
    comparison = _compare_volumes(read_volume(reconstruction), true_volume, truth, align)
    record: dict[str, Any] = {"reconstruction": reconstruction, "truth": truth}
    record |= _comparison_record(comparison, true_volume)
    tables = [_comparison_table(comparison, record)]
    if poses is not None and true_poses is not None:
        record["poses"] = compare_pose_files(poses, true_poses, true_volume, comparison.mask)
        tables.append(_table("poses against true poses", pose_rows(record["poses"])))
    console = Console()
    for table in tables:
        console.print(table)
    if comparison.coverage < _FULL_COVERAGE:
        logger.warning("the reconstruction's grid leaves out %.1f %% of the mask", 100 * (1 - comparison.coverage))
    if output_json is not None:
        write_record(output_json, record | {"versions": versions()})
    if output_picture is not None:
        shown = Volume(true_volume.data, true_volume.affine, comparison.mask)
        rows = [("truth", shown), ("reconstruction", Volume(comparison.aligned, true_volume.affine))]
        save_mid_slices(output_picture, rows, PictureOptions(difference=True))


def _compare_volumes(reconstruction: Volume, truth: Volume, truth_path: Path, align: bool) -> Comparison:
    from gsvr.errors import InputError
    from gsvr.quality import compare

    try:
        return compare(reconstruction, truth, align=align)
    except ValueError as error:
        raise InputError(f"{truth_path} cannot be compared with ({error}): give another volume or mask") from error


def _comparison_record(comparison: Comparison, truth: Volume) -> dict[str, Any]:
    """What the JSON file says about the volume; the translation is that of the mask's centre."""
    import numpy as np

    from gsvr.geometry import invert, parts_about, transform_points

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
    return _table("reconstruction against truth", rows)


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    return table
