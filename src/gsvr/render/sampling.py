"""Values of a field at the pixels of planes: what volumes and single planes are rendered with.

Everything is rendered on the host, or on the device of a `backend` (see `gsvr.backends.rendering_device`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int
from threadpoolctl import threadpool_limits

from gsvr.backends import gaussian_kernel, lattice_kernel, rendering_device
from gsvr.backends.planes import ParallelPlanes
from gsvr.backends.views import nearest_radii, slice_views
from gsvr.backends.windows import slice_windows
from gsvr.model.fields import GaussianField, LatticeField, sample_lattice
from gsvr.model.geometry import identity_poses
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices

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
    name = rendering_device(backend) or "cpu"
    if isinstance(field, LatticeField):
        windows = slice_windows(field.lattice, planes, still, spread, _CUTOFF)
        return lattice_kernel(name, field.lattice, windows).predict(field.amplitudes)
    exact = field.normalisation is None
    radii = None if field.nearest is None else nearest_radii(field.means, planes, still, field.nearest)
    kernel = gaussian_kernel(name, field, slice_views(planes, still, spread, _CUTOFF, exact, radii))
    values = kernel.predict(field.amplitudes.astype(np.float32))
    if field.normalisation is None:
        return values
    return values / (kernel.predict(np.ones(len(field.means), np.float32)) + np.float32(field.normalisation))


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
    device = rendering_device(backend)
    if device is not None:
        import torch  # takes a second, and only devices need it

        from gsvr.backends.torch.rendering import render_on_planes

        return render_on_planes(field, planes, _CUTOFF, torch.device(device))
    amplitudes = field.amplitudes.astype(np.float32)
    if field.normalisation is None:
        return splat_on_planes(field, amplitudes, planes, _CUTOFF, exact=True)
    values = splat_on_planes(field, amplitudes, planes, _CUTOFF, exact=False)
    density = splat_on_planes(field, np.ones_like(amplitudes), planes, _CUTOFF, exact=False)
    return values / (density + np.float32(field.normalisation))


def sample_grid(
    field: LatticeField | GaussianField, axes: tuple[np.ndarray, np.ndarray, np.ndarray], backend: str = "cpu"
) -> Float32[np.ndarray, "nx ny nz"]:
    """Values of a field on a grid along the world's axes, given by its (even) coordinates (mm) on each axis."""
    if isinstance(field, LatticeField):
        return _sample_lattice(field, axes, backend)
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


def _sample_lattice(
    field: LatticeField, axes: tuple[np.ndarray, np.ndarray, np.ndarray], backend: str
) -> Float32[np.ndarray, "nx ny nz"]:
    device = rendering_device(backend)
    if device is not None:
        import torch

        from gsvr.backends.torch.rendering import render_lattice

        return render_lattice(field, axes, torch.device(device))
    # products this short are slower on two threads than on one as soon as the machine does anything else
    with threadpool_limits(1, "blas"):
        return sample_lattice(field, axes)


def _step(coordinates: np.ndarray) -> float:
    return float(coordinates[1] - coordinates[0]) if len(coordinates) > 1 else 1.0
