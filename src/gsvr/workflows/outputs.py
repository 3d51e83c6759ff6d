"""What a reconstruction leaves on disk, and under which names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.io.atomic import check_writable_file, check_writable_folder
from gsvr.io.bids_names import inherited_sidecars
from gsvr.io.dicom.derived import INSTANCE_NAMES, derived_series, write_derived_series
from gsvr.io.field import write_field
from gsvr.io.nifti import check_volume_path, stack_name, write_volume
from gsvr.io.outputs import OutputFolder, begin_writing, refuse_overwriting
from gsvr.io.record import RECORD_FORMAT, to_plain, versions, write_record
from gsvr.io.sidecar import sidecar_path
from gsvr.io.slice_folder import SLICE_NAMES, write_slice_folder
from gsvr.io.transforms import SlicePose, write_itk_transform, write_poses_json
from gsvr.masks.first import StackMasks
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.render.volume import render_deviation
from gsvr.report.examination import Acquisition, Examination
from gsvr.report.page import check_report_path, write_report
from gsvr.report.picture import PictureOptions, check_picture_path, save_mid_slices
from gsvr.solver.state import Result
from gsvr.workflows.orientation import Space
from gsvr.workflows.pipeline import Reconstruction
from gsvr.workflows.provenance import heard_warnings, without_folders

# Enough for the variance of a voxel that is averaged with its neighbours; together they cost about a reconstruction.
UNCERTAINTY_SAMPLES = 8

# Bytes; names of files have 255, and the number of a slice needs some.
_LONGEST_STACK_NAME = 220
_STACK_MASK_NAMES = r".+_mask\.nii\.gz"
# What the name of the transform from the scanner to the axes of the brain ends with.
_ORIENTATION_END = "_orientation.tfm"


@dataclass(frozen=True)
class OutputPaths:
    """Where everything goes.

    Attributes
    ----------
    volume, mask
        NIfTI files.
    poses
        Poses of all slices (JSON).
    transforms
        Folder of ITK transform files, one a slice.
    model
        The field (safetensors), for ``gsvr render``.
    record
        Versions, options, timings and what became of each slice (JSON).
    picture
        Mid-slices (PNG).
    slices, simulated_slices
        Folders for motion-corrected slices and for what the model predicts of them, or None.
    uncertainty
        Standard deviation of every voxel (NIfTI), or None.
    stack_masks
        Folder for the masks that every stack started with, or None.
    report
        Page with all there is to see (HTML), or None.
    dicom
        Folder for the volume as a derived series, or None.
    orientation
        Transform from the world of the scanner to that of the volume (ITK), or None.
    transform_name
        Name of the transform of a slice, from the name of the stack (`stem`: without what follows its last underscore)
        and the number of the slice.
    """

    volume: Path
    mask: Path
    poses: Path
    transforms: Path
    model: Path
    record: Path
    picture: Path
    slices: Path | None = None
    simulated_slices: Path | None = None
    uncertainty: Path | None = None
    stack_masks: Path | None = None
    report: Path | None = None
    dicom: Path | None = None
    orientation: Path | None = None
    transform_name: str = "{stack}_slice-{index:03d}.tfm"

    @staticmethod
    def beside(volume: Path, space: Space = "scanner", **given: Path | None) -> OutputPaths:
        """Names that follow the volume's, except for those given: ``X.nii.gz`` -> ``X_mask.nii.gz``, ...

        Only what is not in the space of the scanner has a transform from there.
        """
        if not volume.name:
            raise InputError(f"{volume} is a folder: give the name of the file to write")
        stem = stack_name(volume)
        paths: dict[str, Path | None] = {
            "mask": volume.with_name(f"{stem}_mask.nii.gz"),
            "poses": volume.with_name(f"{stem}_poses.json"),
            "transforms": volume.with_name(f"{stem}_transforms"),
            "model": volume.with_name(f"{stem}_field.safetensors"),
            "record": volume.with_name(f"{stem}.json"),
            "picture": volume.with_name(f"{stem}.png"),
        }
        if space != "scanner":
            paths["orientation"] = volume.with_name(f"{stem}{_ORIENTATION_END}")
        paths.update({name: path for name, path in given.items() if path is not None})
        return OutputPaths(volume=volume, **paths)  # pyright: ignore[reportArgumentType]

    def check(self, stacks: Sequence[Path] = (), masks: Sequence[Path | None] = ()) -> None:
        """Refuse before any work is done if something could not be written, or would overwrite an input.

        Parameters
        ----------
        stacks, masks
            The input; sidecars beside the stacks are kept as well.

        Raises
        ------
        InputError
            Naming the first path that cannot be written.
        """
        for path in (self.volume, self.mask, self.uncertainty):
            if path is not None:
                check_volume_path(path)
        check_picture_path(self.picture)
        if self.report is not None:
            check_report_path(self.report)
        for path in (self.poses, self.model, self.record, self.orientation):
            if path is not None:
                check_writable_file(path)
        for folder in (self.transforms, self.slices, self.simulated_slices, self.stack_masks, self.dicom):
            if folder is not None:
                check_writable_folder(folder)
        for path in stacks:
            if len(os.fsencode(stack_name(path))) > _LONGEST_STACK_NAME:
                raise InputError(f"{path}: the name is too long for the files of its slices: rename it")
        sidecars = [*map(sidecar_path, stacks), *(path for stack in stacks for path in inherited_sidecars(stack))]
        refuse_overwriting(self.written, (*stacks, *masks, *sidecars))

    @property
    def transform_folder(self) -> OutputFolder:
        """The folder of transforms, and what may be their names."""
        names = re.sub(r"\\\{(?:stack|stem)\\\}", ".+", re.escape(self.transform_name))
        return OutputFolder(self.transforms, re.sub(r"\\\{index:.*?\\\}", r"\\d+", names))

    @property
    def written(self) -> list[Path | OutputFolder]:
        """Every file and folder of files that is going to be written."""
        files = (self.volume, self.mask, self.poses, self.model, self.record, self.picture)
        files += (self.uncertainty, self.report, self.orientation)
        folders = [self.transform_folder]
        folders += [OutputFolder(path, SLICE_NAMES) for path in (self.slices, self.simulated_slices) if path]
        if self.stack_masks is not None:
            folders.append(OutputFolder(self.stack_masks, _STACK_MASK_NAMES))
        if self.dicom is not None:
            folders.append(OutputFolder(self.dicom, INSTANCE_NAMES))
        return [*(path for path in files if path is not None), *folders]


def write_outputs(
    reconstruction: Reconstruction, paths: OutputPaths, settings: dict[str, Any], command: str | None = None
) -> None:
    """Write everything; each file whole or not at all.

    Parameters
    ----------
    settings
        Options of the run, for the record.
    command
        The command line, for the record; None: there was none.
    """
    with heard_warnings() as warnings:
        _write_outputs(reconstruction, paths, settings, command, warnings)


def _write_outputs(
    reconstruction: Reconstruction,
    paths: OutputPaths,
    settings: dict[str, Any],
    command: str | None,
    warnings: list[str],
) -> None:
    result, volume = reconstruction.result, reconstruction.volume
    assert volume.mask is not None
    mask, records = volume.mask, slice_records(reconstruction.result)
    turn, space = reconstruction.turn, space_of(reconstruction)
    metadata = {"noise": result.noise, "space": space, "margin": reconstruction.job.options.masks.margin}
    begin_writing(paths.written, paths.record)
    # side by side: compressing and drawing take about as long as all the small files
    parallel_map(
        lambda write: write(),
        (
            lambda: _save_picture(paths.picture, reconstruction),
            lambda: write_volume(paths.volume, volume.data, volume.affine, space),
            lambda: write_volume(paths.mask, mask, volume.affine, space),
            lambda: write_field(paths.model, result.field, metadata, result.mask),
            lambda: _write_poses(paths, records),
        ),
    )
    deviation = None
    if paths.uncertainty is not None:
        deviation = render_deviation(
            result.deviations, volume, result.difference, backend=reconstruction.job.options.backend
        )
        write_volume(paths.uncertainty, deviation.data, deviation.affine, space)
    if paths.orientation is None:
        other = f"{stack_name(paths.volume)}{_ORIENTATION_END}"
        OutputFolder(paths.volume.parent, re.escape(other)).warn_of_others(())
    else:
        write_itk_transform(paths.orientation, np.eye(4) if turn is None else turn.matrix)
    if paths.slices is not None:
        write_slice_folder(paths.slices, result.slices, result.poses, result.slices.values)
    if paths.simulated_slices is not None:
        write_slice_folder(paths.simulated_slices, result.slices, result.poses, result.prediction)
    if paths.stack_masks is not None:
        write_stack_masks(paths.stack_masks, reconstruction.job.stacks, reconstruction.job.masks)
    if paths.dicom is not None:
        _write_dicom(paths.dicom, reconstruction)
    record = to_plain(run_record(reconstruction, paths, settings, command, warnings))
    if paths.report is not None:
        write_report(paths.report, _examination(reconstruction, stack_name(paths.volume), record, records, deviation))
    # last of all, so that a record means that everything is there
    write_record(paths.record, record)


def _write_dicom(folder: Path, reconstruction: Reconstruction) -> None:
    comment = f"Verdict: {reconstruction.verdict.sentence}"
    origin = reconstruction.job.dicom
    if origin is not None and space_of(reconstruction) == "anatomical":  # no longer where the other images are
        origin = replace(origin, frame_of_reference=None)
    instances = derived_series(reconstruction.volume, origin, comment)
    written = write_derived_series(folder, instances)
    OutputFolder(folder, INSTANCE_NAMES).warn_of_others(path.name for path in written)


def space_of(reconstruction: Reconstruction) -> Space:
    """The world that the volume is in."""
    return "scanner" if reconstruction.turn is None else reconstruction.turn.space


def _examination(
    reconstruction: Reconstruction,
    name: str,
    record: dict[str, Any],
    records: list[SlicePose],
    deviation: Volume | None,
) -> Examination:
    result = reconstruction.result
    acquisition = Acquisition(reconstruction.job.stacks, result.slices, result.poses, result.prediction)
    return Examination(name, record, reconstruction.volume, records, acquisition, deviation)


def _save_picture(path: Path, reconstruction: Reconstruction) -> None:
    """Mid-slices of the volume and, where masks were found automatically, of those stacks; all masks are outlined."""
    volume, masks = reconstruction.volume, reconstruction.job.masks
    anatomical = space_of(reconstruction) == "anatomical"
    rows = [("reconstruction, turned to the axes of the brain" if anatomical else "reconstruction", volume)]
    rows += [
        (f"{stack.name}, brain found", Volume(stack.data, stack.affine, mask))
        for stack, mask, found in zip(reconstruction.job.stacks, masks.masks, masks.found, strict=True)
        if found
    ]
    # stacks have windows and places of their own
    alone, whose = len(rows) == 1, "brain" if anatomical else "patient"
    options = PictureOptions(shared_window=alone, shared_position=alone, outline=True, whose=whose)
    save_mid_slices(path, rows, options, reconstruction.verdict.sentence)


def mask_paths(folder: Path, names: Iterable[str]) -> list[Path]:
    """Where the masks of stacks of these names go."""
    return [folder / f"{name}_mask.nii.gz" for name in names]


def write_stack_masks(folder: Path, stacks: Sequence[Stack], masks: StackMasks) -> list[Path]:
    """Write the mask of every stack, on its grid; the names are those of the stacks, and ``_mask``."""
    paths = mask_paths(folder, (stack.name for stack in stacks))
    for path, stack, mask in zip(paths, stacks, masks.masks, strict=True):
        write_volume(path, mask, stack.affine)
    return paths


def _write_poses(paths: OutputPaths, records: list[SlicePose]) -> None:
    write_poses_json(paths.poses, records)
    names = [
        paths.transform_name.format(stack=record.stack, stem=record.stack.rpartition("_")[0], index=record.slice_index)
        for record in records
    ]
    for name, record in zip(names, records, strict=True):
        write_itk_transform(paths.transforms / name, record.matrix)
    paths.transform_folder.warn_of_others(names)


def slice_records(result: Result) -> list[SlicePose]:
    """Pose of every slice with what became of it. Slices farther from the mask than it can grow are not listed."""
    slices = result.slices
    pixels = slices.sum_per_slice(slices.mask)
    return [
        SlicePose(
            stack=slices.stack_names[slices.stack_index[s]],
            slice_index=int(slices.slice_index[s]),
            matrix=result.poses[s],
            details={
                "pixels": int(pixels[s]),
                "used": bool(pixels[s] > 0),
                "weight": float(result.slice_weights[s]),
                "gain": float(result.gains[s]),
                "residual": float(result.residuals[s]),
                "deviation_mm": float(result.pose_deviations[s, 0]),
                "deviation_degrees": float(result.pose_deviations[s, 1]),
                "time": float(slices.times[s]),
            },
        )
        for s in range(slices.n_slices)
    ]


def run_record(
    reconstruction: Reconstruction,
    paths: OutputPaths,
    settings: dict[str, Any],
    command: str | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The JSON record of a run; files have their names alone, without folders.

    Parameters
    ----------
    settings, command
        As for `write_outputs`.
    warnings
        Given since the reconstruction was finished.
    """
    result, volume = reconstruction.result, reconstruction.volume
    spreads = {} if result.bias is None else result.bias.spreads(result.slices)
    provenance = reconstruction.job.provenance
    return {
        "format": RECORD_FORMAT,
        "version": 1,
        "date": provenance.started.isoformat(timespec="seconds"),
        "command": command,
        "run_hash": provenance.run_hash(float(volume.spacing[0])),
        "inputs": provenance.files,
        "warnings": [*reconstruction.warnings, *warnings],
        "versions": versions(),
        "settings": without_folders(settings),
        "options": reconstruction.job.options,
        "stacks": [
            {
                "name": stack.name,
                "slices": stack.n_slices,
                "spacing": stack.spacing,
                "thickness": stack.thickness,
                "thickness_from": stack.thickness_source,
                "mask_given": stack.mask is not None,
                "mask_found": found,
                "bias": spreads.get(stack.name, 0.0),
            }
            for stack, found in zip(reconstruction.job.stacks, reconstruction.job.masks.found, strict=True)
        ],
        "bias_field": result.bias if any(spreads.values()) else None,
        "outputs": {
            item.name: _place(getattr(paths, item.name), paths.record)
            for item in fields(paths)
            if item.name != "transform_name"
        },
        "timings_seconds": reconstruction.timings,
        "wall_seconds": provenance.seconds,
        "iterations": reconstruction.iterations,
        "gaussians": result.field.n_gaussians,
        "field_choice": result.choice,
        "thickness": result.thickness,
        "pixels": result.slices.n_pixels,
        "noise": result.noise,
        "volume_shape": volume.data.shape,
        "verdict": reconstruction.verdict,
        "orientation": reconstruction.turn,
        "slices": [
            {"stack": record.stack, "slice_index": record.slice_index, **record.details}
            for record in slice_records(reconstruction.result)
        ],
    }


def _place(path: Path | None, record: Path) -> Path | None:
    """Where an output is, seen from the folder of the record, or its name if that is elsewhere."""
    if path is None:
        return None
    folder = record.absolute().parent
    return path.absolute().relative_to(folder) if path.absolute().is_relative_to(folder) else Path(path.name)
