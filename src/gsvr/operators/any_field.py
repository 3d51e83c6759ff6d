"""The operator that fits a field."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from gsvr.backends import Backend
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.point_spread import Profile
from gsvr.model.slices import Slices
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator


def operator_of(
    field: LatticeField | GaussianField,
    slices: Slices,
    poses: Float[np.ndarray, "n 4 4"],
    gains: Float[np.ndarray, " n"] | None = None,
    profile: Profile = "slab",
    backend: Backend | str = "cpu",
) -> LatticeOperator | GaussianOperator:
    """The acquisition of a field of either kind; parameters as of `gsvr.operators.acquisition.AcquisitionOperator`."""
    if isinstance(field, LatticeField):
        return LatticeOperator(field.lattice, slices, poses, gains, profile, backend)
    return GaussianOperator(field, slices, poses, gains, profile, backend)
