"""Fields on the points of grids and planes, rendered on a device: the twin of `gaussian_planes` and `sample_lattice`.

A volume is a stack of parallel slices without a point spread function. So free Gaussians are predicted by the kernels
of tiles that also fit them, for some planes at a time: what one block of planes needs is all that is in memory.

Bound: windows are those of the host, from the same formula. A tile sees every Gaussian of its list whole where the host
cuts it to its window, so both differ by less than exp(-cutoff^2 / 2) of the peak of each Gaussian that touches the tile
but not the pixel, and by the rounding of float32.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from gsvr.backends.planes import ParallelPlanes
from gsvr.backends.torch import plain_gaussians
from gsvr.backends.torch.gaussian_tiles import gaussian_tiles
from gsvr.backends.torch.gaussians import triton_gaussian_kernels
from gsvr.backends.torch.splats import Geometry, geometry_of
from gsvr.backends.views import SliceViews
from gsvr.model.fields import GaussianField, Lattice, LatticeField, axis_kernel
from gsvr.model.point_spread import PointSpread

# Planes that are rendered at once. At 0.8 mm each sees some ten thousand Gaussians of a usual reconstruction, in half a
# kilobyte each while their windows are found.
_AT_ONCE = 16


def render_on_planes(
    field: GaussianField,
    planes: ParallelPlanes,
    cutoff: float,
    device: torch.device,
    kernels: ModuleType | None = None,
) -> Float32[np.ndarray, "planes rows columns"]:
    """The field at all points of parallel planes, as `gsvr.render.sampling.sample_parallel` gives it on the host.

    Parameters
    ----------
    cutoff
        A term is left out only where it is below exp(-cutoff^2 / 2) of its peak.
    kernels
        `triton_gaussians` or `plain_gaussians`; default: Triton on CUDA devices, plain PyTorch elsewhere.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # Triton launches on the current one
    kernels = kernels or (triton_gaussian_kernels() if device.type == "cuda" else plain_gaussians)
    amplitudes = torch.as_tensor(field.amplitudes.astype(np.float32)).to(device)
    # Each component of the profile by itself: two thin ones may stand many standard deviations apart, so one is no
    # multiple of the other in float32.
    components = [_views(planes, m, cutoff, field.normalisation is None) for m in range(len(planes.weights))]
    geometries = [geometry_of(field, views, device) for views in components]
    out = np.empty(planes.shape, np.float32)
    for first in range(0, planes.shape[0], _AT_ONCE):
        some = slice(first, min(first + _AT_ONCE, planes.shape[0]))
        sums = torch.zeros((2, out[some].size), device=device)
        for views, geometry in zip(components, geometries, strict=True):
            _add_planes(sums, geometry, _some_views(views, some), some, amplitudes, kernels)
        values, density = sums
        if field.normalisation is not None:
            values = values / (density + field.normalisation)
        out[some] = values.cpu().numpy().reshape(out[some].shape)
    return out


def render_lattice(
    field: LatticeField, axes: tuple[np.ndarray, np.ndarray, np.ndarray], device: torch.device
) -> Float32[np.ndarray, "nx ny nz"]:
    """As `gsvr.model.fields.sample_lattice`: three matrix products with 1-D Gaussians, and nothing is cut off."""
    amplitudes = torch.as_tensor(np.asarray(field.amplitudes, dtype=np.float32)).to(device)
    return lattice_values(amplitudes, field.lattice, axes).cpu().numpy()


def lattice_values(
    amplitudes: Float32[Tensor, "nx ny nz"], lattice: Lattice, axes: tuple[np.ndarray, ...]
) -> Float32[Tensor, "x y z"]:
    """`render_lattice` with tensors in and out, on the device of the amplitudes."""
    along_x, along_y, along_z = (
        torch.as_tensor(axis_kernel(lattice, axis, places)).to(amplitudes.device) for axis, places in enumerate(axes)
    )
    values = (along_x @ amplitudes.reshape(len(amplitudes), -1)).reshape(-1, *amplitudes.shape[1:])
    return along_y @ values @ along_z.T


def _add_planes(
    sums: Float32[Tensor, "2 p"],
    geometry: Geometry,
    views: SliceViews,
    some: slice,
    amplitudes: Float32[Tensor, " n"],
    kernels: ModuleType,
) -> None:
    """Add one component of the slice profile to the sums of c G and, where peaks are not true, to those of G."""
    near = _near(geometry, some, views.cutoff)
    if len(near) == 0:
        return
    of_gaussians = {name: getattr(geometry, name)[near] for name in _OF_GAUSSIANS}
    of_slices = {name: getattr(geometry, name)[some] for name in _OF_SLICES}
    lists = gaussian_tiles(replace(geometry, **of_gaussians, **of_slices), views)
    part = torch.zeros_like(sums[0])
    kernels.predict(lists, amplitudes[near], part)
    sums[0] += part
    if not views.exact:
        kernels.predict(lists, torch.ones_like(amplitudes[near]), part)
        sums[1] += part


_OF_GAUSSIANS = ("means", "covariances", "log_determinants", "reach")
_OF_SLICES = ("to_slice", "in_plane", "offsets", "variances", "spacing", "shapes")


def _near(geometry: Geometry, some: slice, cutoff: float) -> Int64[Tensor, " k"]:
    """Gaussians that may reach one of some planes, which lie one behind the other."""
    first, last = geometry.to_slice[some][0], geometry.to_slice[some][-1]
    # a blurred Gaussian reaches no farther than both reaches together
    reach = geometry.reach + (geometry.offsets[0].abs() + cutoff * geometry.variances[0].sqrt()).amax()
    over_first, over_last = (geometry.means @ plane[2, :3] + plane[2, 3] for plane in (first, last))
    return ((over_first >= -reach) & (over_last <= reach)).nonzero()[:, 0]


def _views(planes: ParallelPlanes, component: int, cutoff: float, exact: bool) -> SliceViews:
    """All planes as slices, seen through one component of the slice profile."""
    n, rows, columns = planes.shape
    to_slice = np.tile(planes.to_planes.astype(np.float64), (n, 1, 1))
    to_slice[:, 2, 3] -= planes.spacing[0] * np.arange(n)
    shapes, spacing = np.tile([rows, columns], (n, 1)), np.tile(planes.spacing[1:], (n, 1))
    own = slice(component, component + 1)
    through = (np.tile(part[own], (n, 1)) for part in (planes.offsets, planes.variances))
    return SliceViews(
        to_slice=to_slice,
        pixel_spacing=spacing,
        centres=(shapes - 1) * spacing / 2,
        spread=PointSpread(np.zeros((n, 2)), planes.weights[own], *through),
        shapes=shapes,
        first_pixel=rows * columns * np.arange(n + 1),
        cutoff=cutoff,
        exact=exact,
    )


def _some_views(views: SliceViews, some: slice) -> SliceViews:
    return replace(
        views,
        to_slice=views.to_slice[some],
        pixel_spacing=views.pixel_spacing[some],
        centres=views.centres[some],
        spread=views.spread.subset(some),
        shapes=views.shapes[some],
        first_pixel=views.first_pixel[: some.stop - some.start + 1],
    )
