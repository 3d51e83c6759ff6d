"""A volume on a voxel grid: intensities, where they lie in the world, and the anatomy of interest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32


@dataclass(frozen=True)
class Volume:
    """Intensities on a voxel grid.

    Attributes
    ----------
    data
        Intensities.
    affine
        Voxel index -> world (RAS+, mm).
    mask
        True where the anatomy of interest is, or None if nobody drew one.
    """

    data: Float32[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    mask: Bool[np.ndarray, "x y z"] | None = None

    @property
    def spacing(self) -> Float[np.ndarray, " 3"]:
        """Distance between voxel centres along each axis (mm)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def outline(self, inside: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, "n 3"]:
        """World positions (mm) of the first and last voxel inside on every line along z.

        Nothing inside lies beyond them in any direction, and they are far fewer than all voxels.
        """
        lines = np.argwhere(inside.any(axis=2))
        there = inside[lines[:, 0], lines[:, 1]]
        ends = (there.argmax(axis=1), there.shape[1] - 1 - there[:, ::-1].argmax(axis=1))
        index = np.concatenate([np.column_stack([lines, end]) for end in ends])
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def centre(
        self, inside: Bool[np.ndarray, "x y z"], weights: Float[np.ndarray, "x y z"] | None = None
    ) -> Float[np.ndarray, " 3"]:
        """World position (mm) of the centre of mass of some voxels."""
        mass = inside if weights is None else weights * inside
        total = mass.sum(dtype=np.float64)
        along = (mass.sum(axis=(1, 2)), mass.sum(axis=(0, 2)), mass.sum(axis=(0, 1)))
        index = np.array([(sums * np.arange(len(sums))).sum() / total for sums in along])
        return self.affine[:3, :3] @ index + self.affine[:3, 3]

    def voxel_positions(self, inside: Bool[np.ndarray, "x y z"] | None = None) -> Float[np.ndarray, "n 3"]:
        """World positions (mm) of the voxel centres, or of those where `inside` is True, in array order."""
        selected = np.ones(self.data.shape, dtype=bool) if inside is None else inside
        return np.argwhere(selected) @ self.affine[:3, :3].T + self.affine[:3, 3]
