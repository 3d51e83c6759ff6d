"""Fields on the points of planes and grids, rendered on a device.

A volume is a stack of parallel slices without a point spread function. So free Gaussians are predicted by the kernels
that also fit them, for some planes at a time: what one block of planes needs is all that is in memory.

Bound: a tile sees every Gaussian of its list whole where the CPU cuts it to its window, so both differ by less than
exp(-cutoff^2 / 2) of the peak of each Gaussian that touches the tile but not the pixel, and by the rounding of float32.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float32

from gsvr.backends.planes import ParallelPlanes
from gsvr.backends.torch.gaussians import TorchGaussianKernel
from gsvr.backends.torch.splats import gaussians_on
from gsvr.backends.torch.tensors import moved
from gsvr.backends.views import SliceViews
from gsvr.model.fields import GaussianField, LatticeField, axis_kernel
from gsvr.model.point_spread import PointSpread

# Planes that are rendered at once. At 0.8 mm each sees some ten thousand Gaussians of a usual reconstruction, in half a
# kilobyte each while their windows are found.
_AT_ONCE = 16


def render_planes(
    field: GaussianField, planes: ParallelPlanes, cutoff: float, device: torch.device, kernels: ModuleType
) -> Float32[np.ndarray, "planes rows columns"]:
    """See `gsvr.backends.protocol.Backend.sample_planes`; `kernels` as of `TorchGaussianKernel`."""
    gaussians = gaussians_on(device, field)
    amplitudes = moved(field.amplitudes, torch.float32, device)
    out = np.empty(planes.shape, np.float32)
    for first in range(0, planes.shape[0], _AT_ONCE):
        some = slice(first, min(first + _AT_ONCE, planes.shape[0]))
        views = _views(planes, np.arange(some.start, some.stop), cutoff, field.normalisation is None)
        kernel = TorchGaussianKernel(gaussians, views, kernels)
        values = kernel.predict(amplitudes)
        if field.normalisation is not None:
            values = values / (kernel.predict(torch.ones_like(amplitudes)) + field.normalisation)
        out[some] = values.cpu().numpy().reshape(out[some].shape)
    return out


def _views(planes: ParallelPlanes, numbers: np.ndarray, cutoff: float, exact: bool) -> SliceViews:
    """Some planes as slices."""
    n, (_, rows, columns) = len(numbers), planes.shape
    to_slice = np.tile(planes.to_planes.astype(np.float64), (n, 1, 1))
    to_slice[:, 2, 3] -= planes.spacing[0] * numbers
    shapes, spacing = np.tile([rows, columns], (n, 1)), np.tile(planes.spacing[1:], (n, 1))
    through = (np.tile(part, (n, 1)) for part in (planes.offsets, planes.variances))
    return SliceViews(
        to_slice=to_slice,
        pixel_spacing=spacing,
        centres=(shapes - 1) * spacing / 2,
        spread=PointSpread.through_plane(np.zeros((n, 2)), planes.weights, *through),
        shapes=shapes,
        first_pixel=rows * columns * np.arange(n + 1),
        cutoff=cutoff,
        exact=exact,
    )


def render_lattice(
    field: LatticeField, axes: tuple[np.ndarray, np.ndarray, np.ndarray], device: torch.device
) -> Float32[np.ndarray, "nx ny nz"]:
    """As `gsvr.model.fields.lattice_values`: three matrix products with 1-D Gaussians, and nothing is cut off."""
    along_x, along_y, along_z = (
        moved(axis_kernel(field.lattice, axis, places), torch.float32, device) for axis, places in enumerate(axes)
    )
    values = moved(field.amplitudes, torch.float32, device)
    values = (along_x @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
    return (along_y @ values @ along_z.T).cpu().numpy()
