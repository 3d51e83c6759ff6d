"""A volume on a voxel grid: intensities, where they lie in the world, and the anatomy of interest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped

from gsvr.model.notebook import middle_planes, mosaic_html
from gsvr.model.validation import as_affine, as_mask, as_numbers, inside_of


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_numbers("a volume", self.data, (None, None, None), np.float32))
        object.__setattr__(self, "affine", as_affine("the affine of a volume", self.affine))
        if self.mask is not None:
            object.__setattr__(self, "mask", as_mask("the mask of a volume", self.mask, self.data.shape))

    def __repr__(self) -> str:
        shape, spacing = " x ".join(map(str, self.data.shape)), " x ".join(f"{side:.3g}" for side in self.spacing)
        return f"Volume({shape} voxels of {spacing} mm{'' if self.mask is None else ', with a mask'})"

    def _repr_html_(self) -> str:
        planes = middle_planes(self.data, self.affine, self.mask)
        return mosaic_html(planes, repr(self), "axial, coronal and sagittal plane through the middle")

    @property
    def spacing(self) -> Float[np.ndarray, " 3"]:
        """Distance between voxel centres along each axis (mm)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def outline(self, inside: Shaped[np.ndarray, "x y z"]) -> Float[np.ndarray, "n 3"]:
        """World positions (mm) of the first and last voxel inside on every line along z.

        Nothing inside lies beyond them in any direction, and they are far fewer than all voxels.
        """
        inside = as_mask("the mask of a volume", inside, self.data.shape)
        lines = np.argwhere(inside.any(axis=2))
        there = inside[lines[:, 0], lines[:, 1]]
        ends = (there.argmax(axis=1), there.shape[1] - 1 - there[:, ::-1].argmax(axis=1))
        index = np.concatenate([np.column_stack([lines, end]) for end in ends])
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def centre(
        self, inside: Shaped[np.ndarray, "x y z"], weights: Float[np.ndarray, "x y z"] | None = None
    ) -> Float[np.ndarray, " 3"]:
        """World position (mm) of the centre of mass of some voxels."""
        inside = as_mask("the mask of a volume", inside, self.data.shape)
        mass = inside if weights is None else weights * inside
        total = mass.sum(dtype=np.float64)
        along = (mass.sum(axis=(1, 2)), mass.sum(axis=(0, 2)), mass.sum(axis=(0, 1)))
        index = np.array([(sums * np.arange(len(sums))).sum() / total for sums in along])
        return self.affine[:3, :3] @ index + self.affine[:3, 3]

    def voxel_positions(self, inside: Shaped[np.ndarray, "x y z"] | None = None) -> Float[np.ndarray, "n 3"]:
        """World positions (mm) of the voxel centres, or of those where `inside` is True, in array order."""
        selected = inside_of("the mask of a volume", inside, self.data.shape)
        return np.argwhere(selected) @ self.affine[:3, :3].T + self.affine[:3, 3]
