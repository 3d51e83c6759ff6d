"""The acquisition of free Gaussians, which can be differentiated by their geometry as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32

from gsvr.backends import Backend
from gsvr.backends.protocol import Array, GaussianKernel, GeometryGradient, Kernel
from gsvr.backends.views import nearest_radii, slice_views
from gsvr.backends.windows import CUTOFF
from gsvr.model.fields import GaussianField
from gsvr.model.point_spread import Profile
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator


class GaussianOperator(AcquisitionOperator):
    """A for free Gaussians; amplitudes are one a Gaussian.

    The normalised field of Dannecker et al. (MIDL 2026, eq. 5) is supported, too: without the factors a_ijm, and
    divided by delta + sum_j sum_m p_m exp(...).

    Parameters
    ----------
    gaussians
        Where the Gaussians stand; their amplitudes are not used.
    slices, poses, gains, profile, backend
        See `AcquisitionOperator`.
    cutoff
        Where Gaussians are cut off, in standard deviations, see `gsvr.backends.views`.
    squared_radii
        How far (mm^2) each pixel sees. Default: as the field's `nearest` asks, see `gsvr.backends.views.nearest_radii`.
        They belong to the pixels: not for `with_slices`.
    """

    def __init__(
        self,
        gaussians: GaussianField,
        slices: Slices,
        poses: Float[np.ndarray, "n 4 4"],
        gains: Float[np.ndarray, " n"] | None = None,
        profile: Profile = "slab",
        backend: Backend | str = "cpu",
        cutoff: float = CUTOFF,
        squared_radii: Float32[np.ndarray, " p"] | None = None,
    ) -> None:
        self._gaussians, self._cutoff, self._squared_radii = gaussians, cutoff, squared_radii
        super().__init__(slices, poses, gains, profile, backend)

    @property
    def primitives(self) -> GaussianField:
        """The Gaussians."""
        return self._gaussians

    def field(self, amplitudes: Array) -> GaussianField:
        """The field of these amplitudes, on the host."""
        return replace(self._gaussians, amplitudes=self.backend.host(amplitudes))

    def with_gaussians(
        self, gaussians: GaussianField, poses: Float[np.ndarray, "n 4 4"] | None = None
    ) -> GaussianOperator:
        """The same slices as other Gaussians are seen in them, at other poses if they are given."""
        poses = self.poses if poses is None else poses
        return GaussianOperator(
            gaussians, self.slices, poses, self.gains, self.profile, self.backend, self._cutoff, self._squared_radii
        )

    def geometry_gradient(self, amplitudes: Array, pixels: Array) -> GeometryGradient:
        """Gradient of sum_p r_p (A c)_p by means, covariances and poses."""
        residual = self._factors * pixels
        if self._density is None:
            return self._gaussian_kernel.gradient(amplitudes, residual)
        # d (N / D) = (dN - (N / D) dD) / D
        value = self._kernel.predict(amplitudes) / self._density
        return self._gaussian_kernel.gradient(amplitudes, residual, -value * residual)

    def _make_kernel(self) -> Kernel:
        gaussians, radii = self._gaussians, self._squared_radii
        if radii is None and gaussians.nearest is not None:
            radii = nearest_radii(gaussians.means, self.slices, self.poses, gaussians.nearest)
        exact = gaussians.normalisation is None
        views = slice_views(self.slices, self.poses, self.spread, self._cutoff, exact, radii)
        self._gaussian_kernel: GaussianKernel = self.backend.gaussian_kernel(gaussians, views)
        return self._gaussian_kernel

    def _density_of(self, kernel: Kernel) -> Array | None:
        delta = self._gaussians.normalisation
        if delta is None:
            return None
        return kernel.predict(self.backend.array(np.ones(self._gaussians.n_gaussians, np.float32))) + delta
