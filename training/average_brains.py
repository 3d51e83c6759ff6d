"""Average fetal brains in standard axes, for `gsvr.evaluation.anatomical_axes`.

``python -m training.average_brains DATA`` makes ``src/gsvr/evaluation/average_brains.npz`` from the fifteen brains of
``DATA/atlas-fidon-cc0`` (Fidon et al., Open Research Europe 2021; CC0), averaged over ages that look alike. They are of
fetuses with spina bifida, with wide ventricles and little fluid around the brain; so a fourth one is that of
``DATA/fetal-mial-sub-01`` (CC0), reconstructed here. Each is in units of its own radius, and averaged with its mirror
image. Standard axes are those of the atlases; the subject is turned to them by its plane of symmetry and its outline.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from gsvr.evaluation.anatomical_axes import OCCUPANCY_LEVELS, VALUE_LEVELS
from gsvr.evaluation.symmetry import NormalisedBrain, normalised_brain, symmetry_planes
from gsvr.io.atomic import atomic_path
from gsvr.io.nifti import read_volume
from gsvr.model.geometry import pose_from_parts, rotation_from_vector
from gsvr.model.volume import Volume
from gsvr.render.volume import render_volume
from gsvr.workflows.inputs import StackInputs
from gsvr.workflows.pipeline import prepare, run

# Distance of samples (radii); the last of the atlases, in the order of their names, of each age.
STEP, AGES = 0.15, (5, 9, 15)
# Voxel (mm) in which the subject is looked at.
SPACING = 1.5


def atlas_paths(folder: Path) -> list[Path]:
    """Images of the atlases, in the order of their weeks."""
    paths = sorted(folder.glob("*_srr.nii.gz"))
    if len(paths) != AGES[-1]:
        raise FileNotFoundError(f"{folder} holds {len(paths)} images *_srr.nii.gz, not {AGES[-1]}")
    return paths


def normalised_atlas(path: Path) -> NormalisedBrain:
    """An atlas in its own units."""
    return normalised_brain(read_volume(path, path.with_name(path.name.replace("_srr", "_mask"))), STEP)


def reconstructed_subject(folder: Path) -> Volume:
    """The subject, as its scanner has it, whose axes are not far from its own."""
    stacks = [folder / f"sub-01_run-{number}_T2w.nii.gz" for number in range(1, 7)]
    masks = [folder / path.name.replace("_T2w", "_desc-brain_mask") for path in stacks]
    result = run(prepare(StackInputs(stacks, masks))).result
    return render_volume(result.field, SPACING, result.mask)


def in_standard_axes(volume: Volume, outline: NormalisedBrain) -> NormalisedBrain:
    """A brain whose axes are not far from standard ones, turned to them."""
    plane = symmetry_planes(normalised_brain(volume))[0]
    right = plane.normal * np.sign(plane.normal[0])
    front = np.cross([0.0, 0.0, 1.0], right)
    front /= np.linalg.norm(front)
    axes = np.stack([right, front, np.cross(right, front)], axis=1)

    def turned(degrees: float) -> NormalisedBrain:
        rotation = rotation_from_vector(np.array([np.radians(degrees), 0.0, 0.0])) @ axes.T
        return normalised_brain(
            Volume(volume.data, pose_from_parts(rotation, np.zeros(3)) @ volume.affine, volume.mask), STEP
        )

    candidates = [turned(degrees) for degrees in np.arange(-24.0, 25.0, 3.0)]
    return max(candidates, key=lambda brain: float((brain.occupancy * outline.occupancy).sum()))


def averages(brains: Sequence[NormalisedBrain | None], subject: NormalisedBrain) -> list[NormalisedBrain]:
    """Average brains of all ages, None being left out, and the subject; all symmetric."""
    found = []
    for first, last in zip((0, *AGES), (*AGES, None), strict=True):
        there = [brain for brain in [*brains, subject][first:last] if brain is not None]
        parts = [np.mean([getattr(brain, name) for brain in there], axis=0) for name in ("values", "occupancy")]
        found.append(NormalisedBrain(np.zeros(3), 1.0, STEP, *((part + part[::-1]) / 2 for part in parts)))
    return found


def main(data: Path) -> None:
    """Make the average brains and write them into the package."""
    atlases = [normalised_atlas(path) for path in atlas_paths(data / "atlas-fidon-cc0")]
    subject = reconstructed_subject(data / "fetal-mial-sub-01")
    brains = averages(atlases, in_standard_axes(subject, averages(atlases, atlases[0])[1]))
    middle = brains[0].values.shape[0] // 2
    values = np.stack([brain.values[middle:] for brain in brains])
    occupancy = np.stack([brain.occupancy[middle:] for brain in brains])
    path = Path(str(resources.files("gsvr.evaluation") / "average_brains.npz"))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            values=np.clip(np.rint(values * VALUE_LEVELS), -127, 127).astype(np.int8),
            occupancy=np.clip(np.rint(occupancy * OCCUPANCY_LEVELS), 0, 255).astype(np.uint8),
            step=np.float64(STEP),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
