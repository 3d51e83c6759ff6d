"""Other surroundings than those of training: to test on brains that the network has never seen.

Nothing here is shared with the scenes of training: the brain is an image (not labels with random intensities), the
mother is a mosaic of Voronoi cells, uterus and fetus are made of balls, and the stacks are cut from a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from training.brain_mask.distances import grown, signed_distance

SPACING = 1.6  # mm: the voxels of the volume
SIZE = 150  # voxels along each side


@dataclass(frozen=True)
class Head:
    """A brain's image, fluid about 1, on voxels of ``SPACING`` with room around."""

    image: np.ndarray
    inside: np.ndarray  # the brain and the fluid around it
    distance: np.ndarray  # mm outside of that, negative inside
    margin: float  # mm that a mask reaches beyond


def read_head(image: Path, margin: float, labels: Path | None = None) -> Head:
    """A brain, zero around it, or what has ``labels``; the reference: gaps closed over 12 mm, ``margin`` mm beyond."""
    read = nib.as_closest_canonical(nib.load(image))  # type: ignore[arg-type]
    values = np.asarray(read.dataobj, np.float32)  # type: ignore[attr-defined]
    if labels is not None:
        labelled = np.asarray(nib.as_closest_canonical(nib.load(labels)).dataobj) > 0  # type: ignore[arg-type]
        values = np.where(labelled, np.clip(values, 1e-3 * values.max(), None), 0)
    zoom = float(read.header.get_zooms()[0]) / SPACING  # type: ignore[attr-defined]
    room = 14
    support = np.pad(np.asarray(ndimage.zoom((values > 0).astype(np.float32), zoom, order=1)) > 0.5, room)
    values = np.pad(np.asarray(ndimage.zoom(values, zoom, order=1)), room)
    inside = grown(grown(support, 12, SPACING), -12, SPACING) | support
    values = values / np.percentile(values[support], 99)
    # gaps between the lobes hold fluid
    values = np.where(inside & (values < 0.02), 0.9, values)
    return Head(values.astype(np.float32), inside, signed_distance(inside, SPACING), margin)


def _balls(centres: np.ndarray, radii: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Distance (mm) outside the union of balls, negative inside, on the cube of ``axis``."""
    result = np.full((len(axis),) * 3, np.inf, np.float32)
    for centre, radius in zip(centres, radii, strict=True):
        x, y, z = ((axis - c).astype(np.float32) ** 2 for c in centre)
        distance = np.sqrt(x[:, None, None] + (y[:, None] + z)) - np.float32(radius)
        np.minimum(result, distance, out=result)
    return result


def draw_volume(rng: np.random.Generator, heads: Sequence[Head]) -> tuple[np.ndarray, np.ndarray]:
    """A mother with a fetus (x, y, z) and the mask of its brain.

    ``heads`` holds one head, two for twins (the mask is that of the first), or none for a fetus whose head lies
    outside.
    """
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SPACING
    centre = rng.uniform(-45, 45, 3)
    turn = Rotation.from_quat(rng.standard_normal(4))
    down, ahead = turn.apply([0, 0, -1]), turn.apply([0, 1, 0])

    # Voronoi cells on a coarse grid, warped by noise so that walls are not flat
    warp = np.stack([ndimage.gaussian_filter(rng.standard_normal((SIZE // 3,) * 3), 3) for _ in range(3)], axis=-1)
    coarse = np.stack(np.meshgrid(*[axis[1::3]] * 3, indexing="ij"), axis=-1) + 60 * warp.astype(np.float32)
    seeds = rng.uniform(-140, 140, (int(rng.integers(60, 260)), 3))
    cell = KDTree(seeds).query(coarse)[1]
    cell = np.repeat(np.repeat(np.repeat(cell, 3, 0), 3, 1), 3, 2)
    volume = rng.uniform(0.05, 0.5, len(seeds)).astype(np.float32)
    volume[rng.random(len(seeds)) < 0.05] = rng.uniform(0.7, 1.1)
    volume = volume[cell]

    body = _balls(rng.uniform(-30, 30, (2, 3)), rng.uniform(95, 150, 2), axis)
    rim = rng.uniform(8, 30)
    volume = np.where(body > -rim, rng.uniform(0.4, 1.0), volume)
    volume = np.where(np.abs(body + rim) < rng.uniform(2, 5), rng.uniform(0.05, 0.2), volume)
    volume = np.where(body > 0, 0.0, volume)

    # uterus: balls around the head and down the fetus
    trunk = [centre + down * s + 12 * rng.standard_normal(3) for s in (55, 80, 105)]
    womb = _balls(np.array([centre, *trunk]) + rng.normal(0, 12, (4, 3)), rng.uniform(52, 72, 4), axis)
    volume = np.where(womb < rng.uniform(4, 9), rng.uniform(0.15, 0.4), volume)
    fluid = rng.uniform(0.75, 1.15)
    volume = np.where(womb < 0, fluid, volume)
    side = rng.standard_normal(3)
    side /= np.linalg.norm(side)
    placenta = (womb < 0) & (womb > -rng.uniform(15, 30)) & (_along(axis, side, centre) > 5)
    volume = np.where(placenta, rng.uniform(0.3, 0.55) * (1 + 0.1 * volume), volume)

    # fetus: balls for trunk, limbs and face; a finer mosaic inside
    fetus = _balls(np.array(trunk), rng.uniform(22, 32, 3), axis)
    limbs = np.array([p + 35 * _unit(rng) * s for p in trunk for s in np.linspace(0.7, 1.5, 6)])
    fetus = np.minimum(fetus, _balls(limbs, rng.uniform(5, 9, len(limbs)), axis))
    face = (
        centre
        + np.outer([38.0, 44, 30], ahead) * 0.7
        + np.outer([22.0, 36, 34], down)
        + 4 * rng.standard_normal((3, 3))
    )
    fetus = np.minimum(fetus, _balls(face, np.array([16.0, 13, 18]), axis))
    organs = rng.uniform(0.1, 0.5, 40).astype(np.float32)
    organs[rng.integers(40, size=3)] = 0.9
    mosaic = organs[np.roll(cell, SIZE // 2, axis=0) % 40]
    volume = np.where(fetus < 0, np.where(fetus > -3, rng.uniform(0.2, 0.5), mosaic), volume)

    mask = np.zeros(volume.shape, bool)
    for number, head in enumerate(heads):
        if number == 0:
            volume, mask = _with_head(volume, axis, rng, head, centre, turn)
        else:
            aside = centre - 1.6 * centre.clip(-30, 30) - 85 * down * (1 if down @ centre > 0 else -1)
            other = Rotation.from_quat(rng.standard_normal(4))
            volume, _ = _with_head(volume, axis, rng, head, aside, other)
    texture = ndimage.gaussian_filter(rng.standard_normal(volume.shape).astype(np.float32), 1.2)
    return (volume * (1 + 0.25 * texture)).astype(np.float32), mask


def _along(axis: np.ndarray, direction: np.ndarray, centre: np.ndarray) -> np.ndarray:
    x, y, z = ((axis - c) * d for c, d in zip(centre, direction, strict=True))
    return x[:, None, None] + (y[:, None] + z)


def _with_head(
    volume: np.ndarray, axis: np.ndarray, rng: np.random.Generator, head: Head, centre: np.ndarray, turn: Rotation
) -> tuple[np.ndarray, np.ndarray]:
    """``volume`` with a head at ``centre``, and its mask: each voxel looked up in the brain's own frame."""
    size = rng.uniform(0.93, 1.07)
    skull, scalp = rng.uniform(1.5, 3), rng.uniform(4, 7)
    bright, dim, brightness = rng.uniform(0.2, 0.5), rng.uniform(0.03, 0.15), rng.uniform(0.9, 1.1)
    block = tuple(
        slice(max(int(low), 0), max(int(high), 0))
        for low, high in zip(*((centre + side - axis[0]) / SPACING for side in (-85, 85)), strict=True)
    )
    near = [axis[part] - c for part, c in zip(block, centre, strict=True)]
    points = np.stack(np.meshgrid(*near, indexing="ij")).astype(np.float32)
    local = np.tensordot(turn.inv().as_matrix() / (SPACING * size), points, 1)
    occupied = np.argwhere(head.inside)
    local += ((occupied.min(0) + occupied.max(0)) / 2)[:, None, None, None]
    # beyond the block the distance is large
    away = ndimage.map_coordinates(head.distance, local, order=1, cval=99.0)
    image = ndimage.map_coordinates(head.image, local, order=1)
    part = volume[block]
    part = np.where(away < scalp, bright, part)
    part = np.where(away < skull, dim, part)
    part = np.where(away < 0.5, image * brightness, part)
    volume = volume.copy()
    volume[block] = part
    mask = np.zeros(volume.shape, bool)
    mask[block] = away * size < head.margin
    return volume, mask


def _unit(rng: np.random.Generator) -> np.ndarray:
    v = rng.standard_normal(3)
    return v / np.linalg.norm(v)


def acquire(
    rng: np.random.Generator, volume: np.ndarray, mask: np.ndarray, rotation: Rotation, thickness: float, pixel: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A stack (columns, rows, slices) cut from ``volume`` with motion between slices, its mask and its affine."""
    extent = SIZE * SPACING
    n, n_slices = int(extent / pixel), int(0.8 * extent / thickness)
    matrix = rotation.as_matrix()
    columns = (np.arange(n) - (n - 1) / 2) * pixel
    data = np.zeros((n, n, n_slices), np.float32)
    drawn = np.zeros(data.shape, bool)
    # the fetus has moved since the last stack
    lie = Rotation.from_euler("xyz", rng.normal(0, 8.0, 3), degrees=True).as_matrix()
    offset = rng.normal(0, 5.0, 3)
    angles, shift = np.zeros(3), np.zeros(3)
    for k in range(n_slices):
        angles = 0.9 * angles + rng.normal(0, 1.0, 3)
        shift = 0.9 * shift + rng.normal(0, 0.6, 3)
        moved = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        depth = (k - (n_slices - 1) / 2) * thickness
        total, covered = 0.0, 0.0
        for part in (-0.33, 0.0, 0.33):
            frame = np.empty((3, n, n), np.float32)
            frame[0], frame[1], frame[2] = columns[:, None], columns[None], depth + part * thickness
            world = np.tensordot(lie @ moved @ matrix, frame, 1) + (offset + shift)[:, None, None]
            index = world / SPACING + (SIZE - 1) / 2
            total = total + ndimage.map_coordinates(volume, index, order=1)
            if part == 0.0:
                covered = ndimage.map_coordinates(mask.astype(np.float32), index, order=1)
        data[:, :, k], drawn[:, :, k] = total / 3, np.asarray(covered) > 0.5
    bias = np.asarray(ndimage.zoom(rng.normal(0, 0.15, (3, 3, 2)), np.array(data.shape) / (3, 3, 2), order=1))
    data = np.clip(data, 0, None) ** rng.uniform(0.75, 1.25) * np.exp(bias)
    sigma = rng.uniform(0.01, 0.05)
    data = np.hypot(data + rng.normal(0, sigma, data.shape), rng.normal(0, sigma, data.shape)) * 500
    lost = rng.random(n_slices) < 0.03
    data[:, :, lost] *= 0.4
    affine = np.eye(4)
    affine[:3, :3] = matrix * [pixel, pixel, thickness]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(data.shape) - 1) / 2)
    return data.astype(np.float32), drawn, affine
