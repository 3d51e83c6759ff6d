"""Point spread function of a 2-D slice as a mixture of Gaussians in the slice frame.

In the slice frame (u, v in the plane, w through it, mm) the point spread function is

    psi(u, v, w) = N(u; 0, var_u) N(v; 0, var_v) sum_m p_m N(w; b_m, var_m),    sum_m p_m = 1.

In the plane the width follows the convention that all slice-to-volume tools share for single-shot fast
spin echo: FWHM = 1.2 x pixel spacing. Through the plane the profile is one of `PROFILES`, each written
for a slice of unit thickness and scaled with the slice's own thickness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

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
    """Point spread functions of `n` slices, in mm, each in its own slice frame.

    Attributes
    ----------
    in_plane_variances
        Variance along u and v (mm^2).
    weights
        Share p_m of each through-plane component; they sum to one.
    offsets, variances
        Centre (mm) and variance (mm^2) of each component along w.
    """

    in_plane_variances: Float[np.ndarray, "n 2"]
    weights: Float[np.ndarray, " m"]
    offsets: Float[np.ndarray, "n m"]
    variances: Float[np.ndarray, "n m"]

    def subset(self, index: np.ndarray | slice) -> PointSpread:
        """The point spread functions of some of the slices."""
        return PointSpread(self.in_plane_variances[index], self.weights, self.offsets[index], self.variances[index])


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
    return PointSpread(
        in_plane_variances=in_plane,
        weights=weights,
        offsets=thicknesses[:, None] * offsets,
        variances=(thicknesses[:, None] * sigmas) ** 2,
    )
