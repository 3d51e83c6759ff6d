"""Arrays from outside: converted where that is safe, refused in one sentence elsewhere.

An array that is as it should be is given back as it is, so that a check costs microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import DTypeLike

# Cosine between the in-plane axes of a stack: 0.001 shifts the far edge of a 300 mm field of view by 0.3 mm.
LARGEST_SHEAR = 1e-3
# mm and intensity beyond which numbers are damage, not anatomy; sums of such amplitudes still fit float32.
FARTHEST, LARGEST_AMPLITUDE = 1e6, 1e30
# Volume of the parallelepiped of three unit axes below which they no longer span space.
SMALLEST_DETERMINANT = 1e-3


def as_numbers(
    what: str, values: Any, shape: Sequence[int | None], dtype: DTypeLike | None = None, finite: bool = True
) -> np.ndarray:
    """Real numbers as a contiguous array.

    Parameters
    ----------
    what
        How a message calls them.
    shape
        That they must have; None: any length.
    dtype
        Of the result; None: floating-point numbers stay as they are, others become float64.
    finite
        Refuse NaN and infinity.

    Raises
    ------
    ValueError
        If they are no numbers, or of another shape, or not finite.
    """
    array = _as_array(what, values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what} must be real numbers, not {array.dtype}")
    _check_shape(what, array, shape)
    wanted = dtype or (array.dtype if array.dtype.kind == "f" else np.float64)
    if finite and array.dtype.kind == "f" and not _is_finite(array):
        raise ValueError(f"{what} must be finite: replace NaN and infinite values by numbers")
    return np.asarray(array, wanted, order="C")


def as_mask(what: str, values: Any, shape: Sequence[int | None]) -> np.ndarray:
    """A mask as a boolean array; numbers are taken for one where they are all 0 or 1.

    Raises
    ------
    ValueError
        If there are other numbers (what they mean is not known), or the shape is another.
    """
    array = _as_array(what, values)
    _check_shape(what, array, shape)
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iuf" or not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{what} must be True or False, or 1 or 0, everywhere: give a comparison, such as labels > 0")
    return array.astype(bool)


def inside_of(what: str, mask: Any, shape: Sequence[int]) -> Bool[np.ndarray, "*shape"]:
    """A mask, or all if there is none."""
    return np.ones(tuple(shape), bool) if mask is None else as_mask(what, mask, shape)


def as_affine(what: str, values: Any) -> Float[np.ndarray, "4 4"]:
    """An affine from voxel indices to the world (mm) as float64.

    Raises
    ------
    ValueError
        If it is not finite, not 4 x 4, its last row is not 0 0 0 1, or its axes do not span space.
    """
    affine = as_numbers(what, values, (4, 4), np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    spans = (lengths > 0).all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > SMALLEST_DETERMINANT
    if not spans or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise ValueError(f"{what} must have three axes that span space, and 0 0 0 1 for its last row")
    return affine


def as_positive(what: str, value: Any) -> float:
    """A positive number.

    Raises
    ------
    ValueError
        If it is none.
    """
    number = as_numbers(what, value, (), np.float64)
    if not number > 0:
        raise ValueError(f"{what} must be positive, not {float(number):g}")
    return float(number)


def check_extent(what: str, *places: Any) -> None:
    """Refuse coordinates (mm) that no body has.

    Raises
    ------
    ValueError
        If one is not finite, or farther than 1 km from the world's origin.
    """
    for place in places:
        if not np.abs(place).max(initial=0) <= FARTHEST:
            raise ValueError(f"{what} lies more than {FARTHEST:g} mm away")


def _as_array(what: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{what} must be an array: its rows have different lengths") from error


def _check_shape(what: str, array: np.ndarray, shape: Sequence[int | None]) -> None:
    if len(shape) != array.ndim or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = " x ".join("n" if n is None else str(n) for n in shape) or "a single number"
        raise ValueError(f"{what} must be {wanted}, not {' x '.join(map(str, array.shape)) or 'a single number'}")


def _is_finite(array: np.ndarray) -> bool:
    """Neither end is NaN or infinite; no array of booleans is made."""
    return array.size == 0 or bool(np.isfinite(array.min()) and np.isfinite(array.max()))
