"""Values of a field on grids and at the pixels of planes: what volumes and single planes are rendered with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int

from gsvr.backends import Backend, named
from gsvr.backends.planes import ParallelPlanes
from gsvr.backends.views import nearest_radii, slice_views
from gsvr.backends.windows import WHOLE, slice_windows
from gsvr.model.fields import Field, LatticeField, SumField
from gsvr.model.geometry import identity_poses
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices

# Planes of a grid that are sampled at once: the pairs of a Gaussian and a plane are kept in memory.
_PLANES_AT_ONCE = 128


def sample_grid(
    field: Field, axes: tuple[np.ndarray, np.ndarray, np.ndarray], backend: Backend | str = "cpu"
) -> Float32[np.ndarray, "nx ny nz"]:
    """Values of a field on a grid along the world's axes, given by its (even) coordinates (mm) on each axis."""
    if isinstance(field, SumField):
        return np.add.reduce([sample_grid(part, axes, backend) for part in field.parts])
    if isinstance(field, LatticeField):
        return named(backend).sample_lattice(field, axes)
    x, y, z = (np.asarray(axis, dtype=np.float64) for axis in axes)
    # the planes' axes u, v, w are the world's y, z, x
    if field.nearest is None:
        to_planes = np.array([[0, 1, 0, -y[0]], [0, 0, 1, -z[0]], [1, 0, 0, -x[0]]], dtype=np.float64)
        shape, spacing = (len(x), len(y), len(z)), (_step(x), _step(y), _step(z))
        planes = parallel_planes(to_planes, shape, spacing, PointSpread.points(1))
        return named(backend).sample_planes(field, planes, WHOLE)
    frames = np.zeros((len(x), 4, 4))
    frames[:, (1, 2, 0, 3), (0, 1, 2, 3)] = 1.0
    frames[:, :3, 3] = np.stack([x, np.full(len(x), y[0]), np.full(len(x), z[0])], axis=1)
    blocks = []
    for first in range(0, len(x), _PLANES_AT_ONCE):
        some = frames[first : first + _PLANES_AT_ONCE]
        planes = plane_slices(some, np.tile([len(y), len(z)], (len(some), 1)), (_step(y), _step(z)))
        blocks.append(sample_slices(field, planes, PointSpread.points(len(some)), backend))
    return np.concatenate(blocks).reshape(len(x), len(y), len(z))


def sample_slices(
    field: Field, planes: Slices, spread: PointSpread, backend: Backend | str = "cpu"
) -> Float32[np.ndarray, " p"]:
    """The field at every pixel of planes, seen through `spread`; terms below float32 are left out."""
    if isinstance(field, SumField):
        return np.add.reduce([sample_slices(part, planes, spread, backend) for part in field.parts])
    backend, still = named(backend), identity_poses(planes.n_slices)
    amplitudes = backend.array(field.amplitudes)
    if isinstance(field, LatticeField):
        windows = slice_windows(field.lattice, planes, still, spread, WHOLE)
        return backend.host(backend.lattice_kernel(field.lattice, windows).predict(amplitudes))
    exact = field.normalisation is None
    radii = None if field.nearest is None else nearest_radii(field.means, planes, still, field.nearest)
    kernel = backend.gaussian_kernel(field, slice_views(planes, still, spread, WHOLE, exact, radii))
    values = backend.host(kernel.predict(amplitudes))
    if field.normalisation is None:
        return values
    density = backend.host(kernel.predict(backend.array(np.ones(field.n_gaussians, np.float32))))
    return values / (density + np.float32(field.normalisation))


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


def parallel_planes(
    to_planes: Float[np.ndarray, "3 4"],
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    spread: PointSpread,
) -> ParallelPlanes:
    """Planes that are all seen through the first slice profile of `spread`."""
    return ParallelPlanes(
        to_planes, shape, spacing, spread.weights, spread.offsets[0, :, 2], spread.covariances[0, :, 2, 2]
    )


def _step(coordinates: np.ndarray) -> float:
    return float(coordinates[1] - coordinates[0]) if len(coordinates) > 1 else 1.0
