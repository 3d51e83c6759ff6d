"""The operator that fits a field, and what a field predicts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from gsvr.backends import Backend
from gsvr.backends.windows import CUTOFF, WHOLE
from gsvr.model.fields import Field, LatticeField, SumField, parts_of
from gsvr.model.point_spread import Profile
from gsvr.model.slices import Slices
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator


def operator_of(
    field: Field,
    slices: Slices,
    poses: Float[np.ndarray, "n 4 4"],
    gains: Float[np.ndarray, " n"] | None = None,
    profile: Profile = "slab",
    backend: Backend | str = "cpu",
    cutoff: float = CUTOFF,
) -> LatticeOperator | GaussianOperator:
    """The acquisition of a field of any kind; parameters as of `gsvr.operators.acquisition.AcquisitionOperator`.

    The amplitudes of a sum are those of all its Gaussians.
    """
    if isinstance(field, SumField):
        field = field.to_gaussians()
    if isinstance(field, LatticeField):
        return LatticeOperator(field.lattice, slices, poses, gains, profile, backend, cutoff=cutoff)
    return GaussianOperator(field, slices, poses, gains, profile, backend, cutoff=cutoff)


def predicted(
    field: Field,
    slices: Slices,
    poses: Float[np.ndarray, "n 4 4"],
    gains: Float[np.ndarray, " n"] | None = None,
    profile: Profile = "slab",
    backend: Backend | str = "cpu",
) -> Float32[np.ndarray, " p"]:
    """The pixels as the whole field predicts them, on the host; parameters as of `operator_of`."""
    operators = [(part, operator_of(part, slices, poses, gains, profile, backend, WHOLE)) for part in parts_of(field)]
    return np.add.reduce(
        [
            operator.backend.host(operator.predict(operator.backend.array(part.amplitudes)))
            for part, operator in operators
        ]
    )
