"""A reconstruction that was put aside: all that it takes to go on with the same result, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.slices import Slices
from gsvr.operators.any_field import operator_of
from gsvr.solver.loss import Weights
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import FieldChoice, State, Thickness


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """The state after an outer iteration, as arrays of the host.

    Attributes
    ----------
    stage, iteration, finished
        Name of the stage, its outer iterations so far, and whether it needs no more.
    field
        In the solver's units of intensity.
    mask
        Pixels in use (flat, as `Slices.mask`).
    poses, gains
        Of every slice.
    bias
        Coefficients of the stacks' bias fields, see `gsvr.model.bias_field.BiasField`.
    pixel_weights, slice_weights, residuals, noise, white_noise
        See `gsvr.solver.loss.Weights`.
    prediction
        Of the stage's binned pixels.
    diagonal
        See `gsvr.solver.state.State`.
    prior_factor, share
        See `gsvr.solver.state.State`.
    partner
        The state's partner; its stage is of no meaning.
    choice, thickness
        What was decided so far, see `gsvr.solver.state.Result`.
    """

    stage: str
    iteration: int
    finished: bool
    field: LatticeField | GaussianField
    mask: Bool[np.ndarray, " p"]
    poses: Float[np.ndarray, "n 4 4"]
    gains: Float[np.ndarray, " n"]
    bias: Float[np.ndarray, "stacks 9"]
    pixel_weights: Float32[np.ndarray, " q"]
    slice_weights: Float[np.ndarray, " n"]
    residuals: Float[np.ndarray, " n"]
    noise: float
    white_noise: float
    prediction: Float32[np.ndarray, " q"]
    diagonal: Float32[np.ndarray, "*sites"] | None
    prior_factor: float = 1.0
    share: float = 1.0
    partner: Checkpoint | None = None
    choice: FieldChoice | None = None
    thickness: Thickness | None = None

    def __repr__(self) -> str:
        return f"Checkpoint({self.stage!r}, iteration {self.iteration}, {self.field!r})"

    @staticmethod
    def of(
        stage: str,
        iteration: int,
        finished: bool,
        state: State,
        mask: Bool[np.ndarray, " p"],
        bias: Float[np.ndarray, "stacks 9"],
    ) -> Checkpoint:
        """What to keep of a state."""
        host, weights = state.operator.backend.host, state.weights
        return Checkpoint(
            stage=stage,
            iteration=iteration,
            finished=finished,
            field=state.own_field,
            mask=mask,
            poses=state.poses,
            gains=state.gains,
            bias=bias,
            pixel_weights=host(weights.pixels),
            slice_weights=weights.slices,
            residuals=weights.residuals,
            noise=weights.noise,
            white_noise=weights.white_noise,
            prediction=host(state.prediction),
            diagonal=None if state.diagonal is None else host(state.diagonal),
            prior_factor=state.prior_factor,
            share=state.share,
            partner=None if state.partner is None else Checkpoint.of(stage, iteration, True, state.partner, mask, bias),
        )

    def stage_of(self, stages: Sequence[Stage]) -> int:
        """Number of the stage.

        Raises
        ------
        ValueError
            If none has its name.
        """
        names = [stage.name for stage in stages]
        if self.stage not in names:
            raise ValueError(f"the checkpoint is of the stage {self.stage!r}, which these options do not have")
        return names.index(self.stage)

    def checked_mask(self, slices: Slices) -> Bool[np.ndarray, " p"]:
        """Its mask, for the slices that it is of.

        Raises
        ------
        ValueError
            If these are others.
        """
        if len(self.mask) != len(slices.values) or len(self.poses) != slices.n_slices:
            raise ValueError(
                f"the checkpoint is of {len(self.poses)} slices with {len(self.mask)} pixels, not of these "
                f"{slices.n_slices} with {len(slices.values)}: go on with the slices it was made from"
            )
        return self.mask

    def checked_bias(self, slices: Slices) -> Float[np.ndarray, "stacks 9"]:
        """Its bias coefficients, for the slices that it is of.

        Raises
        ------
        ValueError
            If these are others.
        """
        if len(self.bias) != len(slices.stack_names):
            raise ValueError(
                f"the checkpoint is of {len(self.bias)} stacks, not of these {len(slices.stack_names)}: go on with the "
                "slices it was made from"
            )
        return self.bias

    def state(self, slices: Slices, options: SolverOptions, stage: Stage) -> State:
        """The state again, with the binned slices of its stage."""
        operator = operator_of(self.field, slices, self.poses, self.gains, options.profile, options.backend)
        array = operator.backend.array
        weights = Weights(array(self.pixel_weights), self.slice_weights, self.noise, self.white_noise, self.residuals)
        diagonal = None if self.diagonal is None else array(self.diagonal)
        amplitudes, prior = array(self.field.amplitudes), options.prior_on(operator, stage)
        return State(
            *(amplitudes, operator, prior, weights, array(self.prediction), diagonal),
            prior_factor=self.prior_factor,
            partner=None if self.partner is None else self.partner.state(slices, options, stage.alternative or stage),
            share=self.share,
        )
