"""A folder of single slices, each with its pose in its affine.

``N.nii.gz`` and ``mask_N.nii.gz``, as NeSVoR and SVoRT write them; the third axis of a slice is as long as the slice is
thick.

``slices.json``, a file of poses, tells of slice N, in its place N, which slice of which stack it is, when it was
acquired, and the pose that its affine holds. Folders of other programs have none.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.io.image import GRID_TOLERANCE, Image, grid_distance, load_image, size
from gsvr.io.mask import is_inside
from gsvr.io.nifti import refuse_outliers, write_volume
from gsvr.io.outputs import OutputFolder
from gsvr.io.sidecar import SliceOrder, acquisition_times
from gsvr.io.transforms import SlicePose, read_poses_json, write_poses_json
from gsvr.model.slices import Slices, Stack, slice_frame

logger = logging.getLogger(__name__)

SLICE_NAMES = r"(mask_)?\d+\.nii\.gz|slices\.json"
_LIST = "slices.json"
_SLICE = re.compile(r"(\d+)\.nii(\.gz)?")
# Without a list, a stack ends where the next slice is turned by more than this (cosine), or lies so many slices back.
_TURNED, _BACK = np.cos(np.radians(35)), 3
# No stack has so many slices, and no scanner has room for slices so far (mm) from the others of their stack.
_MOST_SLICES, _FARTHEST = 1000, 1000.0
# How far (degrees) the slices of a stack may be from parallel in acquired world, if the list is that of the folder.
_PARALLEL = 0.5


@dataclass(frozen=True, repr=False)
class SliceFolder:
    """What is in a folder of slices.

    The slices of a stack are put side by side, so that it is a stack like any other, and their poses put each where its
    affine says.

    Attributes
    ----------
    stacks
        Zero, and outside the mask, where there is no slice.
    recorded
        Of each stack, on its grid, whether a pixel is that of a slice.
    poses
        Of each stack, the pose of every slice (n x 4 x 4): acquired world -> the world of the slices' affines.
    """

    stacks: list[Stack]
    recorded: list[np.ndarray]
    poses: list[np.ndarray]

    def poses_of(self, slices: Slices) -> Float[np.ndarray, "n 4 4"]:
        """The poses of slices that were cut from the stacks."""
        pairs = zip(slices.stack_index, slices.slice_index, strict=True)
        return np.stack([self.poses[stack][index] for stack, index in pairs])


def write_slice_folder(folder: Path, slices: Slices, poses: Float[np.ndarray, "n 4 4"], flat: np.ndarray) -> None:
    """Write slices with their masks and the list of them, each file whole or not at all.

    Parameters
    ----------
    poses
        Acquired world -> volume world, one a slice.
    flat
        Pixels, as `Slices.values`.
    """
    names, listed = [_LIST], []
    for s in range(slices.n_slices):
        affine = poses[s] @ slices.frames[s] @ np.diag([*slices.pixel_spacings[s], slices.thicknesses[s], 1.0])
        write_volume(folder / f"{s}.nii.gz", slices.image(s, flat)[:, :, None].astype(np.float32), affine)
        write_volume(folder / f"mask_{s}.nii.gz", slices.image(s, slices.mask)[:, :, None], affine)
        stack, index = slices.stack_names[slices.stack_index[s]], int(slices.slice_index[s])
        listed.append(SlicePose(stack, index, poses[s], {"file": f"{s}.nii.gz", "time": float(slices.times[s])}))
        names += [f"{s}.nii.gz", f"mask_{s}.nii.gz"]
    write_poses_json(folder / _LIST, listed)
    OutputFolder(folder, SLICE_NAMES).warn_of_others(names)


def files_of_slices(folder: str | Path) -> list[Path]:
    """All that is read of a folder: slices in the order of their numbers, masks, the list if there is one.

    Raises
    ------
    InputError
        If it is no folder, or holds no slices.
    """
    numbered = _numbered(Path(folder))
    masks = [mask for _, path in numbered if (mask := _mask_path(path)) is not None]
    listed = Path(folder) / _LIST
    return [*(path for _, path in numbered), *masks, *([listed] if os.path.isfile(listed) else [])]


def read_slice_folder(
    folder: str | Path, thickness: float | None = None, order: SliceOrder | str = "auto"
) -> SliceFolder:
    """Read the slices of a folder.

    Without a list, slices of like direction, pixels and thickness that follow each other are a stack; slices are in the
    order of their places.

    Parameters
    ----------
    thickness
        Of the slices (mm); None: the length of their third axis.
    order
        Acquisition order, see `gsvr.io.sidecar.acquisition_times`; ``"auto"``: as the list says.

    Raises
    ------
    InputError
        If there are none, one of them or the list cannot be used, or all of them are of one stack.
    """
    folder = Path(folder)
    numbered = _numbered(folder)
    images = parallel_map(lambda entry: load_image(entry[1]), numbered)
    for image in images:
        if image.data.shape[2] != 1 or min(image.data.shape[:2]) < 2:
            raise InputError(f"{image.path} has {size(image.data.shape)} voxels: give slices, one a file")
    slices = [_Slice(image, slice_frame(image.affine, np.zeros(3)), _mask(image)) for image in images]
    masked = any(piece.mask is not None for piece in slices)
    if os.path.isfile(folder / _LIST):
        groups = _listed(folder / _LIST, [number for number, _ in numbered], slices)
    else:
        groups = _alike(slices)
        logger.info("%s holds no list of slices: taken for %d stacks, by their directions", folder, len(groups))
    if len(groups) < 2:
        raise InputError(f"{folder} holds slices of one stack: give those of two or more, in different orientations")
    parts = [_assembled(group, masked, thickness, order) for group in groups]
    return SliceFolder(*(list(part) for part in zip(*parts, strict=True)))


@dataclass(frozen=True, repr=False)
class _Slice:
    """One file.

    Attributes
    ----------
    frame
        Slice frame (mm) -> world of the affine.
    """

    image: Image
    frame: np.ndarray
    mask: np.ndarray | None

    @property
    def spacing(self) -> np.ndarray:
        return np.linalg.norm(self.image.affine[:3, :3], axis=0)


@dataclass(frozen=True, repr=False)
class _Group:
    """The slices of a stack.

    Attributes
    ----------
    index
        Which slices of the stack they are.
    acquired
        Slice frame (mm) -> acquired world, as far as it is known.
    times
        Of acquisition, or None: not known.
    """

    name: str
    slices: list[_Slice]
    index: np.ndarray
    acquired: np.ndarray
    times: np.ndarray | None


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    if not os.path.isdir(folder):
        raise InputError(f"{folder} is not a folder: give one with slices (N.nii.gz)")
    found = [(match, folder / name) for name in os.listdir(folder) if (match := _SLICE.fullmatch(name))]
    if not found:
        raise InputError(f"{folder} holds no slices: they are called 0.nii.gz, 1.nii.gz, ...")
    numbered = sorted((int(match[1]), path) for match, path in found)
    for (number, path), (other, twin) in itertools.pairwise(numbered):
        if number == other:
            raise InputError(f"{path} and {twin} are both slice {number}: remove one of them")
    return numbered


def _mask_path(path: Path) -> Path | None:
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    candidates = (path.with_name(f"mask_{stem}{suffix}") for suffix in (".nii.gz", ".nii"))
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), None)


def _mask(image: Image) -> np.ndarray | None:
    path = _mask_path(image.path)
    if path is None:
        return None
    mask = load_image(path)
    shape = image.data.shape
    if mask.data.shape != shape or grid_distance(mask.affine, image.affine, shape) > GRID_TOLERANCE:
        raise InputError(f"{path} is not on the grid of {image.path.name}: give the mask that belongs to it")
    return is_inside(mask.data)


def _listed(path: Path, numbers: list[int], slices: list[_Slice]) -> list[_Group]:
    """The stacks that the list tells of, from those slices that are there."""
    entries = read_poses_json(path)
    if numbers[-1] >= len(entries):
        raise InputError(f"{path} does not tell of slice {numbers[-1]}: remove it, or bring list and slices together")
    chosen = [entries[number] for number in numbers]
    keys = {(entry.stack, entry.slice_index) for entry in chosen}
    if len(keys) < len(chosen) or min(entry.slice_index for entry in chosen) < 0:
        raise InputError(f"{path} tells of a slice twice, or of none: remove it")
    last = max(entry.slice_index for entry in chosen)
    if last >= _MOST_SLICES:
        raise InputError(f"{path} tells of slice {last} of a stack, and stacks have a few dozen: remove it")
    groups, stale = [], []
    for name in dict.fromkeys(entry.stack for entry in chosen):
        members = [number for number, entry in enumerate(chosen) if entry.stack == name]
        pieces = [slices[number] for number in members]
        given = np.stack([piece.frame for piece in pieces])
        acquired = np.stack([np.linalg.inv(chosen[number].matrix) for number in members]) @ given
        if not _is_parallel(acquired):
            stale.append(name)
            acquired = given
        times = np.array([_number(chosen[number].details.get("time")) for number in members])
        index = np.array([chosen[number].slice_index for number in members])
        groups.append(_Group(name, pieces, index, acquired, times if np.isfinite(times).all() else None))
    if stale:
        logger.warning("%s: slices of %s are not where it says: using their affines alone", path, ", ".join(stale))
    return groups


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _is_parallel(frames: np.ndarray) -> bool:
    rotation = _mean_rotation(frames)
    cosine = (np.einsum("nij,ij->n", frames[:, :3, :3], rotation) - 1) / 2
    return bool((cosine > np.cos(np.radians(_PARALLEL))).all())


def _alike(slices: Sequence[_Slice]) -> list[_Group]:
    """Slices that follow each other and could be of one stack."""
    groups: list[list[_Slice]] = []
    for piece in slices:
        if groups and _goes_on(groups[-1], piece):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return [
        _Group(f"slices-{number}", pieces, np.arange(len(pieces)), np.stack([piece.frame for piece in pieces]), None)
        for number, pieces in enumerate(groups)
    ]


def _goes_on(group: list[_Slice], piece: _Slice) -> bool:
    if not np.allclose(group[0].spacing, piece.spacing, rtol=1e-3):
        return False
    normal = np.mean([other.frame[:3, 2] for other in group], axis=0)
    normal /= np.linalg.norm(normal)
    if normal @ piece.frame[:3, 2] < _TURNED:
        return False
    places = np.array([normal @ _centre(other) for other in group])
    forward = 1.0 if places[-1] >= places[0] else -1.0
    back = (forward * places).max() - forward * float(normal @ _centre(piece))
    return len(group) <= _BACK or bool(back < _BACK * group[0].spacing[2])


def _centre(piece: _Slice) -> np.ndarray:
    """Middle of a slice (mm)."""
    middle = (np.array([*piece.image.data.shape[:2], 1, 2]) - 1) / 2
    middle[3] = 1.0
    return (piece.image.affine @ middle)[:3]


def _mean_rotation(frames: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(frames[:, :3, :3].mean(axis=0))
    return left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right


def _assembled(
    group: _Group, masked: bool, thickness: float | None, order: SliceOrder | str
) -> tuple[Stack, np.ndarray, np.ndarray]:
    """Stack, pixels that were recorded, and poses."""
    pieces, index = group.slices, group.index
    for piece in pieces:
        if not np.allclose(piece.spacing, pieces[0].spacing, rtol=1e-3):
            raise InputError(f"{piece.image.path} has other voxels than {pieces[0].image.path.name} of the same stack")
    spacing = pieces[0].spacing
    rotation = _mean_rotation(group.acquired)
    # in the axes of the stack (mm), where each slice begins; those along the normal are as good as equidistant
    begins = group.acquired[:, :3, 3] @ rotation
    away = np.abs(begins - np.median(begins, axis=0)).max(axis=1)
    if away.max() > _FARTHEST:
        path = pieces[int(away.argmax())].image.path
        raise InputError(
            f"{path} would lie {away.max():.0f} mm from the other slices of its stack: its affine, or its pose in "
            f"{_LIST}, is damaged: remove it, or the list"
        )
    step, start = np.polyfit(index, begins[:, 2], 1) if len(pieces) > 1 else (spacing[2], begins[0, 2])
    if abs(step) < 0.05 * spacing[2]:
        step = spacing[2] if step >= 0 else -spacing[2]
        start = float(np.mean(begins[:, 2] - step * index))
    corner = begins[:, :2].min(axis=0)
    first = np.rint((begins[:, :2] - corner) / spacing[:2]).astype(int)
    ends = first + [piece.image.data.shape[:2] for piece in pieces]
    shape = (*ends.max(axis=0), int(index.max()) + 1)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([*spacing[:2], step])
    affine[:3, 3] = rotation @ [*corner, start]
    data, mask, recorded = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    poses = np.tile(np.eye(4), (shape[2], 1, 1))
    for piece, k, begin, end in zip(pieces, index, first, ends, strict=True):
        place = (slice(begin[0], end[0]), slice(begin[1], end[1]), k)
        data[place] = piece.image.data[:, :, 0]
        mask[place] = True if piece.mask is None else piece.mask[:, :, 0]
        recorded[place] = True
        poses[k] = piece.frame @ np.linalg.inv(slice_frame(affine, np.array([*begin, k])))
    if not mask.any():
        folder = pieces[0].image.path.parent
        raise InputError(f"{folder}: the masks of all slices of {group.name} are empty: remove its slices")
    refuse_outliers(data, pieces[0].image.path.parent / group.name)
    given = spacing[2] if thickness is None else thickness
    times = acquisition_times(order, shape[2])
    if order == "auto" and group.times is not None:
        times = np.full(shape[2], group.times.max() + 1)
        times[index] = group.times
    source = "spacing" if thickness is None else "given"
    stack = Stack(group.name, data, affine, float(given), mask if masked else None, times, source)
    return stack, recorded, poses
