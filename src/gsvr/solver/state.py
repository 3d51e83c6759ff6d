"""What is known after a round: immutable, so that a callback may keep it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gsvr.model.fields import GaussianField, LatticeField, field_of
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.weights import Weights


@dataclass(frozen=True)
class State:
    """The reconstruction after a round.

    Attributes
    ----------
    amplitudes
        Amplitudes of the operator's Gaussians, in units of intensity.
    operator
        The acquisition at the present poses and gains. It holds what the kernels prepared for them, some hundred
        megabytes: a callback that keeps states should keep `field` and `poses` instead.
    weights
        Robust weights and residuals that the round used.
    prediction
        Predicted pixels (flat, as `Slices.values` of the round's possibly binned slices).
    diagonal
        Of the normal matrix, from the last round that changed poses: weights alone hardly change it, and a
        preconditioner need not be exact. None: not known.
    """

    amplitudes: Float32[np.ndarray, "*sites"]
    operator: AcquisitionOperator
    weights: Weights
    prediction: Float32[np.ndarray, " p"]
    diagonal: Float32[np.ndarray, "*sites"] | None = None

    @property
    def field(self) -> LatticeField | GaussianField:
        """The volume as Gaussians."""
        return field_of(self.operator.primitives, self.amplitudes)

    @property
    def lattice_field(self) -> LatticeField:
        """The same, in stages whose Gaussians stand on a lattice."""
        return LatticeField(self.operator.lattice, self.amplitudes)

    @property
    def poses(self) -> Float[np.ndarray, "n 4 4"]:
        """Acquired world -> volume world, one a slice."""
        return self.operator.poses

    @property
    def gains(self) -> Float[np.ndarray, " n"]:
        """Intensity factor of each slice, weighted mean one."""
        return self.operator.gains


@dataclass(frozen=True)
class Result:
    """A finished reconstruction, in the units of the input.

    Attributes
    ----------
    field
        The volume as Gaussians.
    slices
        The slices it was made from; their mask tells which pixels were used.
    mask
        Where the slices agree that the anatomy is (volume world), with the share of their votes.
    poses
        Acquired world -> volume world, one a slice.
    gains
        Intensity factor of each slice.
    slice_weights
        Robust weight of each slice in the last round (one: believed as a whole).
    noise
        Robust standard deviation of the residuals (intensity).
    residuals
        Root mean square residual of each slice (intensity).
    prediction
        Predicted pixels (flat, as `Slices.values`).
    deviations
        Samples of the field's posterior minus the field, see `gsvr.solver.uncertainty`; empty if none were asked for.
    """

    field: LatticeField | GaussianField
    slices: Slices
    mask: Volume
    poses: Float[np.ndarray, "n 4 4"]
    gains: Float[np.ndarray, " n"]
    slice_weights: Float[np.ndarray, " n"]
    noise: float
    residuals: Float[np.ndarray, " n"]
    prediction: Float32[np.ndarray, " p"]
    deviations: tuple[LatticeField | GaussianField, ...] = ()

    @staticmethod
    def from_state(
        state: State,
        slices: Slices,
        mask: Volume,
        scale: float,
        levels: Float[np.ndarray, " n"],
        deviations: tuple[LatticeField | GaussianField, ...],
    ) -> Result:
        """Undo the intensity scales of the solver: `scale` of all slices, and `levels` (mean one) of each."""
        factor = np.float32(scale)
        return Result(
            field=field_of(state.operator.primitives, state.amplitudes * factor),
            slices=slices,
            mask=mask,
            poses=state.poses,
            gains=state.gains * levels,
            slice_weights=state.weights.slices,
            noise=state.weights.noise * scale,
            residuals=state.weights.residuals * scale * levels,
            prediction=state.prediction * factor * slices.per_pixel(levels.astype(np.float32)),
            deviations=tuple(field_of(part.primitives, part.amplitudes * factor) for part in deviations),
        )
