"""Free Gaussians from a field on a lattice, on a device: the definition is that of `gsvr.solver.seeding`.

Seeds are those of the host but for rounding: where a density lies within rounding of its threshold a cell is chosen on
one side only.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from gsvr.backends.torch.lattice_tiles import exact_type
from gsvr.backends.torch.rendering import lattice_values
from gsvr.device_solver.device_field import DeviceField
from gsvr.device_solver.device_lattice import site_axes
from gsvr.device_solver.gaussian_filter import gaussian_filter
from gsvr.device_solver.order_statistics import median
from gsvr.device_solver.rigid import quaternion_from_rotation
from gsvr.device_solver.symmetric_matrices import symmetric_eigen
from gsvr.model.fields import Lattice
from gsvr.solver.seeding import SeedOptions, even_steps

_ORDERS = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


def seed_from_lattice(
    amplitudes: Float32[Tensor, "nx ny nz"], lattice: Lattice, noise: float, options: SeedOptions
) -> DeviceField:
    """Free Gaussians that give about the same volume as a field on a lattice, and are to be fitted.

    Parameters
    ----------
    amplitudes, lattice
        The field. Seeds are made where its amplitudes are.
    noise
        Standard deviation of a pixel's noise, in the field's intensities.
    """
    device, exact = amplitudes.device, exact_type(amplitudes.device)
    support = torch.as_tensor(lattice.support).to(device)
    values = lattice_values(amplitudes, lattice, site_axes(lattice))
    gradient = [gaussian_filter(values, options.smoothing, orders) for orders in _ORDERS]
    sites, density = _draw(_density(gradient, noise, support, options), support, options)
    log_scales, rotations = _shapes(_structure(gradient, sites, options.smoothing).to(exact), options.stretch)
    log_scales = log_scales + torch.log(options.width * lattice.spacing * density ** (-1 / 3))[:, None]
    origin = torch.as_tensor(lattice.origin).to(exact).to(device)
    return DeviceField(
        means=(sites * lattice.spacing + origin).float(),
        log_scales=log_scales.float(),
        quaternions=quaternion_from_rotation(rotations).float(),
        amplitudes=(_interpolated(values, sites) / options.level).float(),
    )


def _density(
    gradient: list[Tensor], noise: float, support: Bool[Tensor, "nx ny nz"], options: SeedOptions
) -> Float32[Tensor, "nx ny nz"]:
    """Gaussians a site, for every site of the support."""
    exact, n_sites = exact_type(support.device), support.sum()
    size = torch.sqrt(gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2)
    count = ((size / max(options.contrast * noise, 1e-12)).clamp(max=1) * support).sum(dtype=exact)
    size = gaussian_filter(size, 1.0)
    mean = ((size * support).sum(dtype=exact) / n_sites).clamp(min=1e-12).float()
    density = ((size / mean) ** options.gradient_power + options.floor) * support
    count = torch.maximum(count, 0.1 * n_sites)
    count = count if options.most is None else count.clamp(max=options.most)
    return density * (count / density.sum(dtype=exact)).float()


def _draw(
    density: Float32[Tensor, "nx ny nz"], support: Bool[Tensor, "nx ny nz"], options: SeedOptions
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Places (in sites) and the density there (Gaussians a site); at most one in a cell of the finer grid.

    Asks the device how many there are.
    """
    exact, wanted = exact_type(density.device), density.sum(dtype=torch.float32)
    inside, fine = support, density
    for axis, count in enumerate(density.shape):
        cells = np.arange(int((count - 1) / options.cell) + 1) * options.cell
        cells = cells[cells <= count - 1]  # rounding may leave the last one outside, where there is nothing
        inside = inside.index_select(axis, _moved(np.floor(cells + 0.5), torch.int64, density))
        fine = _interpolated_along(fine, axis, cells)
    fine = fine * inside
    for _ in range(10):  # what does not fit into full cells goes to the others
        fine = (fine * (wanted / fine.sum(dtype=exact)).float()).clamp(max=1)
    chosen = (_thresholds(fine) < fine).nonzero()
    return chosen.to(exact) * options.cell, fine[chosen.unbind(1)].to(exact) / options.cell**3


def _moved(values: np.ndarray, dtype: torch.dtype, like: Tensor) -> Tensor:
    return torch.as_tensor(values).to(dtype).to(like.device)


def _interpolated_along(
    values: Float32[Tensor, "x y z"], axis: int, places: Float[np.ndarray, " m"]
) -> Float32[Tensor, ...]:
    """Linear interpolation along one axis, at places (in sites) on the grid."""
    below = np.floor(places)
    above = np.minimum(below + 1, values.shape[axis] - 1)
    shape = [-1 if other == axis else 1 for other in range(3)]
    share = _moved(places - below, torch.float32, values).view(shape)
    low = values.index_select(axis, _moved(below, torch.int64, values))
    return torch.lerp(low, values.index_select(axis, _moved(above, torch.int64, values)), share)


def _thresholds(fine: Float32[Tensor, "x y z"]) -> Float32[Tensor, "x y z"]:
    """Thresholds in [0, 1) that are spread evenly over the cells of any neighbourhood."""
    x, y, z = (_moved(steps, exact_type(fine.device), fine) for steps in even_steps(tuple(fine.shape)))
    return (x[:, None, None] + y[:, None] + z).remainder(1.0).float()


def _structure(gradient: list[Tensor], sites: Float[Tensor, "n 3"], smoothing: float) -> Float32[Tensor, "n 3 3"]:
    """Structure tensor at the sites nearest to some places."""
    shape, nearest = gradient[0].shape, sites.round().long()
    nearest = tuple(nearest[:, axis].clamp(0, count - 1) for axis, count in enumerate(shape))
    entries = {
        (a, b): gaussian_filter(gradient[a] * gradient[b], smoothing)[nearest] for a in range(3) for b in range(a, 3)
    }
    return torch.stack([entries[min(a, b), max(a, b)] for a in range(3) for b in range(3)], 1).view(-1, 3, 3)


def _shapes(tensor: Float[Tensor, "n 3 3"], stretch: float) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3 3"]]:
    """Log-scales that sum to zero, and axes, from structure tensors; see `gsvr.solver.seeding`."""
    eigenvalues, axes = symmetric_eigen(tensor)
    total = eigenvalues.sum(1).clamp(min=1e-20)
    trust = (total / median(total)).clamp(max=1)
    flat, long = (
        torch.log1p((stretch - 1) * trust * ((eigenvalues[:, k] - eigenvalues[:, k - 1]) / total).clamp(0, 1))
        for k in (2, 1)
    )
    log_scales = torch.stack([flat / 3 + 2 * long / 3, (flat - long) / 3, -(2 * flat + long) / 3], 1)
    handed = torch.linalg.cross(axes[:, :, 1], axes[:, :, 2])  # either the first axis or its opposite
    return log_scales, torch.cat([handed[:, :, None], axes[:, :, 1:]], 2)


def _interpolated(values: Float32[Tensor, "nx ny nz"], sites: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Linear interpolation at places on the grid."""
    below = sites.floor()
    share = sites - below
    ends: list[tuple[Int[Tensor, " n"], Int[Tensor, " n"]]] = []
    for axis, count in enumerate(values.shape):
        low = below[:, axis].long()
        ends.append((low, (low + 1).clamp(max=count - 1)))
    total = torch.zeros_like(sites[:, 0])
    for corner in np.ndindex(2, 2, 2):
        weight = torch.stack([share[:, k] if up else 1 - share[:, k] for k, up in enumerate(corner)]).prod(0)
        total += weight * values[tuple(ends[k][up] for k, up in enumerate(corner))]
    return total
