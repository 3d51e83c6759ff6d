"""What the solver asks of a backend: kernels, sums over slices, and quadratic forms over neighbours.

An *array of the backend* is a NumPy array on the CPU and a tensor on a device. It is float32 and holds one number a
pixel, or one a Gaussian; everything smaller (poses, gains, sums over a slice) is a NumPy array for every backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from gsvr.backends.planes import ParallelPlanes
from gsvr.backends.views import SliceViews
from gsvr.backends.windows import SliceWindows
from gsvr.model.fields import GaussianField, Lattice, LatticeField
from gsvr.model.neighbours import Neighbours
from gsvr.model.slices import Slices

# an array of the backend
Array: TypeAlias = Any


@runtime_checkable
class Kernel(Protocol):
    """The acquisition of some Gaussians by some slices, without gains.

    Amplitudes, and all that is one number a Gaussian, have the lattice's shape or are flat for free Gaussians.
    """

    def predict(self, amplitudes: Array) -> Array:
        """Pixels A c."""
        ...

    def derivatives(self, amplitudes: Array) -> Array:
        """Pixel, its derivative by d = pixel - Gaussian (3), and the torques (3), in the slice frame: seven rows.

        Derivatives are per mm. A slice that turns about a point sees the derivative
        (pixel - point) x (derivative by d) - torque.

        Raises
        ------
        ValueError
            Where only the nearest Gaussians count (`SliceViews.squared_radii`).
        """
        ...

    def adjoint(self, pixels: Array) -> Array:
        """A^T r."""
        ...

    def squared_adjoint(self, pixels: Array) -> Array:
        """(A * A)^T r: with pixel weights for r, the diagonal of A^T W A."""
        ...


@dataclass(frozen=True)
class GeometryGradient:
    """Gradient of sum_p r_p (A c)_p by the geometry of free Gaussians and by the poses of the slices.

    Attributes
    ----------
    means
        By mu_j (per mm).
    covariances
        By Sigma_j (per mm^2): symmetric, such that a change D of Sigma_j changes the sum by the trace of gradient x D.
    poses
        By each slice's pose: rotation vector about its centre (per rad) and translation (per mm), in its frame, as in
        `gsvr.operators.acquisition.moved_poses`.
    """

    means: Float[np.ndarray, "n 3"]
    covariances: Float[np.ndarray, "n 3 3"]
    poses: Float[np.ndarray, "slices 6"]


@runtime_checkable
class GaussianKernel(Kernel, Protocol):
    """A kernel of free Gaussians can be differentiated by their geometry."""

    def gradient(self, amplitudes: Array, pixels: Array, density_pixels: Array | None = None) -> GeometryGradient:
        """Gradient of <r, A c> by geometry and poses, and of <t, A 1> on top if `density_pixels` t are given."""
        ...


def pose_columns(planes: Array, u: Array, v: Array) -> list[Array]:
    """Derivatives of pixels by the six parameters of `gsvr.operators.acquisition.moved_poses`.

    The point spread function turns with the slice. With d = pixel - Gaussian and g the derivative by d, a rotation w
    changes d by w x (mu - centre), so the derivative by w is (pixel - centre) x g - d x g, summed over Gaussians.

    Parameters
    ----------
    planes
        Of `Kernel.derivatives`.
    u, v
        Position of the pixels from their slice's centre (mm).
    """
    _, by_u, by_v, by_w, about_u, about_v, about_w = planes
    return [v * by_w - about_u, -u * by_w - about_v, u * by_v - v * by_u - about_w, by_u, by_v, by_w]


@runtime_checkable
class Pixels(Protocol):
    """The pixels of some slices on a backend.

    Attributes
    ----------
    values
        As recorded.
    coverage
        Share of each pixel that lies inside the mask; zero for pixels that take no part.
    """

    values: Array
    coverage: Array

    def per_pixel(self, per_slice: Float[np.ndarray, " n"]) -> Array:
        """Repeat one number a slice for all of its pixels."""
        ...

    def sum_per_slice(self, flat: Array) -> Float[np.ndarray, " n"]:
        """Sum over the pixels of each slice."""
        ...

    def pose_equations(
        self, planes: Array, gains: Float[np.ndarray, " n"], values: Array, weights: Array
    ) -> tuple[Float[np.ndarray, "n 6 6"], Float[np.ndarray, "n 6"]]:
        """J^T W J and J^T W r of the pose of every slice, with r = `values` - prediction; rotations in rad.

        Parameters
        ----------
        planes
            Of `Kernel.derivatives`.
        gains
            Factor of each slice on the pixels of the kernel.
        """
        ...


@runtime_checkable
class LatticeBonds(Protocol):
    """A weighted graph Laplacian L over neighbouring sites of a lattice, 13 directions."""

    def apply(self, values: Array, factor: float = 1.0, start: Array | None = None) -> Array:
        """`factor` L c, added to `start` if that is given."""
        ...

    def diagonal(self) -> Array:
        """Diagonal of L: the sum of the bonds of each site."""
        ...

    def weights(self) -> Float32[np.ndarray, "13 nx ny nz"]:
        """Weight of every bond, at the site where it starts."""
        ...


@runtime_checkable
class NeighbourLinks(Protocol):
    """A weighted graph Laplacian L over neighbouring free Gaussians."""

    def apply(self, values: Array, factor: float = 1.0, start: Array | None = None) -> Array:
        """`factor` L c, added to `start` if that is given."""
        ...

    def diagonal(self) -> Array:
        """Diagonal of L."""
        ...

    def weights(self) -> Float32[np.ndarray, " pairs"]:
        """Weight of every pair of neighbours."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Where arrays live and which kernels run.

    Attributes
    ----------
    name
        As `gsvr.backends.named` takes it.
    """

    name: str

    def array(self, values: np.ndarray) -> Array:
        """A NumPy array as a float32 array of the backend."""
        ...

    def host(self, values: Array) -> np.ndarray:
        """An array of the backend as a NumPy array."""
        ...

    def pixels(self, slices: Slices) -> Pixels:
        """The pixels of some slices."""
        ...

    def lattice_kernel(self, lattice: Lattice, windows: SliceWindows) -> Kernel:
        """The acquisition of a lattice."""
        ...

    def gaussian_kernel(self, field: GaussianField, views: SliceViews) -> GaussianKernel:
        """The acquisition of free Gaussians, whose amplitudes are not used."""
        ...

    def lattice_bonds(self, lattice: Lattice, amplitudes: Array, edge: float) -> LatticeBonds:
        """Bonds 1 / (edge^2 length^2 sqrt(1 + (difference / edge)^2)) between sites that carry a Gaussian.

        The squared lengths are scaled so that all directions together are as strong as the three axes alone.
        """
        ...

    def neighbour_links(self, neighbours: Neighbours, amplitudes: Array, scale: float) -> NeighbourLinks:
        """Links w scale^2 / sqrt(1 + (scale x difference)^2), w the weights of the neighbours."""
        ...

    def normalised_laplacian(self, neighbours: Neighbours) -> NeighbourLinks:
        """1 - D^-1/2 B D^-1/2, with B one for every pair and D the number of neighbours of each Gaussian."""
        ...

    def step(self, size: float, direction: Array, curved: Array, amplitudes: Array, gradient: Array) -> None:
        """One step of conjugate gradients, in place: amplitudes + size direction, gradient - size curved."""
        ...

    def sample_planes(
        self, field: GaussianField, planes: ParallelPlanes, cutoff: float
    ) -> Float32[np.ndarray, "planes rows columns"]:
        """Free Gaussians at the points of parallel planes.

        A term is left out only where it is below exp(-cutoff^2 / 2) of its peak. Not for fields of nearest neighbours.
        """
        ...

    def sample_lattice(
        self, field: LatticeField, axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> Float32[np.ndarray, "nx ny nz"]:
        """A field on a lattice at the points of a grid along the world's axes, given by its coordinates (mm)."""
        ...
