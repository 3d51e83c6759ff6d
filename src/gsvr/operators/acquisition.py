"""The acquisition operator: amplitudes of a field -> recorded pixels, its adjoint, and its derivatives by pose.

For a field of Gaussians, a point spread function that is a mixture of Gaussians, and rigid poses, the recorded pixel is

    y_i(u) = g_i sum_j c_j sum_m p_m a_ijm exp(-1/2 d^T (Sigma_j + P_im)^-1 d),    d = T_i(u) + b_im - mu_j,
    a_ijm  = sqrt(det Sigma_j / det(Sigma_j + P_im)),

the convolution of the field with the point spread function (the factor a_ijm is missing in Dannecker et al., MIDL 2026,
eq. 5, which renormalises instead). There are two operators, one for each kind of field (`LatticeOperator`,
`GaussianOperator`); what they share is here. They differ from the formula by their cut-offs, see
`gsvr.backends.windows` and `gsvr.backends.views`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from gsvr.backends import Backend, named
from gsvr.backends.protocol import Array, Kernel, Pixels, pose_columns
from gsvr.model.fields import GaussianField, Lattice, LatticeField
from gsvr.model.geometry import invert, pose_about, transform_points
from gsvr.model.point_spread import Profile, spread_of
from gsvr.model.slices import Slices


@runtime_checkable
class Operator(Protocol):
    """A linear operator from amplitudes to pixels: all that `gsvr.solver.amplitudes` asks for.

    Attributes
    ----------
    backend
        Whose arrays it takes and gives.
    """

    backend: Backend

    def predict(self, amplitudes: Array) -> Array:
        """A c."""
        ...

    def adjoint(self, pixels: Array) -> Array:
        """A^T r."""
        ...

    def diagonal(self, weights: Array) -> Array:
        """Diagonal of A^T diag(weights) A."""
        ...


@dataclass(frozen=True)
class PoseEquations:
    """Normal equations of the pose of every slice.

    Attributes
    ----------
    curvature, gradient
        J^T W J and J^T W r. The six parameters are those of `moved_poses`: rotations in rad, translations in mm.
    """

    curvature: Float[np.ndarray, "n 6 6"]
    gradient: Float[np.ndarray, "n 6"]


class AcquisitionOperator(ABC):
    """A for some Gaussians and one set of slices with poses. Amplitudes and pixels are arrays of the backend.

    Parameters
    ----------
    slices
        Geometry of the pixels (their values are not used).
    poses
        Acquired world -> volume world, one a slice.
    gains
        Factor g_i of each slice; default: one.
    profile
        Slice profile: a name, see `gsvr.model.point_spread.PROFILES`, or a function that makes the point spread
        functions of slices.
    backend
        Where to compute: a backend or its name, see `gsvr.backends.BACKENDS`.
    """

    def __init__(
        self,
        slices: Slices,
        poses: Float[np.ndarray, "n 4 4"],
        gains: Float[np.ndarray, " n"] | None,
        profile: Profile,
        backend: Backend | str,
    ) -> None:
        self.backend: Backend = named(backend)
        self.slices, self.poses = slices, poses
        self.profile: Profile = profile
        self.pixels: Pixels = self.backend.pixels(slices)
        self._place()
        self._set_gains(np.ones(slices.n_slices) if gains is None else gains)

    @property
    @abstractmethod
    def primitives(self) -> Lattice | GaussianField:
        """What stands where; amplitudes are not used."""

    @abstractmethod
    def field(self, amplitudes: Array) -> LatticeField | GaussianField:
        """The field of these amplitudes, on the host."""

    @abstractmethod
    def _make_kernel(self) -> Kernel:
        """The kernel at the present poses."""

    def _density_of(self, kernel: Kernel) -> Array | None:
        """What the pixels of a normalised field are divided by."""
        return None

    def _place(self) -> None:
        self.spread = spread_of(self.slices, self.profile)
        self._kernel = self._make_kernel()
        self._density = self._density_of(self._kernel)

    def _set_gains(self, gains: Float[np.ndarray, " n"]) -> None:
        self.gains = np.asarray(gains, np.float64)
        self._pixel_gains = self.pixels.per_pixel(self.gains)

    @property
    def _factors(self) -> Array:
        """What the kernel's pixels are multiplied by: gains, and for a normalised field 1 / density."""
        return self._pixel_gains if self._density is None else self._pixel_gains / self._density

    def with_poses(self, poses: Float[np.ndarray, "n 4 4"]) -> AcquisitionOperator:
        """The same operator at other poses."""
        other = copy(self)
        other.poses = poses
        other._place()
        return other

    def with_slices(self, slices: Slices) -> AcquisitionOperator:
        """The same operator for other pixels of the same slices, such as those before they were averaged."""
        other = copy(self)
        other.slices, other.pixels = slices, self.backend.pixels(slices)
        other._place()
        other._set_gains(self.gains)
        return other

    def with_mask(self, mask: Bool[np.ndarray, " p"]) -> AcquisitionOperator:
        """The same operator where other pixels count; every pixel is predicted anyway."""
        other = copy(self)
        other.slices = self.slices.with_mask(mask)
        other.pixels = self.backend.pixels(other.slices)
        return other

    def with_gains(self, gains: Float[np.ndarray, " n"]) -> AcquisitionOperator:
        """The same operator with other gains; whatever the kernel has prepared for these poses is kept."""
        other = copy(self)
        other._set_gains(gains)
        return other

    def without_gains(self, prediction: Array) -> Array:
        """Predicted pixels as they would be with all gains one."""
        return prediction / self._pixel_gains

    def with_own_gains(self, plain: Array) -> Array:
        """Pixels that were predicted with all gains one as they are with the operator's."""
        return plain * self._pixel_gains

    def predict(self, amplitudes: Array) -> Array:
        """Every pixel of every slice for these amplitudes, A c."""
        return self._factors * self._kernel.predict(amplitudes)

    def adjoint(self, pixels: Array) -> Array:
        """A^T r."""
        return self._kernel.adjoint(self._factors * pixels)

    def diagonal(self, weights: Array) -> Array:
        """Diagonal of A^T diag(weights) A."""
        return self._kernel.squared_adjoint(self._factors**2 * weights)

    def pose_equations(self, amplitudes: Array, values: Array, weights: Array) -> PoseEquations:
        """Normal equations of the poses for recorded `values` and pixel `weights`."""
        planes = self._derivatives(amplitudes)
        return PoseEquations(*self.pixels.pose_equations(planes, self.gains, values, weights))

    def pose_derivatives(self, amplitudes: Array) -> tuple[Array, list[Array]]:
        """Predicted pixels, and their derivative by each of the six parameters of `moved_poses`."""
        planes, gains = self._derivatives(amplitudes), self._pixel_gains
        u, v = (self.backend.array(part) for part in self.slices.centred_pixels())
        return gains * planes[0], [gains * part for part in pose_columns(planes, u, v)]

    def _derivatives(self, amplitudes: Array) -> Array:
        """Planes of `Kernel.derivatives`; those of a normalised field N / D are (dN - (N / D) dD) / D."""
        planes = self._kernel.derivatives(amplitudes)
        if self._density is None:
            return planes
        of_density = self._kernel.derivatives(0 * amplitudes + 1)
        quotient = planes / self._density
        quotient[1:] -= quotient[0] * of_density[1:] / self._density
        return quotient


def moved_poses(
    slices: Slices, poses: Float[np.ndarray, "n 4 4"], steps: Float[np.ndarray, "n 6"]
) -> Float[np.ndarray, "n 4 4"]:
    """Apply pose steps (rotation vector in rad, translation in mm, slice frame, about the slice's centre)."""
    local_centres = transform_points(invert(slices.frames), slices.centres)
    step = pose_about(steps[:, :3], steps[:, 3:], local_centres)
    return poses @ slices.frames @ step @ invert(slices.frames)
