"""Images with known geometry for the tests of file formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

SHAPE = (6, 7, 5)


@pytest.fixture
def affine() -> np.ndarray:
    """Axial stack, 1.0 x 1.2 x 3.0 mm, off centre."""
    affine = np.diag([1.0, 1.2, 3.0, 1.0])
    affine[:3, 3] = [-20.0, 15.0, 4.0]
    return affine


@pytest.fixture
def intensities() -> np.ndarray:
    """Every voxel has a value of its own, exact in float32."""
    return np.arange(1, 1 + np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write an image as another tool would, without the code under test."""

    def write(
        name: str,
        data: np.ndarray,
        affine: np.ndarray,
        *,
        slice_axis: int | None = None,
        codes: tuple[int, int] = (1, 1),
        unit: str = "mm",
    ) -> Path:
        image = nibabel.Nifti1Image(data, affine)
        image.header.set_xyzt_units(xyz=unit)
        image.header.set_dim_info(slice=slice_axis)
        image.set_qform(affine, code=codes[0])
        image.set_sform(affine, code=codes[1])
        path = tmp_path / name
        nibabel.save(image, path)
        return path

    return write
