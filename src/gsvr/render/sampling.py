"""Values of a field at the pixels of planes: what volumes and single planes are rendered with.

Everything is rendered on the host, or on the device of a `backend` (see `gsvr.backends.rendering_device`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int

from gsvr.backends import named
from gsvr.backends.planes import ParallelPlanes
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.geometry import identity_poses
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator

# Where Gaussians are cut off, in standard deviations: what is left out is below 4e-6 of each peak, as float32 is.
_CUTOFF = 5.0
# Planes of a grid that are sampled at once: the pairs of a Gaussian and a plane are kept in memory.
_PLANES_AT_ONCE = 128


def plane_slices(
    frames: Float[np.ndarray, "n 4 4"], shapes: Int[np.ndarray, "n 2"], spacing: tuple[float, float]
) -> Slices:
    """Planes as slices without values: `frames` map each plane (mm) to volume world (mm)."""
    n, offsets = len(frames), np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
    n_pixels = int(offsets[-1])
    return Slices(
        values=np.zeros(n_pixels, np.float32),
        mask=np.ones(n_pixels, bool),
        coverage=np.ones(n_pixels, np.float32),
        shapes=shapes,
        offsets=offsets.astype(np.int64),
        frames=frames,
        spacings=np.tile(np.asarray(spacing, dtype=np.float64), (n, 1)),
        thicknesses=np.zeros(n),
        times=np.zeros(n),
        stack_index=np.zeros(n, dtype=np.int64),
        slice_index=np.arange(n),
        stack_names=("plane",),
    )


def sample_planes(
    field: LatticeField | GaussianField, planes: Slices, spread: PointSpread, backend: str = "cpu"
) -> Float32[np.ndarray, " p"]:
    """The field at every pixel of the planes, seen through `spread`; terms below float32 are left out."""
    still = identity_poses(planes.n_slices)
    if isinstance(field, LatticeField):
        operator = LatticeOperator(field.lattice, planes, still, None, lambda _: spread, backend, _CUTOFF)
    else:
        operator = GaussianOperator(field, planes, still, None, lambda _: spread, backend, _CUTOFF)
    return operator.backend.host(operator.predict(operator.backend.array(field.amplitudes)))


def sample_parallel(
    field: GaussianField, planes: ParallelPlanes, backend: str = "cpu"
) -> Float32[np.ndarray, "planes rows columns"]:
    """Free Gaussians at the points of parallel planes; terms below float32 are left out.

    Raises
    ------
    ValueError
        If only the nearest Gaussians count: which these are, `sample_planes` finds.
    """
    if field.nearest is not None:
        raise ValueError("a field of nearest neighbours is sampled by sample_planes")
    return named(backend).sample_planes(field, planes, _CUTOFF)


def sample_grid(
    field: LatticeField | GaussianField, axes: tuple[np.ndarray, np.ndarray, np.ndarray], backend: str = "cpu"
) -> Float32[np.ndarray, "nx ny nz"]:
    """Values of a field on a grid along the world's axes, given by its (even) coordinates (mm) on each axis."""
    if isinstance(field, LatticeField):
        return named(backend).sample_lattice(field, axes)
    x, y, z = (np.asarray(axis, dtype=np.float64) for axis in axes)
    if field.nearest is None:
        # the planes' axes u, v, w are the world's y, z, x
        to_planes = np.array([[0, 1, 0, -y[0]], [0, 0, 1, -z[0]], [1, 0, 0, -x[0]]], dtype=np.float64)
        shape, spacing = (len(x), len(y), len(z)), (_step(x), _step(y), _step(z))
        planes = ParallelPlanes(to_planes, shape, spacing, np.ones(1), np.zeros(1), np.zeros(1))
        return sample_parallel(field, planes, backend)
    spacing = (_step(y), _step(z))
    frames = np.zeros((len(x), 4, 4))
    # the planes' axes u, v, w are the world's y, z, x
    frames[:, (1, 2, 0, 3), (0, 1, 2, 3)] = 1.0
    frames[:, :3, 3] = np.stack([x, np.full(len(x), y[0]), np.full(len(x), z[0])], axis=1)
    out = np.empty((len(x), len(y), len(z)), np.float32)
    for first in range(0, len(x), _PLANES_AT_ONCE):
        some = frames[first : first + _PLANES_AT_ONCE]
        planes = plane_slices(some, np.tile([len(y), len(z)], (len(some), 1)), spacing)
        out[first : first + len(some)] = sample_planes(field, planes, PointSpread.points(len(some)), backend).reshape(
            len(some), len(y), len(z)
        )
    return out


def _step(coordinates: np.ndarray) -> float:
    return float(coordinates[1] - coordinates[0]) if len(coordinates) > 1 else 1.0
