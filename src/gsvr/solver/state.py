"""Where a reconstruction stands after an outer iteration, and what it ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32

from gsvr.backends.protocol import Array
from gsvr.model.bias_field import BiasField
from gsvr.model.fields import Field, GaussianField, LatticeField, SumField
from gsvr.model.notebook import mosaic_html
from gsvr.model.point_spread import Profile
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.loss import Weights
from gsvr.solver.priors.protocol import Prior


class StopReconstruction(Exception):  # noqa: N818, it is a wish and no failure
    """Raised by a callback: a reconstruction ends here, and what there is becomes its result."""


@dataclass(frozen=True, repr=False)
class State:
    """The reconstruction after an outer iteration: immutable, so that a callback may keep it.

    Attributes
    ----------
    amplitudes
        Amplitudes of the operator's Gaussians, in units of intensity (array of the operator's backend).
    operator
        The acquisition at the present poses and gains. It holds what the kernels prepared for them, some hundred
        megabytes: a callback that keeps states should keep `field` and `poses` instead.
    prior
        On the amplitudes; None where nothing is solved for, as with the published settings.
    weights
        Robust weights and residuals that the iteration used.
    prediction
        Predicted pixels (array of the backend, as `Slices.values` of the stage's possibly binned slices).
    diagonal
        Of the normal matrix, from the last iteration that changed poses: weights alone hardly change it, and a
        preconditioner need not be exact. None: not known.
    prior_factor
        Of the prior's strength: less than one where the pixels asked for less, see `gsvr.solver.final_field`.
    partner, share
        Another fit to the same slices, whose field is averaged with this one's, and the share of this one in the
        volume.
    """

    amplitudes: Array
    operator: AcquisitionOperator
    prior: Prior | None
    weights: Weights
    prediction: Array
    diagonal: Array | None = None
    prior_factor: float = 1.0
    partner: State | None = None
    share: float = 1.0

    def __repr__(self) -> str:
        return f"State({self.field!r}, {self.slices.n_slices} slices, {self.weights!r})"

    @property
    def slices(self) -> Slices:
        """What the state is fitted to."""
        return self.operator.slices

    @property
    def has_field(self) -> bool:
        """Whether any amplitude is not zero."""
        return bool(self.amplitudes.any())

    @property
    def own_field(self) -> LatticeField | GaussianField:
        """The fit of this state, without its partner's."""
        return self.operator.field(self.amplitudes)

    @property
    def field(self) -> Field:
        """The volume as Gaussians."""
        if self.partner is None:
            return self.own_field
        shares = (1 - self.share, self.partner.own_field), (self.share, self.own_field)
        return SumField(tuple(part.scaled(share) for share, part in shares))

    @property
    def white_strength(self) -> float:
        """Of the prior, for residuals of the noise that there is."""
        if self.prior is None:
            raise ValueError("this state has no prior: its amplitudes are not solved for")
        return self.prior_factor * self.prior.strength * self.weights.white_noise**2

    @property
    def poses(self) -> Float[np.ndarray, "n 4 4"]:
        """Acquired world -> volume world, one a slice."""
        return self.operator.poses

    def moved(self, poses: Float[np.ndarray, "n 4 4"]) -> State:
        """The same field, and its prediction of slices at other poses."""
        operator = self.operator.with_poses(poses)
        return replace(self, operator=operator, prediction=operator.predict(self.amplitudes), diagonal=None)

    @property
    def gains(self) -> Float[np.ndarray, " n"]:
        """Intensity factor of each slice, weighted mean one."""
        return self.operator.gains


# Keys of `FieldChoice.errors`.
LATTICE, FREE, AVERAGE = "lattice", "free", "average"


@dataclass(frozen=True)
class FieldChoice:
    """Why the final field is what it is, see `gsvr.solver.final_field`.

    Attributes
    ----------
    share
        Of free Gaussians in the volume; the rest is the lattice's.
    prior_factor
        Of the prior's strength.
    pixels
        How many were held out.
    errors
        Root mean square error on them (bright tissue is one) by the field and the factor of its prior, after every
        outer iteration; and that of the average with the free Gaussians after each of theirs.
    """

    share: float
    prior_factor: float
    pixels: int
    errors: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Thickness:
    """How thick slices look, see `gsvr.solver.thickness`.

    Attributes
    ----------
    factor
        Times what they are said to be; one for all. Of a Gaussian it is its full width at half maximum.
    deviation
        Standard deviation of its logarithm, from stack to stack.
    used
        Whether it is far enough from one to be used in place of what was said.
    errors
        Root mean square error (bright tissue is one) on pixels held out, by factor.
    gaussian
        Whether a Gaussian profile predicts better than the slab that was assumed.
    """

    factor: float
    deviation: float
    used: bool
    errors: Mapping[str, float]
    gaussian: bool = False

    def profile(self, assumed: Profile) -> Profile:
        """Of the slices, where another one was assumed."""
        return "gaussian" if self.used and self.gaussian else assumed


@dataclass(frozen=True, repr=False)
class Result:
    """A finished reconstruction, in the units of the input.

    Attributes
    ----------
    field
        The volume as Gaussians.
    slices
        The slices it was made from; their mask tells which pixels were used.
    mask
        The consensus mask of the slices (volume world), with the share of their votes as data.
    poses
        Acquired world -> volume world, one a slice.
    pose_deviations
        Standard deviations of each slice's place (mm) and direction (degrees), see `gsvr.solver.pose_uncertainty`; NaN
        with the published settings, which have no normal equations.
    gains
        Intensity factor of each slice.
    slice_weights
        Robust weight of each slice in the last outer iteration (one: believed as a whole; zero: without any pixel).
    noise
        Robust standard deviation of the residuals (intensity). Where two fits are averaged it is that of the free
        Gaussians, as are weights, gains and `residuals`.
    residuals
        Root mean square residual of each slice (intensity).
    prediction
        Predicted pixels (flat, as `Slices.values`), with bias and noise floor.
    profile
        Slice profile that the prediction was made with.
    bias
        Smooth brightness of each stack, which the prediction has; None with the published settings.
    choice
        What decided on lattice, free Gaussians and the strength of the prior; None: nothing was compared.
    thickness
        How thick slices look; None: it was not estimated. If it is used, so it says in `slices`.
    deviations
        Samples of the field's posterior minus the field, see `gsvr.solver.uncertainty`; empty if none were asked for.
    """

    field: Field
    slices: Slices
    mask: Volume
    poses: Float[np.ndarray, "n 4 4"]
    pose_deviations: Float[np.ndarray, "n 2"]
    gains: Float[np.ndarray, " n"]
    slice_weights: Float[np.ndarray, " n"]
    noise: float
    residuals: Float[np.ndarray, " n"]
    prediction: Float32[np.ndarray, " p"]
    profile: Profile = "slab"
    bias: BiasField | None = None
    choice: FieldChoice | None = None
    thickness: Thickness | None = None
    deviations: tuple[Field, ...] = ()

    def __repr__(self) -> str:
        return f"Result({self.field!r}, {self.slices.n_slices} slices, noise={self.noise:.4g})"

    def _repr_html_(self) -> str:
        pixels = self.slices.sum_per_slice(self.slices.mask)
        fullest = [
            int(max(np.flatnonzero(self.slices.stack_index == stack), key=lambda number: pixels[number]))
            for stack in np.unique(self.slices.stack_index)[:3]
        ]
        pairs = [(self.slices.image(n)[:, ::-1].T, self.slices.image(n, self.prediction)[:, ::-1].T) for n in fullest]
        doubted = int(((self.slice_weights < 0.5) & (pixels > 0)).sum())
        facts = f"{self!r}, {int((pixels > 0).sum())} slices with brain, {doubted} of them count less than half"
        return mosaic_html(
            [plane for pair in pairs for plane in pair], facts, "slices as acquired and, beside each, as predicted"
        )

    @property
    def difference(self) -> Field | None:
        """Free Gaussians minus the lattice, where the volume is the average of both; None: it is one alone."""
        if self.choice is None or not isinstance(self.field, SumField):
            return None
        (lattice, free), share = self.field.parts, self.choice.share
        return SumField((lattice.scaled(-1 / (1 - share)), free.scaled(1 / share)))

    def turned(self, pose: Float[np.ndarray, "4 4"]) -> Result:
        """The same result in another volume world (mm): what was at x is at ``pose @ x``.

        Nothing is resampled: Gaussians, poses and the mask's affine are turned; a lattice becomes free Gaussians.
        """
        return replace(
            self,
            field=_turned(self.field, pose),
            mask=replace(self.mask, affine=pose @ self.mask.affine),
            poses=pose @ self.poses,
            deviations=tuple(_turned(sample, pose) for sample in self.deviations),
        )


def _turned(field: Field, pose: Float[np.ndarray, "4 4"]) -> GaussianField | SumField:
    return field.turned(pose) if isinstance(field, SumField) else field.to_gaussians().turned(pose)
