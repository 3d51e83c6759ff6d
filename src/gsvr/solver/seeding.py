"""Free Gaussians from a field on a lattice: many where the volume changes, long along edges and thin across them.

The density of Gaussians grows with the size of the gradient. Cells of a fine grid are chosen where the density exceeds
a threshold, another in each cell: an additive sequence of irrational steps (Roberts, 2018, "The unreasonable
effectiveness of quasirandom sequences") spreads the chosen cells as evenly as a lattice would, whatever the density.
Each Gaussian takes its shape from the structure tensor (the smoothed outer product of the gradient): a plane edge makes
it flat, a ridge or a vessel makes it long, a smooth region leaves it round. Its volume follows from the density alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from gsvr.compiled import run
from gsvr.compiled.threads import parallel_map
from gsvr.model.fields import GaussianField, LatticeField, lattice_values
from gsvr.model.geometry import quaternion_from_rotation

# The only real root of x^4 = x + 1: powers of its inverse are the steps that fill three dimensions most evenly.
_EVEN = 1.2207440846057596
# Gaussians that one thread takes at a time.
_CHUNK = 4096


@dataclass(frozen=True)
class SeedOptions:
    """How lattice sites become free Gaussians. Lengths are shares of the lattice's spacing.

    Attributes
    ----------
    contrast
        How many Gaussians: each lattice site counts as one where neighbouring sites differ by this many standard
        deviations of the noise, and as less in proportion where they differ less.
    most
        No more Gaussians than (about) this, if given; at least one.
    gradient_power, floor
        Density: (gradient / mean gradient)^gradient_power + floor.
    width
        Mean standard deviation (geometric) as a share of the local distance between Gaussians, density^(-1/3).
    stretch
        Ratio of standard deviations across and along a plane edge or a ridge: the largest, but for 4 % in between.
    smoothing
        Scale of the gradient and of the structure tensor.
    cell
        Grid that the places are drawn on.
    """

    contrast: float = 4.0
    most: int | None = None
    gradient_power: float = 0.7
    floor: float = 0.1
    width: float = 0.95
    stretch: float = 3.0
    smoothing: float = 0.5
    cell: float = 0.7

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise ValueError(f"at most {self.most} Gaussians: there must be one at least")

    @property
    def level(self) -> float:
        """Intensity of a field whose amplitudes are all one: density times the volume of a Gaussian."""
        return (2 * np.pi) ** 1.5 * self.width**3


def seed_from_lattice(field: LatticeField, noise: float, options: SeedOptions) -> GaussianField:
    """Free Gaussians that give about the same volume, and are to be fitted.

    Parameters
    ----------
    field
        A reconstruction on a lattice.
    noise
        Standard deviation of a pixel's noise, in the field's intensities.
    """
    lattice = field.lattice
    values = lattice_values(field, lattice.axes)
    gradient = parallel_map(
        lambda order: ndimage.gaussian_filter(values, options.smoothing, order=order),  # pyright: ignore[reportArgumentType]
        ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    )
    density = _density(gradient, noise, lattice.support, options)
    sites, density = _draw(density, lattice.support, options)
    nearest = tuple(np.clip(np.rint(sites).astype(int), 0, np.array(lattice.shape) - 1).T)
    log_scales, rotations = _shapes(_structure(gradient, nearest, options.smoothing), options.stretch)
    log_scales += np.log(options.width * lattice.spacing * density ** (-1 / 3))[:, None]
    amplitudes = ndimage.map_coordinates(values, sites.T, order=1, mode="nearest")
    return GaussianField(
        means=(sites * lattice.spacing + lattice.origin).astype(np.float32),
        log_scales=log_scales.astype(np.float32),
        quaternions=quaternion_from_rotation(rotations).astype(np.float32),
        amplitudes=(amplitudes / options.level).astype(np.float32),
    )


def _density(
    gradient: list[np.ndarray], noise: float, support: Bool[np.ndarray, "nx ny nz"], options: SeedOptions
) -> Float32[np.ndarray, "nx ny nz"]:
    """Gaussians a site, for every site of the support."""
    size = np.sqrt(gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2)
    count = np.minimum(size[support] / max(options.contrast * noise, 1e-12), 1).sum(dtype=np.float64)
    count = max(count, 0.1 * support.sum())  # a handful at least, so that even an empty field has some
    count = count if options.most is None else min(count, options.most)
    size = ndimage.gaussian_filter(size, 1.0)
    mean = max(float(size[support].mean()), 1e-12)
    density = ((size / mean) ** options.gradient_power + options.floor) * support
    return (density * count / density.sum(dtype=np.float64)).astype(np.float32)


def _draw(
    density: np.ndarray, support: np.ndarray, options: SeedOptions
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Places (in sites) and the density there (Gaussians a site); at most one in a cell of the finer grid."""
    nx, ny, nz = (int((count - 1) / options.cell) + 1 for count in density.shape)
    shape = (nx, ny, nz)
    step = np.full(3, options.cell)
    inside = ndimage.affine_transform(support.astype(np.uint8), step, output_shape=shape, order=0) > 0
    fine = ndimage.affine_transform(density, step, output_shape=shape, order=1) * inside
    wanted = float(density.sum(dtype=np.float64))
    for _ in range(10):  # what does not fit into full cells goes to the others
        fine = np.minimum(fine * np.float32(wanted / fine.sum()), np.float32(1))
    chosen = _thresholds(shape) < fine
    return np.argwhere(chosen) * options.cell, fine[chosen].astype(np.float64) / options.cell**3


def _thresholds(shape: tuple[int, int, int]) -> Float32[np.ndarray, "x y z"]:
    """Thresholds in [0, 1) that are spread evenly over the cells of any neighbourhood."""
    x, y, z = _even_steps(shape)
    return np.mod(x[:, None, None] + y[:, None] + z, 1.0).astype(np.float32)


def _even_steps(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """What each axis adds to the threshold of a cell, which is the part of the sum after the point."""
    return tuple(np.arange(count, dtype=np.float64) * _EVEN ** -(axis + 1.0) for axis, count in enumerate(shape))


def _structure(
    gradient: list[np.ndarray], sites: tuple[np.ndarray, ...], smoothing: float
) -> Float32[np.ndarray, "n 3 3"]:
    """Structure tensor at some sites."""
    pairs = [(a, b) for a in range(3) for b in range(a, 3)]
    entries = parallel_map(
        lambda ab: ndimage.gaussian_filter(gradient[ab[0]] * gradient[ab[1]], smoothing)[sites], pairs
    )
    tensor = np.empty((len(sites[0]), 3, 3), np.float32)
    for (a, b), entry in zip(pairs, entries, strict=True):
        tensor[:, a, b] = tensor[:, b, a] = entry
    return tensor


def _shapes(
    tensor: Float32[np.ndarray, "n 3 3"], stretch: float
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3 3"]]:
    """Log-scales that sum to zero, and axes, from structure tensors.

    An edge (one large eigenvalue) is thin across, by up to `stretch`; a ridge (two) is long along the third axis. Where
    there is less structure than usual, and what there is may be noise, a Gaussian is rounder.
    """
    eigenvalues, axes = np.empty((len(tensor), 3)), np.empty((len(tensor), 3, 3))
    run("find_eigenvectors", -(-len(tensor) // _CHUNK), _CHUNK, len(tensor), tensor, eigenvalues, axes)
    total = np.maximum(eigenvalues.sum(axis=1), 1e-20)
    trust = np.minimum(total / np.median(total), 1)
    flat = np.log1p((stretch - 1) * trust * np.clip((eigenvalues[:, 2] - eigenvalues[:, 1]) / total, 0, 1))
    long = np.log1p((stretch - 1) * trust * np.clip((eigenvalues[:, 1] - eigenvalues[:, 0]) / total, 0, 1))
    log_scales = np.stack([flat / 3 + 2 * long / 3, (flat - long) / 3, -(2 * flat + long) / 3], axis=1)
    third = np.cross(axes[:, :, 0], axes[:, :, 1])
    axes[np.einsum("ni,ni->n", third, axes[:, :, 2]) < 0, :, 0] *= -1  # right-handed
    return log_scales, axes
