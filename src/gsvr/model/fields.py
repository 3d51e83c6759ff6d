"""The volume as a field of 3-D Gaussians: V(x) = sum_j c_j exp(-1/2 (x - mu_j)^T Sigma_j^-1 (x - mu_j)).

Two forms of one thing. `GaussianField` holds free, anisotropic primitives, 11 numbers each (Dannecker et
al., MIDL 2026, eq. 1), summed or, as there, normalised. `LatticeField` holds equal isotropic primitives on a
regular lattice, one number each: what the amplitude solver works on, and several times cheaper. `SumField` adds fields
of both forms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from gsvr.compiled import run
from gsvr.model.geometry import (
    quaternion_from_rotation,
    quaternion_gradient,
    rotation_from_quaternion,
    transform_points,
)
from gsvr.model.morphology import closed, within
from gsvr.model.validation import LARGEST_AMPLITUDE, as_mask, as_numbers, as_positive, check_extent

# From a site of a lattice to half of its 26 neighbours; the other half are neighbours the other way round.
DIRECTIONS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)])

# Shares of a Gaussian's height too small for float32 sums; as denormal numbers they would be slow.
_NOTHING = 1e-30
# Standard deviation over distance on a lattice, and its inverse: beyond, all Gaussians would meet in every pixel, or
# none.
_LARGEST_OVERLAP = 10.0
# Limits of what a file may hold: standard deviations (and spacings) of 1 micrometre to 1 m, and lengths of quaternions.
_LARGEST_LOG_SCALE = float(np.log(1e3)) + 1e-6
_SHORTEST_QUATERNION = 1e-3
# Points that one thread takes at a time.
_CHUNK = 65536


@dataclass(frozen=True)
class GaussianField:
    """Free Gaussians in volume world (mm).

    Attributes
    ----------
    means
        Centres (mm).
    log_scales
        Natural logarithm of the standard deviation (mm) along the three principal axes.
    quaternions
        Rotation from principal axes to world, (w, x, y, z).
    amplitudes
        Height of each Gaussian, in units of intensity.
    normalisation
        None: V is the sum. A number delta > 0: V is the sum divided by delta plus the sum of the Gaussians themselves,
        an average of amplitudes (Dannecker et al., MIDL 2026, eq. 2).
    nearest
        None: every Gaussian counts everywhere. A number K: at each point only the K whose means are nearest, as there.
    """

    means: Float[np.ndarray, "n 3"]
    log_scales: Float[np.ndarray, "n 3"]
    quaternions: Float[np.ndarray, "n 4"]
    amplitudes: Float[np.ndarray, " n"]
    normalisation: float | None = None
    nearest: int | None = None

    def __post_init__(self) -> None:
        n = np.shape(self.means)[0] if np.ndim(self.means) else None
        for name, shape in (("means", (n, 3)), ("log_scales", (n, 3)), ("quaternions", (n, 4)), ("amplitudes", (n,))):
            object.__setattr__(self, name, as_numbers(f"{name} of a field", getattr(self, name), shape))
        if self.normalisation is not None:
            as_positive("the normalisation of a field", self.normalisation)
        if self.nearest is not None and not (isinstance(self.nearest, int | np.integer) and self.nearest >= 1):
            raise ValueError(f"the number of nearest Gaussians must be a whole number from 1 on, not {self.nearest}")

    def __repr__(self) -> str:
        kind = "summed" if self.normalisation is None else f"normalised by {self.normalisation:g}"
        nearest = "" if self.nearest is None else f", the {self.nearest} nearest"
        return f"GaussianField({self.n_gaussians:,} Gaussians, {kind}{nearest})"

    @property
    def n_gaussians(self) -> int:
        """Number of Gaussians."""
        return len(self.means)

    def to_gaussians(self) -> GaussianField:
        """The field itself."""
        return self

    def scaled(self, factor: float) -> GaussianField:
        """The field with all intensities times a factor."""
        return replace(self, amplitudes=self.amplitudes * np.float32(factor))

    def turned(self, pose: Float[np.ndarray, "4 4"]) -> GaussianField:
        """The field moved rigidly (mm): what was at x is at ``pose @ x``."""
        rotation = rotation_from_quaternion(self.quaternions.astype(np.float64))
        return replace(
            self,
            means=transform_points(pose, self.means.astype(np.float64)).astype(np.float32),
            quaternions=quaternion_from_rotation(pose[:3, :3] @ rotation).astype(np.float32),
        )

    def blurred(self, sigma: float) -> GaussianField:
        """The field as seen through an isotropic Gaussian of standard deviation `sigma` (mm).

        That is the convolution of a summed field; of a normalised one it is what eq. 5 of Dannecker et al. (MIDL 2026)
        puts in its place.
        """
        log_scales = 0.5 * np.log(np.exp(2 * self.log_scales.astype(np.float64)) + sigma**2)
        lower = np.exp((self.log_scales - log_scales).sum(axis=1)) if self.normalisation is None else 1.0
        return replace(
            self,
            log_scales=log_scales.astype(np.float32),
            amplitudes=(self.amplitudes * lower).astype(np.float32),
        )

    def subset(self, keep: np.ndarray) -> GaussianField:
        """The Gaussians listed in `keep` (indices, or a boolean each)."""
        return replace(
            self,
            means=self.means[keep],
            log_scales=self.log_scales[keep],
            quaternions=self.quaternions[keep],
            amplitudes=self.amplitudes[keep],
        )

    @property
    def covariances(self) -> Float[np.ndarray, "n 3 3"]:
        """Sigma_j = R(q_j) diag(exp(2 s_j)) R(q_j)^T in mm^2 (float64)."""
        rotation = rotation_from_quaternion(self.quaternions.astype(np.float64))
        variance = np.exp(2.0 * self.log_scales.astype(np.float64))
        return (rotation * variance[:, None]) @ np.swapaxes(rotation, 1, 2)

    def shape_gradient(
        self, covariance_gradient: Float[np.ndarray, "n 3 3"]
    ) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 4"]]:
        """Gradients by log-scales and quaternions from the (symmetric) gradient by the covariances."""
        rotation = rotation_from_quaternion(self.quaternions.astype(np.float64))
        variance = np.exp(2.0 * self.log_scales.astype(np.float64))
        turned = covariance_gradient @ rotation
        by_scale = 2.0 * variance * np.einsum("nij,nij->nj", rotation, turned)
        return by_scale, quaternion_gradient(self.quaternions.astype(np.float64), 2.0 * turned * variance[:, None])


@dataclass(frozen=True)
class Lattice:
    """Where equal isotropic Gaussians stand: a regular grid along the world's axes.

    Attributes
    ----------
    origin
        World position (mm) of site (0, 0, 0).
    spacing
        Distance between neighbouring sites (mm).
    sigma
        Standard deviation of every Gaussian (mm).
    support
        The sites that carry a Gaussian; the others have amplitude zero for good.
    """

    origin: Float[np.ndarray, " 3"]
    spacing: float
    sigma: float
    support: Bool[np.ndarray, "nx ny nz"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", as_numbers("the origin of a lattice", self.origin, (3,)))
        object.__setattr__(self, "support", as_mask("the support of a lattice", self.support, (None, None, None)))
        for name in ("spacing", "sigma"):
            object.__setattr__(self, name, as_positive(f"the {name} of a lattice (mm)", getattr(self, name)))

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        return f"Lattice({self.n_sites:,} of {shape} sites, {self.spacing:g} mm apart, sigma {self.sigma:g} mm)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of sites along each axis."""
        return self.support.shape  # pyright: ignore[reportReturnType]

    @property
    def n_sites(self) -> int:
        """Number of sites that carry a Gaussian."""
        return int(self.support.sum())

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Site index -> world (mm)."""
        affine = np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        affine[:3, 3] = self.origin
        return affine

    @property
    def row_ends(self) -> Int[np.ndarray, "nx ny 2"]:
        """First and last (excluded) site with a Gaussian of every row along z; zeros where there is none."""
        occupied, n_sites = self.support.any(axis=2), self.support.shape[2]
        ends = self.support.argmax(axis=2), n_sites - self.support[:, :, ::-1].argmax(axis=2)
        return np.stack([np.where(occupied, end, 0) for end in ends], axis=2)

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates (mm) of the sites on each axis of the world."""
        x, y, z = (first + self.spacing * np.arange(n) for first, n in zip(self.origin, self.shape, strict=True))
        return x, y, z


@dataclass(frozen=True)
class LatticeField:
    """Equal isotropic Gaussians on a lattice, one amplitude (intensity) each."""

    lattice: Lattice
    amplitudes: Float32[np.ndarray, "nx ny nz"]

    def __post_init__(self) -> None:
        amplitudes = as_numbers("amplitudes of a field", self.amplitudes, self.lattice.shape, np.float32)
        object.__setattr__(self, "amplitudes", amplitudes)

    def __repr__(self) -> str:
        return f"LatticeField({self.lattice!r})"

    @property
    def n_gaussians(self) -> int:
        """Number of Gaussians."""
        return self.lattice.n_sites

    def to_gaussians(self) -> GaussianField:
        """The same field as free Gaussians."""
        lattice = self.lattice
        index = np.argwhere(lattice.support)
        n = len(index)
        return GaussianField(
            means=(index * lattice.spacing + lattice.origin).astype(np.float32),
            log_scales=np.full((n, 3), np.log(lattice.sigma), dtype=np.float32),
            quaternions=np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
            amplitudes=self.amplitudes[lattice.support],
        )

    def scaled(self, factor: float) -> LatticeField:
        """The field with all intensities times a factor."""
        return replace(self, amplitudes=self.amplitudes * np.float32(factor))


@dataclass(frozen=True)
class SumField:
    """Fields that add up, as a lattice and free Gaussians do, each fitted to its share of the intensity.

    Raises
    ------
    ValueError
        If there is no part, or one is an average of nearest Gaussians, which cannot be added up.
    """

    parts: tuple[LatticeField | GaussianField, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a sum of fields needs at least one")
        for part in self.parts:
            if isinstance(part, GaussianField) and not (part.normalisation is None and part.nearest is None):
                raise ValueError("normalised fields, and those of nearest Gaussians, cannot be parts of a sum")

    def __repr__(self) -> str:
        return f"SumField({' + '.join(map(repr, self.parts))})"

    @property
    def n_gaussians(self) -> int:
        """Number of Gaussians."""
        return sum(part.n_gaussians for part in self.parts)

    @property
    def amplitudes(self) -> Float32[np.ndarray, " n"]:
        """Of all Gaussians, as in `to_gaussians`."""
        return np.concatenate(
            [
                part.amplitudes[part.lattice.support] if isinstance(part, LatticeField) else part.amplitudes
                for part in self.parts
            ]
        )

    def to_gaussians(self) -> GaussianField:
        """All Gaussians as one field."""
        parts = [part.to_gaussians() for part in self.parts]
        return GaussianField(
            means=np.concatenate([part.means for part in parts]),
            log_scales=np.concatenate([part.log_scales for part in parts]),
            quaternions=np.concatenate([part.quaternions for part in parts]),
            amplitudes=np.concatenate([part.amplitudes for part in parts]),
        )

    def scaled(self, factor: float) -> SumField:
        """The field with all intensities times a factor."""
        return SumField(tuple(part.scaled(factor) for part in self.parts))

    def turned(self, pose: Float[np.ndarray, "4 4"]) -> SumField:
        """The field moved rigidly, see `GaussianField.turned`; lattices become free Gaussians."""
        return SumField(tuple(part.to_gaussians().turned(pose) for part in self.parts))


Field = LatticeField | GaussianField | SumField


def parts_of(field: Field) -> tuple[LatticeField | GaussianField, ...]:
    """What adds up to a field; most have one part, themselves."""
    return field.parts if isinstance(field, SumField) else (field,)


def check_field(field: Field) -> None:
    """Refuse a field that is well-formed and yet shows nothing, or numbers that are not finite: a damaged file.

    Raises
    ------
    ValueError
        If there are no Gaussians, one has no orientation, or sizes, places or amplitudes are absurd.
    """
    if isinstance(field, SumField):
        for part in field.parts:
            check_field(part)
        return
    if field.n_gaussians == 0:
        raise ValueError("the field has no Gaussians")
    if not np.abs(field.amplitudes).max() <= LARGEST_AMPLITUDE:
        raise ValueError(f"amplitudes of the field exceed {LARGEST_AMPLITUDE:g}")
    if isinstance(field, LatticeField):
        lattice = field.lattice
        check_extent("the field", lattice.origin, [axis[-1] for axis in lattice.axes])
        log_scales = np.log([lattice.sigma, lattice.spacing])
    else:
        check_extent("the field", field.means)
        log_scales = field.log_scales
        lengths = np.linalg.norm(field.quaternions.astype(np.float64), axis=1)
        if not (lengths.min() > _SHORTEST_QUATERNION and lengths.max() < 1 / _SHORTEST_QUATERNION):
            raise ValueError("a quaternion of the field is zero or far from unit length")
    if not np.abs(log_scales).max() <= _LARGEST_LOG_SCALE:
        raise ValueError("Gaussians of the field are too small or too large to be seen")
    if isinstance(field, LatticeField):
        width = field.lattice.sigma / field.lattice.spacing
        if not 1 / _LARGEST_OVERLAP <= width <= _LARGEST_OVERLAP:
            raise ValueError("Gaussians of the lattice are far too narrow or too wide for its spacing")


def lattice_covering(
    points: Float[np.ndarray, "n 3"], spacing: float, sigma: float, margin: float, gap: float = 0.0
) -> Lattice:
    """Lattice whose sites lie within `margin` (mm) of some of the `points` (volume world, mm).

    Sites stand at multiples of `spacing`, so that two lattices of one spacing share their sites.

    Parameters
    ----------
    gap
        What lies farther from all points has sites, too, where it is enclosed so narrowly that no ball of this radius
        (mm) fits in.

    Raises
    ------
    ValueError
        If there is no point, or a length is not positive.
    """
    if len(points) == 0:
        raise ValueError("no points to cover with a lattice")
    if spacing <= 0 or sigma <= 0:
        raise ValueError("lattice spacing and sigma must be positive (mm)")
    # column by column: several times faster than along the first axis of all
    least, most = (np.array([getattr(column, end)() for column in points.T]) for end in ("min", "max"))
    check_extent("what a lattice is to cover", least, most)  # the kernel below does not look where it writes
    low = np.floor((least - margin) / spacing).astype(int)
    high = np.ceil((most + margin) / spacing).astype(int)
    occupied = np.zeros(high - low + 1, dtype=bool)
    points = np.ascontiguousarray(points, np.float64)
    n = len(points)
    run("mark_sites", -(-n // _CHUNK), _CHUNK, n, points, float(spacing), low, *occupied.shape[1:], occupied)
    support = within(occupied, margin, spacing)
    if gap > 0:
        support = closed(support, gap, spacing)
    return Lattice(low * float(spacing), float(spacing), float(sigma), support)


def lattice_values(
    field: LatticeField, axes: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> Float32[np.ndarray, "nx ny nz"]:
    """Value of the field on a grid along the world's axes, given by its coordinates (mm) on each axis.

    An isotropic Gaussian is a product of three 1-D Gaussians, so the sum over all sites is three
    matrix products. Nothing is cut off: terms below float32 vanish by themselves.
    """
    along_x, along_y, along_z = (axis_kernel(field.lattice, axis, coordinates) for axis, coordinates in enumerate(axes))
    values = np.asarray(field.amplitudes, dtype=np.float32)
    # in this order, and as products with whole matrices, no axis has to be moved in memory
    values = (along_x @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
    return np.matmul(along_y, values) @ along_z.T


def axis_kernel(lattice: Lattice, axis: int, coordinates: np.ndarray) -> Float32[np.ndarray, "points sites"]:
    """1-D Gaussians of the sites along one axis at coordinates (mm) on it."""
    sites = lattice.origin[axis] + lattice.spacing * np.arange(lattice.shape[axis])
    kernel = np.exp(-0.5 * ((np.asarray(coordinates)[:, None] - sites) / lattice.sigma) ** 2)
    kernel[kernel < _NOTHING] = 0
    return kernel.astype(np.float32)
