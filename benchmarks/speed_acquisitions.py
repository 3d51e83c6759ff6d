"""Acquisitions of any size for measurements of speed.

The stacks are what the acquisition operator itself predicts from a field of Gaussians made of the phantom, at poses of
moderate motion, with noise: that is quick even for ten million pixels. It says nothing about quality, since the model
that reconstructs also made the data; for that see `benchmarks.core`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from gsvr.model.fields import LatticeField, lattice_covering
from gsvr.model.geometry import rotation_from_vector
from gsvr.model.slices import Stack, interleaved_times, slices_from_stacks
from gsvr.model.volume import Volume
from gsvr.operators.lattice import LatticeOperator
from gsvr.simulation.motion import draw_poses
from gsvr.simulation.phantom import brain_phantom

_AXES = (np.eye(3), np.eye(3)[:, [2, 0, 1]], np.eye(3)[:, [1, 2, 0]])
_MARGIN = 9.0
# Of a pixel, as a share of bright tissue
NOISE = 0.03
# In-plane spacing that one field of Gaussians 1.1 mm apart serves
_FIELD_SPACING = 1.1


@dataclass(frozen=True)
class SpeedAcquisition:
    """How many stacks of which in-plane spacing and slice thickness (mm), and about how many pixels that gives."""

    name: str
    n_stacks: int
    in_plane_spacing: float
    thickness: float = 3.0


# The second has the size of the usual acquisition; together they span two orders of magnitude.
SIZES = (
    SpeedAcquisition("0.1 million", 3, 2.1),
    SpeedAcquisition("0.64 million", 6, 1.16),
    SpeedAcquisition("2.5 million", 12, 0.83),
    SpeedAcquisition("10 million", 24, 0.588),
)
USUAL = SIZES[1]


@cache
def phantom_field() -> tuple[LatticeField, Volume]:
    """The phantom as Gaussians on a lattice, roughly; and the phantom itself."""
    phantom = brain_phantom()
    mask = phantom.data > 0.05 * phantom.data.max() if phantom.mask is None else phantom.mask
    lattice = lattice_covering(phantom.voxel_positions(mask), _FIELD_SPACING, 0.65 * _FIELD_SPACING, 2.5)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in lattice.shape), indexing="ij"))
    to_voxel = np.linalg.inv(phantom.affine) @ lattice.affine
    places = np.einsum("ij,j...->i...", to_voxel[:3, :3], index) + to_voxel[:3, 3].reshape(3, 1, 1, 1)
    level = (lattice.spacing / (lattice.sigma * np.sqrt(2 * np.pi))) ** 3
    smooth = ndimage.gaussian_filter(phantom.data, 0.5)
    amplitudes = level * np.asarray(ndimage.map_coordinates(smooth, places, order=1)) * lattice.support
    return LatticeField(lattice, amplitudes.astype(np.float32)), Volume(phantom.data, phantom.affine, mask)


def make_stacks(acquisition: SpeedAcquisition, seed: int = 0) -> list[Stack]:
    """Stacks with masks: three orthogonal orientations, then the same tilted at random, and so on."""
    rng = np.random.default_rng(seed)
    field, phantom = phantom_field()
    brain = phantom.voxel_positions(phantom.mask)[::50]
    grids = [_grid(number, acquisition, brain, rng) for number in range(acquisition.n_stacks)]
    times = [interleaved_times(shape[2]) for _, shape in grids]
    poses = draw_poses("moderate", times, brain, rng)
    bright = float(np.percentile(phantom.data[phantom.mask], 99))
    stacks = []
    for number, (affine, shape) in enumerate(grids):
        blank = np.zeros(shape, np.float32)
        everything = np.ones(shape, bool)
        stack = Stack(f"stack-{number}", blank, affine, acquisition.thickness, everything, times[number])
        slices = slices_from_stacks([stack], [everything])
        flat = LatticeOperator(field.lattice, slices, poses[number]).predict(field.amplitudes)
        clean = np.moveaxis(flat.reshape(shape[2], shape[0], shape[1]), 0, 2)
        mask = ndimage.binary_opening(clean > 0.08 * bright, np.ones((3, 3, 1)))
        data = np.abs(clean + rng.normal(0, NOISE * bright, shape)).astype(np.float32)
        stacks.append(Stack(stack.name, data, affine, acquisition.thickness, mask, times[number]))
    return stacks


def _grid(
    number: int, acquisition: SpeedAcquisition, brain: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Affine and shape of a stack around the brain."""
    axes = _AXES[number % 3]
    if number >= 3:
        axes = rotation_from_vector(np.deg2rad(15) * rng.standard_normal(3)) @ axes
    spacing = np.array([acquisition.in_plane_spacing, acquisition.in_plane_spacing, acquisition.thickness])
    along = brain @ axes
    low, high = along.min(axis=0) - _MARGIN, along.max(axis=0) + _MARGIN
    counts = np.ceil((high - low) / spacing).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ ((low + high - (counts - 1) * spacing) / 2)
    return affine, (int(counts[0]), int(counts[1]), int(counts[2]))


def write_stacks(stacks: Sequence[Stack], folder: Path) -> tuple[list[Path], list[Path]]:
    """Write stacks, masks, and sidecars with the thickness; return the paths of stacks and masks."""
    from gsvr.io.nifti import write_volume  # needs nibabel; what only makes stacks does without

    folder.mkdir(parents=True, exist_ok=True)
    paths, masks = [], []
    for stack in stacks:
        assert stack.mask is not None
        paths.append(folder / f"{stack.name}.nii.gz")
        masks.append(folder / f"{stack.name}_mask.nii.gz")
        write_volume(paths[-1], stack.data, stack.affine)
        write_volume(masks[-1], stack.mask, stack.affine)
        (folder / f"{stack.name}.json").write_text(json.dumps({"SliceThickness": stack.thickness}), encoding="utf-8")
    return paths, masks
