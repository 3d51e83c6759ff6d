"""A brain-like T2-weighted phantom of about 30 weeks of gestation, made from formulas alone.

Every structure is a signed distance in a RAS+ world (mm) whose origin is the middle of the brain; tissues are
painted one over the other with edges about as wide as a voxel. The left lateral ventricle and the left
occipital lobe are larger than the right ones, so a flipped reconstruction shows.
"""

from __future__ import annotations

import numpy as np

from gsvr.model.volume import Volume
from gsvr.simulation.signed_distance import (
    Distance,
    Points,
    capsule,
    ellipsoid,
    inside,
    smooth_maximum,
    smooth_minimum,
)
from gsvr.simulation.smooth_noise import SmoothNoise

# Corners of the grid in world (mm): the brain and about 8 mm of background around it.
_LOWER, _UPPER = np.array([-50.0, -60.0, -49.0]), np.array([50.0, 60.0, 52.0])

# Intensities as a T2-weighted single-shot sequence shows them.
_FLUID = 1000.0
_CORTEX = 390.0
_SUBPLATE = 710.0
_WHITE_MATTER = 590.0
_DEEP_GREY = 480.0
_GERMINAL_MATRIX = 360.0
_BRAIN_STEM = 500.0

_CORTEX_THICKNESS = 2.0
_SUBPLATE_DEPTH = 5.5
_FLUID_RIM = 3.2

# Path of the lateral ventricle in the right hemisphere: ends of each piece, and the radius there (mm).
_VENTRICLE = (
    ((7.0, 26.0, 5.0), (6.5, 14.0, 13.0), (1.4, 2.6)),
    ((6.5, 14.0, 13.0), (9.0, -6.0, 16.0), (2.6, 2.4)),
    ((9.0, -6.0, 16.0), (17.0, -21.0, 9.0), (2.4, 4.4)),
    ((17.0, -21.0, 9.0), (16.0, -37.0, 6.0), (4.4, 1.6)),
    ((17.0, -21.0, 9.0), (26.0, -14.0, -6.0), (4.4, 2.2)),
    ((26.0, -14.0, -6.0), (24.0, 3.0, -12.0), (2.2, 1.2)),
)
_LEFT_VENTRICLE_SCALE = 1.4


def brain_phantom(spacing: float = 0.8, seed: int = 0) -> Volume:
    """Make the phantom: a brain of about 85 x 105 x 87 mm, isotropic voxels, zero background.

    Parameters
    ----------
    spacing
        Voxel spacing (mm). The anatomy does not depend on it, only the width of the edges does.
    seed
        Chooses the folding of the cortex and the texture; the same seed gives the same phantom.

    Returns
    -------
    Volume
        Intensities between 0 and about 1000, and a mask of everything inside the skull.

    Raises
    ------
    ValueError
        If `spacing` is not positive.
    """
    if not spacing > 0:
        raise ValueError(f"the voxel spacing must be positive (mm), not {spacing}")
    shape = tuple(int(n) for n in np.ceil((_UPPER - _LOWER) / spacing) + 1)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (_LOWER + _UPPER) / 2 - (np.array(shape) - 1) / 2 * spacing
    axes = [np.arange(n) * spacing + first for n, first in zip(shape, affine[:3, 3], strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32).reshape(3, -1)
    # A cheap shape that surely holds the brain saves most of the work.
    candidates = np.flatnonzero(ellipsoid(grid, (0, 0, 0), (50, 60, 51), power=3.0) < 0)
    outer = _skull(grid[:, candidates])
    near = outer < 3 * spacing
    data, mask = np.zeros(grid.shape[1], dtype=np.float32), np.zeros(grid.shape[1], dtype=bool)
    mask[candidates] = outer < 0
    data[candidates[near]] = _paint(grid[:, candidates[near]], outer[near], spacing, np.random.default_rng(seed))
    return Volume(data=data.reshape(shape), affine=affine, mask=mask.reshape(shape))


def _paint(points: Points, outer: Distance, spacing: float, rng: np.random.Generator) -> Distance:
    """Intensities at `points`, tissue over tissue."""
    texture = 22.0 * SmoothNoise(rng, wavelength=9.0).values(points)
    texture += 14.0 * SmoothNoise(rng, wavelength=4.5).values(points)
    image = np.zeros(points.shape[1], dtype=np.float32)

    def paint(distance: Distance, intensity: float, textured: float = 0.0, width: float = 0.35 * spacing) -> None:
        image[:] += inside(distance, width) * (intensity + textured * texture - image)

    side = _mirrored(points)
    pial = _pial_surface(points, rng)
    stem = _brain_stem(points)
    cerebellum, leaves = _cerebellum(points, rng)
    ventricles = _lateral_ventricles(points)
    ventricular_zone = smooth_maximum(ventricles - 1.8, ellipsoid(side, (12, 10, 10), (7, 16, 6)), 1.0)
    third_ventricle = ellipsoid(points, (0, 1, 0), (1.1, 7, 8))

    paint(outer, _FLUID)
    paint(pial, _CORTEX, 0.3)
    paint(pial + _CORTEX_THICKNESS, _SUBPLATE, 1.0)
    paint(pial + _SUBPLATE_DEPTH, _WHITE_MATTER, 1.0, width=0.8)
    paint(_deep_grey(side), _DEEP_GREY, 0.6, width=0.5)
    paint(stem, _BRAIN_STEM, 0.8)
    paint(ventricular_zone, _GERMINAL_MATRIX)
    paint(ventricles, _FLUID)
    paint(ellipsoid(points, (0, 17, 9.5), (2.6, 8, 3.6)), _FLUID)  # cavum septi pellucidi
    paint(third_ventricle, _FLUID)
    paint(ellipsoid(points, (0, 0, 2), (3, 2.5, 2.5)), _DEEP_GREY)  # interthalamic adhesion
    paint(cerebellum, _CORTEX, 0.5)
    paint(leaves, _SUBPLATE, 0.5)
    paint(ellipsoid(points, (0, -16.5, -22), (4.5, 2.2, 5)), _FLUID)  # fourth ventricle
    return image


def _mirrored(points: Points) -> Points:
    """Points with the left half folded onto the right one."""
    return np.stack([np.abs(points[0]), points[1], points[2]])


def _hemispheres(points: Points) -> Distance:
    """Cerebrum without folds and fissures: fronto-parietal body, cut off below, and temporal lobes."""
    # The left occipital and the right frontal lobe reach a little further back and forth (brain torque).
    side = np.stack([np.abs(points[0]), points[1] - 0.035 * points[0], points[2]])
    body = ellipsoid(side, (0, 0, 5), (38.5, 48.5, 36.5), power=2.25)
    floor = -9.0 - side[2] - 0.10 * side[1]
    temporal = ellipsoid(side, (25, 4, -12), (12.5, 26, 12.5))
    return smooth_minimum(smooth_maximum(body, floor, 8.0), temporal, 4.0)


def _skull(points: Points) -> Distance:
    """Everything inside the skull: the brain wrapped in a smooth rim of fluid."""
    cisterns = ellipsoid(points, (0, 4, -12), (20, 16, 11))
    posterior = smooth_minimum(_smooth_cerebellum(points), _brain_stem(points), 8.0)
    return smooth_minimum(smooth_minimum(_hemispheres(points), cisterns, 6.0), posterior, 8.0) - _FLUID_RIM


def _pial_surface(points: Points, rng: np.random.Generator) -> Distance:
    """Folded surface of the cerebrum: fissures and sulci cut into the hemispheres."""
    smooth = _hemispheres(points)
    side = _mirrored(points)
    # The lateral fissure, tilted up towards the back; at this age it is still open.
    tilted = side - np.array([38, 6, -2], dtype=np.float32)[:, None]
    tilted[1:] = np.array([[0.96, -0.28], [0.28, 0.96]], dtype=np.float32) @ tilted[1:]
    lateral = smooth_minimum(
        ellipsoid(tilted, (0, 6, 0), (14, 11, 3.4)), ellipsoid(tilted, (0, -12, 0), (11, 14, 1.4)), 3.0
    )
    fissure = points[0] + 0.7 * SmoothNoise(rng, wavelength=35.0).values(points)
    half_width = 0.7 + 0.8 * np.exp(np.minimum(smooth, 0) / 4.0)
    surface = smooth_maximum(smooth, -lateral, 2.0)
    surface = smooth_maximum(surface, half_width - np.abs(fissure), 2.5)
    surface = smooth_maximum(surface, -_sulci(points, smooth, rng), 1.5)
    core = ellipsoid(side, (0, 2, 1), (15, 27, 15))
    return smooth_minimum(surface, core, 3.0)


def _sulci(points: Points, smooth: Distance, rng: np.random.Generator) -> Distance:
    """Sheets of fluid that run inwards from the lines where a smooth random pattern changes its sign.

    The pattern lies on the surface and is carried towards the centre of its hemisphere; most of it is shared
    by the two hemispheres, some is not, as in a real brain.
    """
    shared, own = SmoothNoise(rng, wavelength=27.0), SmoothNoise(rng, wavelength=21.0)
    modulation = SmoothNoise(rng, wavelength=40.0)
    sheet = np.full(points.shape[1], 20.0, dtype=np.float32)
    shell = np.flatnonzero(smooth > -20.0)
    near, depth = points[:, shell], -smooth[shell]
    centre = np.array([12, 0, 6], dtype=np.float32)[:, None]
    offset = _mirrored(near) - centre
    radius = np.sqrt(np.sum((offset / np.array([26, 48, 36], dtype=np.float32)[:, None]) ** 2, axis=0))
    scale = np.maximum(radius, 0.3) ** np.float32(0.85)
    surface = offset / scale
    # The same place for the other hemisphere is 200 mm away: an independent part of the pattern.
    shift = np.where(near[0] < 0, np.float32(200), np.float32(0))
    distinct = np.stack([surface[0] + shift, surface[1], surface[2]])
    value, gradient = shared.values_and_gradients(surface)
    own_value, own_gradient = own.values_and_gradients(distinct)
    slope = np.sqrt(np.sum((gradient + 0.5 * own_gradient) ** 2, axis=0))
    across = np.abs(value + 0.5 * own_value) / np.hypot(slope, 0.09) * scale
    reach = 8.5 + 3.0 * modulation.values(surface)
    # Below, folds are shallow.
    reach *= 0.45 + 0.55 * inside(-near[2], 2.0)
    half_width = 0.3 + 1.1 * np.exp(-np.maximum(depth, 0) / 2.5)
    sheet[shell] = smooth_maximum(across - half_width, depth - reach, 3.0)
    return sheet


def _deep_grey(side: Points) -> Distance:
    """Thalamus, lentiform nucleus and head of the caudate."""
    thalamus = ellipsoid(side, (8.5, -5, 3), (7, 11, 8))
    lentiform = ellipsoid(side, (20, 7, 2), (4.5, 12, 8))
    caudate = ellipsoid(side, (11.5, 18, 8), (3.2, 8, 6))
    return np.minimum(np.minimum(thalamus, lentiform), caudate)


def _lateral_ventricles(points: Points) -> Distance:
    """Horned tubes, flattened from side to side, the left one wider."""
    both = []
    flat = np.array([1.35, 1, 1], dtype=np.float32)
    for sign, scale in ((1.0, 1.0), (-1.0, _LEFT_VENTRICLE_SCALE)):
        right = points * (flat * np.array([sign, 1, 1], dtype=np.float32))[:, None]
        horn = np.full(points.shape[1], np.inf, dtype=np.float32)
        for start, end, radii in _VENTRICLE:
            tube = capsule(right, tuple(start * flat), tuple(end * flat), (scale * radii[0], scale * radii[1]))
            horn = smooth_minimum(horn, tube, 1.5)
        both.append(horn)
    return np.minimum(*both)


def _brain_stem(points: Points) -> Distance:
    """Midbrain, pons and medulla."""
    midbrain = capsule(points, (0, -3, -3), (0, -6, -14), (9.0, 7.0))
    pons = ellipsoid(points, (0, -5, -19), (10, 7.5, 8.0))
    medulla = capsule(points, (0, -9, -22), (0, -16, -35), (6.5, 4.2))
    return smooth_minimum(smooth_minimum(midbrain, pons, 3.0), medulla, 3.0)


def _smooth_cerebellum(points: Points) -> Distance:
    """Hemispheres and vermis of the cerebellum, without leaves."""
    hemispheres = ellipsoid(_mirrored(points), (10.5, -27, -21), (13, 12, 11))
    return smooth_minimum(hemispheres, ellipsoid(points, (0, -26, -20), (6, 10, 10.5)), 2.5)


def _cerebellum(points: Points, rng: np.random.Generator) -> tuple[Distance, Distance]:
    """Surface of the cerebellum with its fissures, and the white leaves that fan out from its core."""
    surface = _smooth_cerebellum(points)
    back, up = points[1] + 20.0, points[2] + 21.0
    angle = np.arctan2(up, back) + 0.06 * SmoothNoise(rng, wavelength=20.0).values(points)
    radius = np.hypot(up, back)
    # The distance between leaves is 2 pi radius / 18 = 4.5 mm at the surface; positive between them.
    fan = np.cos(18.0 * angle) * np.minimum(radius / 18.0, 1.0)
    leaves = smooth_maximum(1.2 * fan + 0.3, surface + 1.6, 1.0)
    core = smooth_maximum(surface + 7.5, ellipsoid(points, (0, -24, -21), (18, 8, 7)), 2.0)
    return surface + 0.9 * np.maximum(fan, 0) * inside(6.0 - radius, 1.0), smooth_minimum(leaves, core, 1.5)
