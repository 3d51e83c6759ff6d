"""Label maps of fetal brains, each with the distance to the skull around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from training.brain_mask.distances import grown, signed_distance

# The brainstem's tail below the skull is narrower than this, the gaps between frontal and temporal lobes, which
# whoever draws a mask by hand includes, are narrower than twice the second number
TAIL_RADIUS = 5.0
GAP_RADIUS = 12.0
# Labels are kept at the spacing of the file, distances at twice that, with this much around the brain
SURROUNDINGS = 40.0


@dataclass(frozen=True)
class Atlas:
    """One brain in its own frame: right, anterior, superior, mm from the centre of the space inside the skull."""

    name: str
    labels: np.ndarray  # uint8 (x, y, z): tissue, 0 outside
    label_spacing: float
    label_origin: np.ndarray  # (3,): position of the first voxel
    distance: np.ndarray  # float32 (x, y, z): mm outside the inner skull, negative inside
    distance_spacing: float
    distance_origin: np.ndarray  # (3,)
    half_size: np.ndarray  # (3,): half the extent of the space inside the skull, mm


def space_inside_skull(brain: np.ndarray, spacing: float) -> np.ndarray:
    """What a hand-drawn mask covers: the brain without the tail of the brainstem and with its gaps closed."""
    without_tail = grown(grown(brain, -TAIL_RADIUS, spacing), TAIL_RADIUS, spacing)
    return grown(grown(without_tail, GAP_RADIUS, spacing), -GAP_RADIUS, spacing)


def read_atlas(path: Path) -> Atlas:
    """Reads one ``*_parcellation.nii.gz`` (axes right, anterior, superior; isotropic)."""
    image = nib.as_closest_canonical(nib.load(path))  # type: ignore[arg-type]
    labels = np.asarray(image.dataobj).astype(np.uint8)  # type: ignore[attr-defined]
    spacing = float(image.header.get_zooms()[0])  # type: ignore[attr-defined]
    coarse_spacing = 2 * spacing
    margin = int(np.ceil(SURROUNDINGS / coarse_spacing))
    brain = np.pad(labels[::2, ::2, ::2] > 0, margin)
    skull = space_inside_skull(brain, coarse_spacing)
    occupied = [np.flatnonzero(skull.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    low = np.array([o[0] for o in occupied], float)
    high = np.array([o[-1] for o in occupied], float)
    centre = (low + high) / 2 * coarse_spacing
    return Atlas(
        name=path.name.split("_parcellation")[0],
        labels=labels,
        label_spacing=spacing,
        label_origin=margin * coarse_spacing - centre,
        distance=signed_distance(skull, coarse_spacing),
        distance_spacing=coarse_spacing,
        distance_origin=-centre,
        half_size=(high - low + 1) / 2 * coarse_spacing,
    )


def read_atlases(folder: Path) -> list[Atlas]:
    """All label maps of ``atlas-fidon-cc0``, in the order of their names."""
    paths = sorted(folder.glob("*_parcellation.nii.gz"))
    if not paths:
        raise FileNotFoundError(f"no *_parcellation.nii.gz in {folder}")
    return [read_atlas(path) for path in paths]
