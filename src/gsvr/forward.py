"""The acquisition operator: field -> recorded pixels, its adjoint, and its derivatives by pose.

For a Gaussian field, a Gaussian (mixture) point spread function and rigid poses, the recorded pixel is

    y_i(u) = g_i sum_j c_j sum_m p_m a_ijm exp(-1/2 d^T (Sigma_j + P_im)^-1 d),    d = T_i(u) + b_m n_i - mu_j,
    a_ijm  = sqrt(det Sigma_j / det(Sigma_j + P_im)),

which is the convolution of the field with the point spread function, without approximation (the factor
a_ijm is missing in Dannecker et al., MIDL 2026, eq. 5, which renormalises instead). Backends differ in how they
evaluate the sum; they share this definition, the windows of `kernels.culling` and the tests.
"""

from __future__ import annotations

from copy import copy

import numpy as np
from jaxtyping import Float, Float32

from gsvr.acquisition import Slices
from gsvr.field import Lattice
from gsvr.geometry import invert, pose_about, transform_points
from gsvr.kernels import LatticeKernel, lattice_kernel
from gsvr.kernels.culling import CUTOFF, slice_windows
from gsvr.psf import ProfileName, point_spread


class AcquisitionOperator:
    """A for one lattice, one set of slices with poses, and one slice profile.

    Parameters
    ----------
    lattice
        Where the Gaussians stand.
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
    """

    def __init__(
        self,
        lattice: Lattice,
        slices: Slices,
        poses: Float[np.ndarray, "n 4 4"],
        gains: Float[np.ndarray, " n"] | None = None,
        profile: ProfileName = "slab",
        backend: str = "cpu",
        cutoff: float = CUTOFF,
    ) -> None:
        self.lattice = lattice
        self.slices = slices
        self.poses = poses
        self._settings = (profile, backend, cutoff)
        spread = point_spread(slices.spacings, slices.thicknesses, profile, slices.binning)
        self.windows = slice_windows(lattice, slices, poses, spread, cutoff)
        self._kernel: LatticeKernel = lattice_kernel(backend, lattice, self.windows)
        gains = np.ones(slices.n_slices) if gains is None else gains
        self.gains = gains
        self._pixel_gains = slices.per_pixel(gains.astype(np.float32))

    def with_poses(self, poses: Float[np.ndarray, "n 4 4"]) -> AcquisitionOperator:
        """The same operator at other poses."""
        return AcquisitionOperator(self.lattice, self.slices, poses, self.gains, *self._settings)

    def with_gains(self, gains: Float[np.ndarray, " n"]) -> AcquisitionOperator:
        """The same operator with other gains; whatever the kernel has prepared for these poses is kept."""
        other = copy(self)
        other.gains = gains
        other._pixel_gains = self.slices.per_pixel(gains.astype(np.float32))
        return other

    def without_gains(self, prediction: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " p"]:
        """Predicted pixels as they would be with all gains one."""
        return prediction / self._pixel_gains

    def predict(self, amplitudes: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, " p"]:
        """Every pixel of every slice for these amplitudes, A c."""
        return self._pixel_gains * self._kernel.predict(amplitudes)

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        """A^T r."""
        return self._kernel.adjoint(self._pixel_gains * pixels)

    def diagonal(self, weights: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        """Diagonal of A^T diag(weights) A."""
        return self._kernel.squared_adjoint(self._pixel_gains**2 * weights)

    def pose_derivatives(
        self, amplitudes: Float32[np.ndarray, "nx ny nz"]
    ) -> tuple[Float32[np.ndarray, " p"], Float32[np.ndarray, "6 p"]]:
        """Predicted pixels and their exact derivative by each slice's pose.

        The six parameters are a rotation vector (rad) about the slice's centre and a translation (mm), both
        in the slice frame, applied before the pose (see `moved_poses`). The point spread function turns with the slice.
        With d = pixel - Gaussian and g the derivative by d, a rotation w changes d by w x (mu - centre), so the
        derivative by w is (pixel - centre) x g - d x g, summed over Gaussians; the kernels return both sums.
        """
        planes = self._kernel.derivatives(amplitudes)
        slices = self.slices
        gradient, torque = planes[1:4], planes[4:7]
        u, v = _centred_pixels(slices)
        jacobian = np.empty((6, planes.shape[1]), np.float32)
        jacobian[0] = v * gradient[2] - torque[0]
        jacobian[1] = -u * gradient[2] - torque[1]
        jacobian[2] = u * gradient[1] - v * gradient[0] - torque[2]
        jacobian[3:] = gradient
        return self._pixel_gains * planes[0], self._pixel_gains * jacobian


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
