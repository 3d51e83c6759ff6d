"""Tissues of a scene, and which of them lies where: a fetus in a mother, made of random shapes.

Positions are in mm in the frame of the slices; shapes are turned at random, so that the slices cut them in any
direction. Later tissues are painted over earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

from training.brain_mask.atlases import Atlas
from training.brain_mask.fields import Fields, random_rotation, small_rotation
from training.brain_mask.frame import Frame


class Tissue(IntEnum):
    """Numbers of the tissues; each mosaic takes eight of them, one after the other."""

    AIR = 0
    # 1 to 8 as in the label maps, 9 to 16 the same tissues again with another intensity
    WHITE_MATTER = 1
    INNER_FLUID = 2
    CEREBELLUM = 3
    OUTER_FLUID = 4
    CORTEX = 5
    DEEP_GREY = 6
    BRAINSTEM = 7
    CALLOSUM = 8
    SECOND_BRAIN = 9
    SKULL = 17
    SCALP = 18
    EYE = 19
    LENS = 20
    SKULL_BASE = 21
    FAT = 22
    MUSCLE = 23
    UTERUS = 24
    UTERUS_LINING = 25
    PLACENTA = 26
    PLACENTA_VESSEL = 27
    AMNIOTIC = 28
    LIMB = 29
    BONE = 30
    FETAL_SKIN = 31
    LUNG = 32
    LIVER = 33
    HEART = 34
    FETAL_FLUID = 35
    CORD = 36
    CORD_VESSEL = 37
    VERTEBRA = 38
    DISC = 39
    SPINAL_FLUID = 40
    BLADDER = 41
    ORGAN = 42  # four maternal organs: 42 to 45
    MATERNAL = 48  # mosaic
    FETAL = 56  # mosaic
    FACE = 64  # mosaic
    COUNT = 72


def _ellipsoid(points: Frame, centre: np.ndarray, rotation: np.ndarray, semi_axes: np.ndarray) -> np.ndarray:
    """Distance to the centre in units of the semi-axes: below 1 inside."""
    total = np.zeros(points.shape, np.float32)
    for axis in range(3):
        along = points.along(rotation[:, axis] / semi_axes[axis], centre)
        along *= along
        total += along
    return np.sqrt(total, out=total)


def _capsule(points: Frame, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (mm) to the segment from ``start`` to ``end``, and the position along it in mm."""
    axis = end - start
    length = float(np.linalg.norm(axis)) + 1e-6
    along = points.along(axis / length, start)
    nearest = np.clip(along, 0, length)
    squared = points.squared_distance(start)
    squared += nearest * (nearest - 2 * along)
    return np.sqrt(np.maximum(squared, 0, out=squared), out=squared), nearest


def _mosaic(fields: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Eight kinds of patch with thin walls between some of them, from two fields."""
    first, second = fields
    kind = (first > rng.normal(0, 0.5)).astype(np.uint8) + 2 * (second > rng.normal(0, 0.5)).astype(np.uint8)
    wall = np.abs(first + rng.normal(0, 0.4)) < rng.uniform(0.03, 0.2)
    kind[wall] = 4
    blob = first * second > rng.uniform(0.8, 2.0)
    kind[blob] = 5 + (second[blob] > 0)
    return kind


@dataclass(frozen=True)
class Placement:
    """Where a fetus lies: atlas frame to slice frame."""

    centre: np.ndarray  # (3,) mm: the middle of the head
    rotation: np.ndarray  # atlas axes in the slice frame
    scale: np.ndarray  # (3,): size along the atlas axes


def paint_mother(
    tissue: np.ndarray, points: Frame, fields: Fields, rng: np.random.Generator, centre: np.ndarray
) -> None:
    """Fat, muscle, bowel, spine, bladder and organs in a body around ``centre``."""
    rotation = random_rotation(rng)
    semi_axes = rng.uniform([90, 120, 150], [170, 220, 400])
    offset = rotation @ (rng.uniform(-0.5, 0.5, 3) * semi_axes)
    wobble = fields.draw(60.0)[0] * rng.uniform(0, 0.06)
    radius = _ellipsoid(points, centre + offset, rotation, semi_axes) + wobble
    size = semi_axes[:2].mean()
    fat = rng.uniform(3, 45) / size
    muscle = fat + rng.uniform(3, 20) / size
    scale = rng.uniform(7, 20)
    inside = _mosaic(fields.draw(scale, 2), rng)
    body = radius < 1
    np.copyto(tissue, np.uint8(Tissue.MATERNAL) + inside, where=body)
    for organ in range(rng.integers(0, 4)):
        place = centre + random_rotation(rng) @ np.array([rng.uniform(60, 150), 0, 0])
        blob = _ellipsoid(points, place, random_rotation(rng), rng.uniform(20, 75, 3)) + 2 * wobble < 1
        tissue[blob & body] = Tissue.ORGAN + organ
    if rng.random() < 0.5:
        place = centre + random_rotation(rng) @ np.array([rng.uniform(50, 130), 0, 0])
        blob = _ellipsoid(points, place, random_rotation(rng), rng.uniform(10, 40, 3)) + wobble < 1
        tissue[blob & body] = Tissue.BLADDER
    np.copyto(tissue, np.uint8(Tissue.MUSCLE), where=body & (radius > 1 - muscle))
    np.copyto(tissue, np.uint8(Tissue.FAT), where=body & (radius > 1 - fat))
    if rng.random() < 0.6:
        turn = random_rotation(rng)
        middle = centre + turn @ np.array([rng.uniform(70, 140), 0, 0])
        _paint_spine(tissue, points, middle - 200 * turn[:, 2], middle + 200 * turn[:, 2], rng.uniform(12, 24), rng)


def _paint_spine(tissue, points, start, end, radius, rng) -> None:
    """Vertebrae and discs along a line, with the canal behind them."""
    distance, along = _capsule(points, start, end)
    period = radius * rng.uniform(1.1, 1.8)
    disc = np.mod(along, period) < rng.uniform(0.15, 0.35) * period
    inside = distance < radius
    tissue[inside] = np.where(disc[inside], Tissue.DISC, Tissue.VERTEBRA)
    side = np.cross(end - start, rng.standard_normal(3))
    side *= 1.3 * radius / np.linalg.norm(side)
    canal, _ = _capsule(points, start + side, end + side)
    tissue[canal < 0.45 * radius] = Tissue.SPINAL_FLUID
    tissue[canal < rng.uniform(0, 0.3) * radius] = Tissue.DISC


def paint_uterus(
    tissue: np.ndarray, points: Frame, fields: Fields, rng: np.random.Generator, centre: np.ndarray
) -> None:
    """Wall, placenta and amniotic fluid around ``centre``, which lies anywhere inside."""
    rotation = random_rotation(rng)
    semi_axes = rng.uniform([50, 60, 75], [95, 110, 150])
    room = np.maximum(1 - 40 / semi_axes, 0.05)
    middle = centre + rotation @ (rng.uniform(-1, 1, 3) * room * semi_axes)
    slow = fields.draw(rng.uniform(25, 45), 2)
    radius = _ellipsoid(points, middle, rotation, semi_axes) + slow[0] * rng.uniform(0, 0.12)
    wall = rng.uniform(3, 14) / semi_axes.mean()
    np.copyto(tissue, np.uint8(Tissue.UTERUS), where=radius < 1 + wall)
    if rng.random() < 0.5:
        np.copyto(tissue, np.uint8(Tissue.UTERUS_LINING), where=radius < 1 + wall * rng.uniform(0.2, 0.7))
    np.copyto(tissue, np.uint8(Tissue.AMNIOTIC), where=radius < 1)
    if rng.random() < 0.4:  # little room: fluid in pockets only
        tight = (radius < 1) & (slow[1] < rng.uniform(-0.8, 0.8))
        tissue[tight] = rng.choice([Tissue.PLACENTA, Tissue.UTERUS])
    if rng.random() < 0.8:
        thickness = rng.uniform(10, 50) / semi_axes.mean()
        side = rng.standard_normal(3)
        side /= np.linalg.norm(side)
        toward = points.along(side / semi_axes.mean(), middle)
        depth = (1 - radius) / np.maximum(thickness * np.clip(toward + 0.3 * slow[1] + 0.4, 0, 1), 1e-3)
        placenta = (radius < 1) & (depth < 1)
        tissue[placenta] = Tissue.PLACENTA
        if rng.random() < 0.7:
            vessels = np.abs(fields.draw(rng.uniform(6, 12))[0]) < rng.uniform(0.02, 0.12)
            tissue[placenta & vessels] = Tissue.PLACENTA_VESSEL


def paint_limbs(tissue: np.ndarray, points: Frame, rng: np.random.Generator, centre: np.ndarray, reach: float) -> None:
    """Limbs with bones, and loops of cord, around ``centre``."""
    for _ in range(rng.integers(0, 6)):
        start = centre + random_rotation(rng)[0] * rng.uniform(0.5, 1.6) * reach
        radius = rng.uniform(4, 11)
        for _joint in range(rng.integers(1, 4)):
            end = start + random_rotation(rng)[0] * rng.uniform(0.4, 0.9) * reach
            distance, _ = _capsule(points, start, end)
            tissue[distance < radius] = Tissue.LIMB
            tissue[distance < 0.4 * radius] = Tissue.BONE
            start, radius = end, 0.8 * radius
    if rng.random() < 0.5:
        start = centre + random_rotation(rng)[0] * rng.uniform(0.8, 1.6) * reach
        radius = rng.uniform(3, 7)
        direction = random_rotation(rng)[0]
        for _ in range(rng.integers(2, 6)):
            direction = small_rotation(rng, 50) @ direction
            end = start + direction * rng.uniform(10, 25)
            distance, _ = _capsule(points, start, end)
            tissue[distance < radius] = Tissue.CORD
            tissue[np.abs(distance - radius * 0.4) < radius * 0.25] = Tissue.CORD_VESSEL
            start = end


def paint_trunk(
    tissue: np.ndarray,
    points: Frame,
    fields: Fields,
    rng: np.random.Generator,
    neck: np.ndarray,
    down: np.ndarray,
    half_width: float,
) -> None:
    """Trunk with lungs, liver, heart, fluid-filled organs and spine, from ``neck`` along ``down``."""
    length = rng.uniform(1.2, 1.9) * half_width
    across = np.cross(down, rng.standard_normal(3))
    across /= np.linalg.norm(across)
    rotation = np.stack([across, np.cross(down, across), down], axis=1)
    middle = neck + down * length * rng.uniform(0.75, 1.0)
    semi_axes = np.array([half_width * rng.uniform(0.75, 1.15), half_width * rng.uniform(0.65, 1.0), length])
    wobble = fields.draw(20.0)[0]
    radius = _ellipsoid(points, middle, rotation, semi_axes) + wobble * rng.uniform(0, 0.1)
    trunk = radius < 1
    if not trunk.any():
        return
    np.copyto(tissue, np.uint8(Tissue.FETAL) + _mosaic(fields.draw(rng.uniform(6, 14), 2), rng), where=trunk)

    def organ(kind: Tissue, position: list[float], size: list[float]) -> None:
        place = middle + rotation @ (np.array(position) * semi_axes)
        inside = _ellipsoid(points, place, rotation, np.array(size) * semi_axes * rng.uniform(0.7, 1.3, 3))
        tissue[trunk & (inside + 0.1 * wobble < 1)] = kind

    if rng.random() < 0.8:
        organ(Tissue.LUNG, [-0.45, 0, -0.4], [0.33, 0.55, 0.28])
        organ(Tissue.LUNG, [0.45, 0, -0.4], [0.33, 0.55, 0.28])
        organ(Tissue.HEART, [0.1, 0.3, -0.4], [0.3, 0.4, 0.2])
        organ(Tissue.LIVER, [-0.2, 0.1, 0.05], [0.6, 0.65, 0.25])
    for _ in range(rng.integers(0, 4)):
        organ(Tissue.FETAL_FLUID, list(rng.uniform(-0.5, 0.6, 3)), list(rng.uniform(0.1, 0.3, 3)))
    tissue[trunk & (radius > 1 - rng.uniform(0.02, 0.15))] = Tissue.FETAL_SKIN
    behind = -rotation[:, 1] * semi_axes[1] * 0.75
    spine = tissue.copy()
    _paint_spine(
        spine, points, middle + behind - down * length, middle + behind + down * length, rng.uniform(3, 6), rng
    )
    np.copyto(tissue, spine, where=radius < 1.1)


def paint_head(
    tissue: np.ndarray,
    mask: np.ndarray,
    points: Frame,
    fields: Fields,
    rng: np.random.Generator,
    atlas: Atlas,
    place: Placement,
    margin: float,
    only_brain: bool,
) -> None:
    """Face, scalp, skull and brain; ``mask`` gets what a mask drawn by hand covers, ``margin`` mm beyond the fluid."""
    half = atlas.half_size * place.scale
    reach = float(half.max()) + 30
    near = points.squared_distance(place.centre) < reach**2
    if not near.any():
        return
    # where the atlas is looked up: turned, stretched, and bent smoothly
    local = np.stack([points.along(place.rotation[:, axis], place.centre)[near] for axis in range(3)])
    bend = fields.draw(rng.uniform(30, 60), 3)[:, near] * rng.uniform(0, 4.5)
    fine = fields.draw(rng.uniform(14, 25), 3)[:, near] * rng.uniform(0, 1.8)
    local = local / place.scale.astype(np.float32)[:, None] + bend + fine
    index = (local - atlas.distance_origin.astype(np.float32)[:, None]) / atlas.distance_spacing
    distance = ndimage.map_coordinates(atlas.distance, index, order=1, mode="nearest") * float(place.scale.mean())

    index = np.rint((local - atlas.label_origin.astype(np.float32)[:, None]) / atlas.label_spacing).astype(np.int32)
    bounds = np.array(atlas.labels.shape, np.int32)[:, None] - 1
    inside = np.all((index >= 0) & (index <= bounds), axis=0)
    index = np.clip(index, 0, bounds)
    brain = atlas.labels[index[0], index[1], index[2]] * inside

    vary = fields.draw(rng.uniform(15, 40), 2)[:, near]
    # fluid around the brain: hardly any in these atlases, up to a centimetre in other fetuses
    widest = rng.choice([rng.uniform(0, 2), rng.uniform(0, 4), rng.uniform(2, 7)])
    fluid = widest * np.clip(0.6 + 0.35 * vary[0], 0.05, 1.3)
    skull = fluid + rng.uniform(0.6, 2.4)
    scalp = skull + np.clip(rng.uniform(0.2, 3.0) * (1 + 0.3 * vary[1]), 0.2, None)

    kind = tissue[near]
    inner = distance < fluid
    if not only_brain:
        # face and neck, in units of the head's half size: anterior and below
        unit = local / atlas.half_size.astype(np.float32)[:, None]
        jitter = rng.normal(0, 0.06, (4, 3))
        face = np.full(kind.shape, 9.0, np.float32)
        shapes = (
            ((0.0, 0.5, -0.8), (0.8, 0.55, 0.65)),
            ((0.0, 0.6, -1.3), (0.5, 0.4, 0.4)),
            ((0.0, -0.2, -1.0), (0.7, 0.6, 0.65)),
        )
        for (centre, size), shift in zip(shapes, jitter, strict=False):
            local_unit = (unit - (np.array(centre) + shift)[:, None]) / (np.array(size) * rng.uniform(0.85, 1.2, 3))[
                :, None
            ]
            face = np.minimum(face, np.sqrt(np.einsum("ij,ij->j", local_unit, local_unit)))
        mosaic = _mosaic(fields.draw(rng.uniform(3, 8), 2)[:, near], rng)
        np.copyto(kind, np.uint8(Tissue.SCALP), where=face < 1.12)
        np.copyto(kind, np.uint8(Tissue.FACE) + mosaic, where=face < 1)
        np.copyto(kind, np.uint8(Tissue.SCALP), where=distance < scalp)
        np.copyto(kind, np.uint8(Tissue.SKULL), where=distance < skull)
        eye_radius = rng.uniform(0.12, 0.19) * atlas.half_size[1]
        for side in (-1, 1):
            centre = np.array([side * 0.43, 0.78, -0.55]) + jitter[3] * [side, 1, 1]
            gap = local - (centre * atlas.half_size).astype(np.float32)[:, None]
            length = np.sqrt(np.einsum("ij,ij->j", gap, gap))
            ball = (length < eye_radius) & ~inner
            kind[ball] = Tissue.EYE
            kind[ball & (length > eye_radius * 0.5) & (gap[1] > 0.75 * eye_radius)] = Tissue.LENS
    # between the lobes: fluid above, skull base below
    base = inner & (brain == 0)
    kind[inner] = Tissue.OUTER_FLUID
    if rng.random() < 0.7 and not only_brain:
        below = base & (local[2] / atlas.half_size[2] < -0.45 + 0.1 * vary[0]) & (distance < -0.5)
        kind[below] = Tissue.SKULL_BASE
    is_brain = (brain > 0) & (distance < fluid + 12)
    second = vary[1] > rng.uniform(-0.5, 1.5)
    kind[is_brain] = (brain + 8 * second)[is_brain]
    tissue[near] = kind
    mask[near] |= distance < fluid + margin


def paint_decoy(
    tissue: np.ndarray, points: Frame, fields: Fields, rng: np.random.Generator, centre: np.ndarray
) -> None:
    """A round thing that is no head: a ball with a rim and a coarse inside, or one filled with fluid."""
    radius = _ellipsoid(points, centre, random_rotation(rng), rng.uniform(15, 50, 3)) + 0.08 * fields.draw(20.0)[0]
    inside = radius < 1
    filling = rng.integers(3)
    if filling == 0:
        np.copyto(tissue, np.uint8(Tissue.FETAL) + _mosaic(fields.draw(rng.uniform(6, 20), 2), rng), where=inside)
    else:
        np.copyto(tissue, np.uint8(Tissue.BLADDER if filling == 1 else Tissue.LIVER), where=inside)
    tissue[inside & (radius > 1 - rng.uniform(0, 0.2))] = rng.choice([Tissue.SKULL, Tissue.MUSCLE, Tissue.FETAL_SKIN])
