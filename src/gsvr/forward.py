"""The acquisition operator: field -> recorded pixels, its adjoint, and its derivatives by pose.

For a Gaussian field, a Gaussian (mixture) point spread function and rigid poses, the recorded pixel is

    y_i(u) = g_i sum_j c_j sum_m p_m a_ijm exp(-1/2 d^T (Sigma_j + P_im)^-1 d),    d = T_i(u) + b_m n_i - mu_j,
    a_ijm  = sqrt(det Sigma_j / det(Sigma_j + P_im)),

which is the convolution of the field with the point spread function, without approximation (the factor
a_ijm is missing in Dannecker et al., MIDL 2026, eq. 5, which renormalises instead). The normalised field of that paper
is supported too: without a_ijm, and divided by delta + sum_j sum_m p_m exp(...). Backends differ in how they evaluate
the sum; they share this definition, the cut-offs of `kernels.culling` and `kernels.gaussian_views`, and the tests.
"""

from __future__ import annotations

from copy import copy

import numpy as np
from jaxtyping import Float, Float32

from gsvr.acquisition import Slices
from gsvr.field import GaussianField, Lattice
from gsvr.geometry import invert, pose_about, transform_points
from gsvr.kernels import (
    GaussianKernel,
    GeometryGradient,
    Kernel,
    backend_with_free_gaussians,
    gaussian_kernel,
    lattice_kernel,
)
from gsvr.kernels.culling import CUTOFF, SliceWindows, slice_windows
from gsvr.kernels.gaussian_views import nearest_radii, slice_views
from gsvr.psf import ProfileName, point_spread


class AcquisitionOperator:
    """A for some Gaussians, one set of slices with poses, and one slice profile.

    Parameters
    ----------
    primitives
        Where the Gaussians stand: a lattice, or free Gaussians (whose amplitudes are not used). Amplitudes have the
        lattice's shape or are one a Gaussian.
    slices
        Geometry of the pixels (their values are not used).
    poses
        Acquired world -> volume world, one a slice.
    gains
        Factor g_i of each slice.
    profile
        Slice profile, see `gsvr.psf.PROFILES`.
    backend
        Which kernels run, and where, see `gsvr.kernels.BACKENDS`.
    cutoff
        Where Gaussians are cut off, in standard deviations, see `gsvr.kernels.culling`.
    squared_radii
        Free Gaussians only: how far (mm^2) each pixel sees. Default: as the field's `nearest` asks, see
        `gsvr.kernels.gaussian_views.nearest_radii`.
    """

    def __init__(
        self,
        primitives: Lattice | GaussianField,
        slices: Slices,
        poses: Float[np.ndarray, "n 4 4"],
        gains: Float[np.ndarray, " n"] | None = None,
        profile: ProfileName = "slab",
        backend: str = "cpu",
        cutoff: float = CUTOFF,
        squared_radii: Float32[np.ndarray, " p"] | None = None,
    ) -> None:
        self.primitives = primitives
        self.slices = slices
        self.poses = poses
        self._settings = (profile, backend, cutoff, squared_radii)
        spread = point_spread(slices.spacings, slices.thicknesses, profile, slices.binning)
        self._kernel: Kernel
        self.windows: SliceWindows | None = None
        if isinstance(primitives, Lattice):
            if squared_radii is not None:
                raise ValueError("nearest neighbours are for free Gaussians: a lattice has its cut-off")
            self.windows = slice_windows(primitives, slices, poses, spread, cutoff)
            self._kernel = lattice_kernel(backend, primitives, self.windows)
        else:
            exact = primitives.normalisation is None
            if squared_radii is None and primitives.nearest is not None:
                squared_radii = nearest_radii(primitives.means, slices, poses, primitives.nearest)
            views = slice_views(slices, poses, spread, cutoff, exact, squared_radii)
            self._kernel = gaussian_kernel(backend_with_free_gaussians(backend), primitives, views)
        self.gains = np.ones(slices.n_slices) if gains is None else gains
        self._pixel_gains = slices.per_pixel(self.gains.astype(np.float32))
        self._density = _density(primitives, self._kernel)

    @property
    def lattice(self) -> Lattice:
        """The lattice, where the Gaussians stand on one."""
        assert isinstance(self.primitives, Lattice)
        return self.primitives

    @property
    def _factors(self) -> Float32[np.ndarray, " p"]:
        """What the kernel's pixels are multiplied by: gains, and for a normalised field 1 / (density + delta)."""
        return self._pixel_gains if self._density is None else self._pixel_gains / self._density

    def with_poses(self, poses: Float[np.ndarray, "n 4 4"]) -> AcquisitionOperator:
        """The same operator at other poses."""
        return AcquisitionOperator(self.primitives, self.slices, poses, self.gains, *self._settings)

    def with_slices(self, slices: Slices) -> AcquisitionOperator:
        """The same operator for other pixels of the same slices, such as those before they were averaged.

        Not for operators with `squared_radii`, which belong to the pixels.
        """
        return AcquisitionOperator(self.primitives, slices, self.poses, self.gains, *self._settings)

    def with_gains(self, gains: Float[np.ndarray, " n"]) -> AcquisitionOperator:
        """The same operator with other gains; whatever the kernel has prepared for these poses is kept."""
        other = copy(self)
        other.gains = gains
        other._pixel_gains = self.slices.per_pixel(gains.astype(np.float32))
        return other

    def without_gains(self, prediction: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " p"]:
        """Predicted pixels as they would be with all gains one."""
        return prediction / self._pixel_gains

    def predict(self, amplitudes: Float32[np.ndarray, "*sites"]) -> Float32[np.ndarray, " p"]:
        """Every pixel of every slice for these amplitudes, A c."""
        return self._factors * self._kernel.predict(amplitudes)

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "*sites"]:
        """A^T r."""
        return self._kernel.adjoint(self._factors * pixels)

    def diagonal(self, weights: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "*sites"]:
        """Diagonal of A^T diag(weights) A."""
        return self._kernel.squared_adjoint(self._factors**2 * weights)

    def derivative_planes(self, amplitudes: Float32[np.ndarray, "*sites"]) -> Float32[np.ndarray, "7 p"]:
        """Sums that all derivatives by pose are made of, without gains (see `gsvr.kernels.Kernel.derivatives`)."""
        planes = self._kernel.derivatives(amplitudes)
        if self._density is None:
            return planes
        return _quotient_derivatives(planes, self._kernel.derivatives(np.ones_like(amplitudes)), self._density)

    def pose_derivatives(
        self, amplitudes: Float32[np.ndarray, "*sites"]
    ) -> tuple[Float32[np.ndarray, " p"], Float32[np.ndarray, "6 p"]]:
        """Predicted pixels and their exact derivative by each slice's pose.

        The six parameters are a rotation vector (rad) about the slice's centre and a translation (mm), both
        in the slice frame, applied before the pose (see `moved_poses`). The point spread function turns with the slice.
        With d = pixel - Gaussian and g the derivative by d, a rotation w changes d by w x (mu - centre), so the
        derivative by w is (pixel - centre) x g - d x g, summed over Gaussians; the kernels return both sums.
        """
        planes = self.derivative_planes(amplitudes)
        slices = self.slices
        gradient, torque = planes[1:4], planes[4:7]
        u, v = _centred_pixels(slices)
        jacobian = np.empty((6, planes.shape[1]), np.float32)
        jacobian[0] = v * gradient[2] - torque[0]
        jacobian[1] = -u * gradient[2] - torque[1]
        jacobian[2] = u * gradient[1] - v * gradient[0] - torque[2]
        jacobian[3:] = gradient
        return self._pixel_gains * planes[0], self._pixel_gains * jacobian

    def geometry_gradient(
        self, amplitudes: Float32[np.ndarray, " n"], pixels: Float32[np.ndarray, " p"]
    ) -> GeometryGradient:
        """Gradient of sum_p r_p (A c)_p by means, covariances and poses of free Gaussians.

        Raises
        ------
        TypeError
            If the Gaussians stand on a lattice.
        """
        if not isinstance(self._kernel, GaussianKernel):
            raise TypeError("only free Gaussians have a geometry to differentiate by")
        residual = self._factors * pixels
        if self._density is None:
            return self._kernel.gradient(amplitudes, residual)
        # d (N / D) = (dN - (N / D) dD) / D
        value = self._kernel.predict(amplitudes) / self._density
        return self._kernel.gradient(amplitudes, residual, -value * residual)


def _density(primitives: Lattice | GaussianField, kernel: Kernel) -> np.ndarray | None:
    """Sum of delta and all Gaussians at every pixel, for a normalised field."""
    if isinstance(primitives, Lattice) or primitives.normalisation is None:
        return None
    return kernel.predict(np.ones(len(primitives.means), np.float32)) + np.float32(primitives.normalisation)


def _quotient_derivatives(numerator: np.ndarray, denominator: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Derivative planes of N / D from those of both: all but the first are derivatives."""
    planes = numerator / density
    planes[1:] -= planes[0] * denominator[1:] / density
    return planes


def moved_poses(
    slices: Slices, poses: Float[np.ndarray, "n 4 4"], steps: Float[np.ndarray, "n 6"]
) -> Float[np.ndarray, "n 4 4"]:
    """Apply pose steps (rotation vector in rad, translation in mm, slice frame, about the slice's centre)."""
    local_centres = transform_points(invert(slices.frames), slices.centres)
    step = pose_about(steps[:, :3], steps[:, 3:], local_centres)
    return poses @ slices.frames @ step @ invert(slices.frames)


def _centred_pixels(slices: Slices) -> tuple[np.ndarray, np.ndarray]:
    """Position (mm) of every pixel along u and v, from its slice's centre."""
    u_parts, v_parts = [], []
    for (n_u, n_v), (spacing_u, spacing_v) in zip(slices.shapes, slices.pixel_spacings, strict=True):
        u = (np.arange(n_u, dtype=np.float32) - (n_u - 1) / 2) * np.float32(spacing_u)
        v = (np.arange(n_v, dtype=np.float32) - (n_v - 1) / 2) * np.float32(spacing_v)
        u_parts.append(np.repeat(u, n_v))
        v_parts.append(np.tile(v, n_u))
    return np.concatenate(u_parts), np.concatenate(v_parts)
