"""The acquisition of a field on a lattice."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Float

from gsvr.backends import Backend
from gsvr.backends.protocol import Array, GaussianKernel, Kernel
from gsvr.backends.views import slice_views
from gsvr.backends.windows import CUTOFF, slice_windows
from gsvr.model.fields import Lattice, LatticeField
from gsvr.model.point_spread import Profile
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator

logger = logging.getLogger(__name__)


class LatticeOperator(AcquisitionOperator):
    """A for equal isotropic Gaussians on a lattice; amplitudes have its shape.

    Where the point spread function is separable in the slice frame, so is every blurred Gaussian, and kernels of their
    own run; otherwise those of free Gaussians, twice as slow.

    Parameters
    ----------
    lattice
        Where the Gaussians stand.
    slices, poses, gains, profile, backend
        See `AcquisitionOperator`.
    cutoff
        Where Gaussians are cut off, in standard deviations, see `gsvr.backends.windows`.
    """

    def __init__(
        self,
        lattice: Lattice,
        slices: Slices,
        poses: Float[np.ndarray, "n 4 4"],
        gains: Float[np.ndarray, " n"] | None = None,
        profile: Profile = "slab",
        backend: Backend | str = "cpu",
        cutoff: float = CUTOFF,
    ) -> None:
        self.lattice, self._cutoff = lattice, cutoff
        super().__init__(slices, poses, gains, profile, backend)

    @property
    def primitives(self) -> Lattice:
        """The lattice."""
        return self.lattice

    def field(self, amplitudes: Array) -> LatticeField:
        """The field of these amplitudes, on the host."""
        return LatticeField(self.lattice, self.backend.host(amplitudes))

    def _make_kernel(self) -> Kernel:
        if self.spread.is_separable:
            windows = slice_windows(self.lattice, self.slices, self.poses, self.spread, self._cutoff)
            return self.backend.lattice_kernel(self.lattice, windows)
        logger.info("the point spread function is not separable: using the kernels of free Gaussians")
        gaussians = LatticeField(self.lattice, np.zeros(self.lattice.shape, np.float32)).to_gaussians()
        views = slice_views(self.slices, self.poses, self.spread, self._cutoff)
        return _SiteKernel(self.lattice, self.backend, self.backend.gaussian_kernel(gaussians, views))


class _SiteKernel:
    """A kernel of free Gaussians that stand on the sites of a lattice."""

    def __init__(self, lattice: Lattice, backend: Backend, kernel: GaussianKernel) -> None:
        self._shape, self._backend, self._kernel = lattice.shape, backend, kernel
        self._sites = np.flatnonzero(lattice.support)

    def _of_sites(self, grid: Array) -> Array:
        return grid.reshape(-1)[self._sites]

    def _on_grid(self, values: Array) -> Array:
        grid = self._backend.array(np.zeros(int(np.prod(self._shape)), np.float32))
        grid[self._sites] = values
        return grid.reshape(self._shape)

    def predict(self, amplitudes: Array) -> Array:
        """Pixels A c."""
        return self._kernel.predict(self._of_sites(amplitudes))

    def derivatives(self, amplitudes: Array) -> Array:
        """See `gsvr.backends.protocol.Kernel`."""
        return self._kernel.derivatives(self._of_sites(amplitudes))

    def adjoint(self, pixels: Array) -> Array:
        """A^T r."""
        return self._on_grid(self._kernel.adjoint(pixels))

    def squared_adjoint(self, pixels: Array) -> Array:
        """(A * A)^T r."""
        return self._on_grid(self._kernel.squared_adjoint(pixels))
