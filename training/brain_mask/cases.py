"""The real stacks with the masks drawn on them, as they are and degraded as scanners do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

Case = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, drawn mask, affine
SLICE_THICKNESS = 3.0  # mm, of the real stacks


def read_real(folder: Path) -> list[Case]:
    """The six stacks of ``fetal-mial-sub-01`` with the masks that come with them."""
    stacks = []
    for path in sorted(folder.glob("sub-01_run-*_T2w.nii.gz")):
        image, mask = nib.load(path), nib.load(str(path).replace("_T2w", "_desc-brain_mask"))
        data = np.asarray(image.dataobj, np.float32)  # type: ignore[attr-defined]
        stacks.append((data, np.asarray(mask.dataobj) > 0, image.affine))  # type: ignore[attr-defined]
    return stacks


def _gamma(stack: Case, rng: np.random.Generator) -> Case:
    del rng
    image, mask, affine = stack
    return (image / image.max()) ** 0.7 * image.max(), mask, affine


def _bias(stack: Case, rng: np.random.Generator) -> Case:
    image, mask, affine = stack
    field = np.asarray(ndimage.zoom(rng.standard_normal((4, 4, 3)), np.array(image.shape) / (4, 4, 3), order=3))
    return image * (1 + 0.15 * field / np.abs(field).max()).astype(np.float32), mask, affine


def _noise(stack: Case, rng: np.random.Generator) -> Case:
    image, mask, affine = stack
    sigma = float(image[mask].mean()) / 20
    noisy = np.hypot(image + rng.normal(0, sigma, image.shape), rng.normal(0, sigma, image.shape))
    return noisy.astype(np.float32), mask, affine


def _larger_pixels(stack: Case, rng: np.random.Generator) -> Case:
    del rng
    image, mask, affine = stack
    old = np.linalg.norm(affine[:3, 0])
    shape = [int(n * old / 1.5) for n in image.shape[:2]]
    index = [(np.arange(m) + 0.5) * 1.5 / old - 0.5 for m in shape]
    where = np.stack(np.meshgrid(*index, np.arange(image.shape[2]), indexing="ij"))
    smooth = ndimage.gaussian_filter(image, (0.5, 0.5, 0))
    new = affine.copy()
    new[:3, :2] *= 1.5 / old
    new[:3, 3] = affine[:3, 3] + affine[:3, :2] @ np.array([index[0][0], index[1][0]])
    return (
        ndimage.map_coordinates(smooth, where, order=1),
        ndimage.map_coordinates(mask.astype(np.float32), where, order=1) > 0.5,
        new,
    )


def _cropped(stack: Case, rng: np.random.Generator) -> Case:
    """Cut to 15 to 50 mm around the brain on each side in the plane, and the end slices off."""
    image, mask, affine = stack
    part = []
    for axis in (0, 1):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = rng.uniform(15, 50, 2) / np.linalg.norm(affine[:3, axis])
        part.append(slice(max(int(used[0] - margin[0]), 0), int(used[-1] + margin[1]) + 1))
    part.append(slice(1, -1))
    new = affine.copy()
    new[:3, 3] += affine[:3, :3] @ [p.start for p in part]
    return image[tuple(part)], mask[tuple(part)], new


DEGRADED: dict[str, Callable[[Case, np.random.Generator], Case]] = {
    "gamma 0.7": _gamma,
    "bias 15 %": _bias,
    "noise, SNR 20": _noise,
    "1.5 mm pixels": _larger_pixels,
    "cropped": _cropped,
}
