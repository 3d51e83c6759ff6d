"""A finished reconstruction from the files that it left, to be shown again."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gsvr.errors import InputError
from gsvr.io.dicom.pixels import read_dicom_stack
from gsvr.io.field import StoredField, read_field
from gsvr.io.nifti import read_stack, read_volume, stack_name
from gsvr.io.record import read_record
from gsvr.io.transforms import SlicePose, read_poses_json
from gsvr.masks.consensus import project_mask
from gsvr.model.bias_field import N_TERMS, BiasField
from gsvr.model.geometry import invert, transform_points
from gsvr.model.morphology import box_near
from gsvr.model.point_spread import PROFILES, ProfileName
from gsvr.model.slices import Slices, Stack, slices_from_stacks
from gsvr.model.volume import Volume
from gsvr.operators.any_field import predicted
from gsvr.report.examination import Acquisition, Examination
from gsvr.workflows.inputs import StackInputs, find_series
from gsvr.workflows.provenance import file_hash, hashed_files

logger = logging.getLogger(__name__)

# Space (mm) around the brain that is predicted of every slice, beyond its motion within the stack.
_AROUND = 15.0


def stored_examination(
    record_path: Path,
    input_stacks: Sequence[Path] = (),
    with_slices: bool = True,
    input_dicom: Sequence[Path] = (),
) -> Examination:
    """Read a record and the files beside it; slices are predicted anew.

    Parameters
    ----------
    record_path
        What `gsvr.io.record.read_record` reads.
    input_stacks
        Where the stacks are, in any order; default: beside the record, or in the present folder. Without them there is
        less to show.
    with_slices
        Read the stacks and predict their slices.
    input_dicom
        In place of stacks: folders of the examination, of a run that was made from DICOM.

    Raises
    ------
    InputError
        If the record, the volume or the poses cannot be read, or a stack or examination that is given is not the run's.
    """
    record = read_record(record_path)
    outputs = record.get("outputs")
    if not isinstance(outputs, dict) or not isinstance(record.get("stacks", []), list):
        raise InputError(f"{record_path} does not say where its volume is: reconstruct again")
    volume_path = _needed(outputs, "volume", record_path)
    volume = read_volume(volume_path, _found(outputs.get("mask"), record_path))
    uncertainty_path = _found(outputs.get("uncertainty"), record_path)
    uncertainty = None if uncertainty_path is None else read_volume(uncertainty_path)
    poses = read_poses_json(_needed(outputs, "poses", record_path))
    field_path = _found(outputs.get("model"), record_path)
    stacks: list[Stack] = []
    if with_slices and input_dicom:
        stacks = _stacks_from_dicom(record, record_path, input_dicom)
    elif with_slices:
        stacks = _stacks(record, record_path, input_stacks)
    acquisition = None
    if field_path is not None and stacks:
        profile = (record.get("options") or {}).get("profile")
        if profile not in PROFILES:
            raise InputError(f"{record_path} names no slice profile ({profile!r}): reconstruct again")
        bias = _bias(record, record_path, len(stacks))
        factor, is_gaussian = _thickness(record, record_path)
        profile = "gaussian" if is_gaussian else profile
        acquisition = _acquisition(read_field(field_path), stacks, poses, profile, bias, factor)
    return Examination(stack_name(volume_path), record, volume, poses, acquisition, uncertainty)


def _thickness(record: dict[str, Any], record_path: Path) -> tuple[float, bool]:
    """By what a run multiplied the thickness of the slices, and whether it took them for Gaussian."""
    told = record.get("thickness")
    if not (isinstance(told, dict) and told.get("used")):
        return 1.0, False
    factor = told.get("factor")
    if not (isinstance(factor, int | float) and 0 < factor < np.inf):
        raise InputError(f"{record_path}: its factor on the thickness is {factor!r}: reconstruct again")
    return float(factor), bool(told.get("gaussian"))


def _bias(record: dict[str, Any], record_path: Path, n_stacks: int) -> BiasField | None:
    """The bias field of a run; None if there was none."""
    told = record.get("bias_field")
    if told is None:
        return None
    try:
        arrays = {name: np.array(told[name], np.float64) for name in ("centres", "coefficients", "means")}
        radius = float(told["radius"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{record_path} holds a bias field that cannot be read: reconstruct again") from error
    shapes = [array.shape for array in arrays.values()]
    finite = all(np.isfinite(array).all() for array in arrays.values()) and 0 < radius < np.inf
    if shapes != [(n_stacks, 3), (n_stacks, N_TERMS), (n_stacks, N_TERMS)] or not finite:
        raise InputError(f"{record_path} holds a bias field that is none of {n_stacks} stacks: reconstruct again")
    return BiasField(radius=radius, **arrays)


def _needed(outputs: dict[str, Any], name: str, record_path: Path) -> Path:
    path = _found(outputs.get(name), record_path)
    if path is None:
        raise InputError(f"the {name} of {record_path} is not beside it ({outputs.get(name)}): bring the two together")
    return path


def _found(path: Any, record_path: Path) -> Path | None:
    """A file of the run: beside the record, or else where it was."""
    if not isinstance(path, str) or not path:
        return None
    candidates = (record_path.parent / Path(path).name, Path(path), record_path.parent / path)
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), None)


def _stacks(record: dict[str, Any], record_path: Path, given: Sequence[Path]) -> list[Stack]:
    """The stacks of a run in its order, or none if one is missing."""
    entries = record.get("stacks", [])
    settings = record.get("settings") or {}
    known = [Path(str(path)) for path in settings.get("input_stacks") or []]
    if not known and len(given) == len(entries):
        known = list(given)
    if len(known) != len(entries):
        return []
    for path in given:
        if path.name not in {other.name for other in known}:
            raise InputError(f"{path} is none of the `input_stacks` of {record_path}: give the stacks of that run")
    read = [file for file in record.get("inputs") or [] if file.get("role") == "stack"]
    stacks = []
    for entry, path in zip(entries, known, strict=True):
        told = next((other for other in given if other.name == path.name), None)
        place = told or _found(str(path), record_path)
        hashes = [file.get("sha256") for file in read if file.get("name") == path.name]
        if place is not None and hashes and file_hash(place) not in hashes:
            if told is not None:
                raise InputError(f"{told} is another file than that of {record_path}: give the stacks of that run")
            place = None
        if place is None:
            logger.warning("%s is not beside the record: give --input-stacks to show the slices", path.name)
            return []
        order = str(settings.get("slice_order", "auto"))
        stack = read_stack(place, thickness=float(entry["thickness"]), order=order)
        stacks.append(replace(stack, name=str(entry["name"])))
    return stacks


def _stacks_from_dicom(record: dict[str, Any], record_path: Path, folders: Sequence[Path]) -> list[Stack]:
    """The stacks of a run that was made from DICOM, in its order."""
    settings = record.get("settings") or {}
    inputs = StackInputs(dicom=folders, dicom_series=settings.get("dicom_series") or ())
    told = [file.get("sha256") for file in record.get("inputs") or [] if file.get("role") == "dicom"]
    if not told:
        raise InputError(f"{record_path} is of no DICOM files: give its `input_stacks`")
    if [file.sha256 for file in hashed_files(inputs)] != told:
        raise InputError(f"the DICOM files are others than those of {record_path}: give those of that run, all of them")
    found = {stack.name: stack for stack in find_series(inputs)}
    order = str(settings.get("slice_order", "auto"))
    return [
        read_dicom_stack(found[entry["name"]], float(entry["thickness"]), order) for entry in record.get("stacks", [])
    ]


def _acquisition(
    stored: StoredField,
    stacks: Sequence[Stack],
    poses: Sequence[SlicePose],
    profile: ProfileName,
    bias: BiasField | None,
    thickness_factor: float,
) -> Acquisition | None:
    """Slices near the brain, with the pixels that the brain mask leaves, and what the field predicts of them."""
    if stored.mask is None or stored.mask.mask is None:
        return None
    placed = {(pose.stack, pose.slice_index): pose for pose in poses}
    brain = stored.mask.outline(stored.mask.mask)
    views = [_view(stack, [pose for pose in poses if pose.stack == stack.name], brain) for stack in stacks]
    slices = slices_from_stacks(stacks, fields_of_view=views, masks=views)
    keys = slices.keys
    matrices = np.stack([placed[key].matrix for key in keys])
    gains = np.array([float(placed[key].details.get("gain", 1.0)) for key in keys])
    slices = _masked(slices, stored.mask, stored.masks.margin, matrices, [placed[key] for key in keys])
    slices = replace(slices, thicknesses=thickness_factor * slices.thicknesses)
    prediction = predicted(stored.field, slices, matrices, gains, profile)
    if bias is not None:
        prediction = prediction * bias.at(slices)
    return Acquisition(stacks, slices, matrices, prediction)


def _view(stack: Stack, poses: Sequence[SlicePose], brain: np.ndarray) -> np.ndarray:
    """Slices that have a pose, near where the brain was while they were acquired."""
    view = np.zeros(stack.data.shape, bool)
    matrices = [pose.matrix for pose in poses if pose.details.get("used", True)] or [np.eye(4)]
    acquired = np.concatenate([transform_points(invert(matrix), brain) for matrix in matrices])
    view[box_near(acquired, stack.affine, stack.data.shape, _AROUND)] = True
    listed = np.zeros(stack.n_slices, bool)
    listed[[pose.slice_index for pose in poses]] = True
    return view & listed


def _masked(slices: Slices, mask: Volume, margin: float, matrices: np.ndarray, poses: Sequence[SlicePose]) -> Slices:
    inside = project_mask(mask, slices, matrices, margin)
    used = np.array([bool(pose.details.get("used", True)) for pose in poses])
    return slices.with_mask(inside & slices.per_pixel(used))
