"""Point spread function of a 2-D slice as a mixture of Gaussians in the slice frame.

In the slice frame (u, v in the plane, w through it, mm) the point spread function is

    psi(x) = sum_m p_m N(x; b_m, P_m),    sum_m p_m = 1,

with any offsets and covariances. Those of `PROFILES` are separable: the same width along u and along v for all
components, and a mixture along w.

In the plane their width follows the convention that all slice-to-volume tools share for single-shot fast
spin echo: FWHM = 1.2 x pixel spacing. Through the plane the profile is one of `PROFILES`, each written
for a slice of unit thickness and scaled with the slice's own thickness.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from gsvr.model.slices import Slices

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
IN_PLANE_FWHM_PER_SPACING = 1.2

ProfileName = Literal["slab", "slab-gaussian", "gaussian"]

# Two equal Gaussians at +-b with variance s^2 share all moments up to the fifth with a slab of unit
# thickness when b^2 + s^2 = 1/12 and b^4 + 6 b^2 s^2 + 3 s^4 = 1/80, that is b^4 = (1/48 - 1/80) / 2.
_SLAB_OFFSET = ((1 / 48 - 1 / 80) / 2) ** 0.25
_SLAB_SIGMA = np.sqrt(1 / 12 - _SLAB_OFFSET**2)

# name -> (weights, offsets, sigmas), offsets and sigmas as fractions of the slice thickness
PROFILES: dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = {
    "slab": ((0.5, 0.5), (-_SLAB_OFFSET, _SLAB_OFFSET), (_SLAB_SIGMA, _SLAB_SIGMA)),
    "slab-gaussian": ((1.0,), (0.0,), (np.sqrt(1 / 12),)),
    "gaussian": ((1.0,), (0.0,), (1.0 / FWHM_PER_SIGMA,)),
}


@dataclass(frozen=True)
class PointSpread:
    """Point spread functions of `n` slices, each a mixture of `m` Gaussians in its own slice frame.

    Attributes
    ----------
    weights
        Share p_m of each component: positive; they sum to one.
    offsets
        Centre of each component from the pixel (mm).
    covariances
        Of each component (mm^2), symmetric and positive semi-definite.

    Raises
    ------
    ValueError
        If the weights are not positive or do not sum to one.
    """

    weights: Float[np.ndarray, " m"]
    offsets: Float[np.ndarray, "n m 3"]
    covariances: Float[np.ndarray, "n m 3 3"]

    def __post_init__(self) -> None:
        """Refuse weights that no average has: kernels take logarithms of them."""
        if not (np.all(self.weights > 0) and abs(self.weights.sum() - 1) < 1e-6):
            raise ValueError(f"the weights of a point spread function must be positive and sum to one: {self.weights}")

    @staticmethod
    def through_plane(
        in_plane_variances: Float[np.ndarray, "n 2"],
        weights: Float[np.ndarray, " m"],
        offsets: Float[np.ndarray, "n m"],
        variances: Float[np.ndarray, "n m"],
    ) -> PointSpread:
        """A mixture along w (offsets in mm, variances in mm^2), and one width along u and v for all components."""
        n, m = np.shape(offsets)
        centres, covariances = np.zeros((n, m, 3)), np.zeros((n, m, 3, 3))
        centres[:, :, 2], covariances[:, :, 2, 2] = offsets, variances
        covariances[:, :, 0, 0], covariances[:, :, 1, 1] = np.transpose(in_plane_variances)[:, :, None]
        return PointSpread(np.asarray(weights, np.float64), centres, covariances)

    @staticmethod
    def points(n: int) -> PointSpread:
        """That of `n` slices whose pixels are points."""
        return PointSpread.through_plane(np.zeros((n, 2)), np.ones(1), np.zeros((n, 1)), np.zeros((n, 1)))

    @property
    def is_separable(self) -> bool:
        """Whether every slice has one width along u, one along v, and a mixture along w that does not depend on them.

        Then an isotropic Gaussian seen through it is a product of three functions of one coordinate each.
        """
        mixed = self.covariances[:, :, (0, 0, 1), (1, 2, 2)]
        in_plane = self.covariances[:, :, (0, 1), (0, 1)]
        return not (mixed.any() or self.offsets[:, :, :2].any() or (in_plane != in_plane[:, :1]).any())

    def subset(self, index: np.ndarray | slice) -> PointSpread:
        """The point spread functions of some of the slices."""
        return PointSpread(self.weights, self.offsets[index], self.covariances[index])


def point_spread(
    spacings: Float[np.ndarray, "n 2"],
    thicknesses: Float[np.ndarray, " n"],
    profile: ProfileName = "slab",
    binning: int = 1,
) -> PointSpread:
    """Point spread functions of slices with the given in-plane spacings and thicknesses (mm).

    Parameters
    ----------
    spacings
        Acquired pixel spacing, before any binning.
    profile
        ``"slab"``: two Gaussians with the moments of a slab up to the fifth; ``"slab-gaussian"``: one
        Gaussian with the slab's variance (FWHM = 0.68 thickness); ``"gaussian"``: FWHM = thickness,
        as in Dannecker et al. (MIDL 2026, eq. 3).
    binning
        Pixels averaged along each axis; averaging adds (binning^2 - 1) / 12 pixel^2 of variance.

    Raises
    ------
    ValueError
        If the profile is unknown, or a spacing or thickness is not positive.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown slice profile {profile!r}: choose one of {', '.join(PROFILES)}")
    spacings = np.asarray(spacings, dtype=np.float64)
    thicknesses = np.asarray(thicknesses, dtype=np.float64)
    if not (np.all(spacings > 0) and np.all(thicknesses > 0)):
        raise ValueError("pixel spacings and slice thicknesses must be positive (mm)")
    weights, offsets, sigmas = (np.array(values) for values in PROFILES[profile])
    sigma_per_spacing = IN_PLANE_FWHM_PER_SPACING / FWHM_PER_SIGMA
    in_plane = spacings**2 * (sigma_per_spacing**2 + (binning**2 - 1) / 12)
    return PointSpread.through_plane(
        in_plane, weights, thicknesses[:, None] * offsets, (thicknesses[:, None] * sigmas) ** 2
    )


# a slice profile: one of `PROFILES`, or what makes the point spread functions of slices
Profile: TypeAlias = ProfileName | Callable[[Slices], PointSpread]


def spread_of(slices: Slices, profile: Profile) -> PointSpread:
    """Point spread functions of slices."""
    if callable(profile):
        return profile(slices)
    return point_spread(slices.spacings, slices.thicknesses, profile, slices.binning)
