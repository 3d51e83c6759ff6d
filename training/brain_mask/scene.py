"""Scenes: a short stack of thick slices through a fetus in a mother, and the mask of the brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.brain_mask import anatomy
from training.brain_mask.acquisition import degrade, draw_field_of_view
from training.brain_mask.anatomy import Placement, Tissue
from training.brain_mask.atlases import Atlas
from training.brain_mask.contrast import draw_intensities, draw_textures
from training.brain_mask.fields import Fields, random_rotation, small_rotation
from training.brain_mask.frame import moved_frame, still_frame


@dataclass(frozen=True)
class SceneOptions:
    """Sizes of a scene and how often what happens."""

    size: int = 128  # rows and columns
    spacing: float = 2.0  # mm
    n_slices: int = 8
    thinnest: float = 2.0  # slice thickness, mm
    thickest: float = 6.0
    planes_per_slice: int = 2
    without_brain: float = 0.25  # fractions of the scenes
    twins: float = 0.06
    without_mother: float = 0.08
    only_brain: float = 0.02
    moving: float = 0.6
    margin: float = 1.5  # mm that a hand-drawn mask reaches beyond the fluid around the brain


@dataclass(frozen=True)
class Scene:
    """Images (slices, rows, columns), normalised, and how much of each pixel is mask (0 to 1)."""

    images: np.ndarray
    mask: np.ndarray


def normalised(images: np.ndarray) -> np.ndarray:
    """Divides by the mean of what is brighter than the mean: hardly depends on how much is background."""
    bright = images[images > images.mean()]
    return images / (2 * float(bright.mean()) + 1e-6) if bright.size else images


def draw_scene(rng: np.random.Generator, atlases: list[Atlas], options: SceneOptions = SceneOptions()) -> Scene:
    """One scene. Depends on nothing but ``rng``."""
    size, n, planes = options.size, options.n_slices, options.planes_per_slice
    thickness = rng.uniform(options.thinnest, options.thickest)
    step = thickness * rng.choice([1.0, rng.uniform(0.8, 1.3)])
    middles = (np.arange(n) - (n - 1) / 2) * step
    within = ((np.arange(planes) + 0.5) / planes - 0.5) * thickness
    depths = (middles[:, None] + within).ravel()
    axis = (np.arange(size) - (size - 1) / 2) * options.spacing
    fields = Fields(rng, depths, axis, axis)
    still = still_frame(depths, axis, axis)

    kind = rng.random()
    only_brain = kind < options.only_brain
    without_mother = only_brain or kind < options.only_brain + options.without_mother
    without_brain = not without_mother and rng.random() < options.without_brain
    tissue = np.zeros(still.shape, np.uint8)
    mask = np.zeros(still.shape, bool)

    atlas = atlases[rng.integers(len(atlases))]
    place = _place(rng, atlas, options, depths, newborn=without_mother)
    half = float((atlas.half_size * place.scale).mean())
    if not without_mother:
        anatomy.paint_mother(tissue, still, fields, rng, place.centre)
        if rng.random() < 0.93:
            anatomy.paint_uterus(tissue, still, fields, rng, place.centre)
    points = moved_frame(still, place.centre, rng, planes) if rng.random() < options.moving else still
    down = place.rotation @ small_rotation(rng, 25) @ np.array([0, 0.15, -1])
    down /= np.linalg.norm(down)
    neck = place.centre + place.rotation @ (np.array([0, -0.1, -1.2]) * atlas.half_size * place.scale)
    bent = small_rotation(rng, 25) @ down
    if not only_brain and rng.random() < 0.9:
        anatomy.paint_trunk(tissue, points, fields, rng, neck, bent, half)
        if not without_mother:
            anatomy.paint_limbs(tissue, points, rng, neck + bent * half, 1.2 * half)
    if without_brain:
        if rng.random() < 0.5:
            anatomy.paint_decoy(tissue, points, fields, rng, place.centre)
    else:
        anatomy.paint_head(tissue, mask, points, fields, rng, atlas, place, options.margin, only_brain)
        if not without_mother and rng.random() < options.twins:
            other = atlases[rng.integers(len(atlases))]
            aside = random_rotation(rng)[0] * half * rng.uniform(2.6, 3.5)
            twin = Placement(place.centre + aside, random_rotation(rng), place.scale)
            anatomy.paint_head(tissue, mask, points, fields, rng, other, twin, options.margin, only_brain)
    images, covered = _picture(tissue, mask, fields, rng, n, planes)
    if only_brain:
        images *= covered > 0.5
    images = degrade(images, Fields(rng, middles, axis, axis), rng)
    if only_brain:
        images *= covered > 0.3
    view = draw_field_of_view(size, size, rng)
    return Scene(normalised(images * view) * np.float32(rng.uniform(0.75, 1.33)), covered * view)


def _place(
    rng: np.random.Generator, atlas: Atlas, options: SceneOptions, depths: np.ndarray, *, newborn: bool
) -> Placement:
    """A head turned any way, mostly inside the picture, at any height relative to the slices."""
    scale = np.exp(rng.uniform(np.log(0.8), np.log(1.25))) * np.exp(rng.normal(0, 0.06, 3))
    if newborn:
        scale = scale * rng.uniform(1.0, 1.35)
    half = float((atlas.half_size * scale).mean())
    reach = options.size * options.spacing / 2
    across = rng.uniform(-1, 1, 2) * (reach if rng.random() < 0.25 else reach - 35)
    deep = rng.uniform(-1, 1) * (half + 0.25 * float(np.ptp(depths)))
    return Placement(np.array([*across, deep]), random_rotation(rng), scale)


def _picture(
    tissue: np.ndarray, mask: np.ndarray, fields: Fields, rng: np.random.Generator, n: int, planes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Brightness of the slices, each the mean of its planes, and the part of each pixel that the mask covers."""
    table, texture = draw_intensities(rng), draw_textures(rng)
    bright = table[tissue]
    bright *= np.exp(texture[tissue] * fields.draw(rng.uniform(3.5, 9))[0])
    if rng.random() < 0.5:  # fluid that flows is dark in places
        flow = np.clip(1.6 + rng.uniform(0.5, 1.2) * fields.draw(rng.uniform(15, 40))[0], 0.15, 1)
        np.multiply(bright, flow, out=bright, where=tissue == Tissue.AMNIOTIC)
    size = tissue.shape[1:]
    return bright.reshape(n, planes, *size).mean(1), mask.reshape(n, planes, *size).mean(1, dtype=np.float32)
