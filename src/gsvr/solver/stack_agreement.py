"""Does a coarse field made of some slices predict others? Compared where the field is determined only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from gsvr.backends.protocol import Array
from gsvr.model.fields import Lattice
from gsvr.model.slices import Slices
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.state import State

# A site is determined if slices see it at least this well, as a share of what is typical; a pixel, if it sees hardly
# anything but such sites.
_LEAST_SEEN, _MOST_OF_IT = 0.1, 0.8
# Fewer pixels (binned) say nothing about a stack, or a slice.
_LEAST_PIXELS, _LEAST_PIXELS_OF_SLICE = 50, 12
_ALMOST_ONE = 1 - 1e-6


@dataclass(frozen=True)
class Agreement:
    """How well slices fit to a field that they have no part in.

    Attributes
    ----------
    correlation
        Of the pixels of a slice with their prediction, mean over slices by their pixels, so that gains do not count;
        zero if too few can be compared.
    compared
        Share of their pixels that the field determines.
    """

    correlation: float
    compared: float

    @property
    def evidence(self) -> float:
        """For the poses: twice the log-likelihood that a pixel gains by its prediction; a small overlap counts less."""
        return -self.compared * float(np.log(1 - min(max(self.correlation, 0.0), _ALMOST_ONE) ** 2))


def lattice_of(state: State) -> Lattice:
    """The lattice that a state's field stands on: stacks are compared on lattices only."""
    operator = state.operator
    assert isinstance(operator, LatticeOperator)
    return operator.lattice


def determined_sites(state: State) -> Bool[np.ndarray, "nx ny nz"]:
    """Sites of the lattice that the slices of the state see well enough."""
    operator, support = state.operator, lattice_of(state).support
    seen = operator.backend.host(operator.diagonal(operator.pixels.coverage))
    return (seen > _LEAST_SEEN * float(np.median(seen[support]))) & support


def determined_pixels(state: State, operator: LatticeOperator) -> Bool[np.ndarray, " p"]:
    """Pixels of other slices that see hardly anything but what the slices of the state determine.

    Parameters
    ----------
    operator
        Of the other slices, on the lattice of the state.
    """
    backend, support = operator.backend, operator.lattice.support

    def predicted(sites: np.ndarray) -> np.ndarray:
        return backend.host(operator.predict(backend.array(sites.astype(np.float32))))

    mask = operator.slices.mask
    if not mask.any():
        return mask
    whole = predicted(support)
    determined = predicted(determined_sites(state))
    return mask & (determined > _MOST_OF_IT * whole) & (whole > 0.5 * float(np.median(whole[mask])))


def operator_on(state: State, slices: Slices, poses: Float[np.ndarray, "n 4 4"]) -> LatticeOperator:
    """The acquisition of other slices from the field of a state."""
    return LatticeOperator(lattice_of(state), slices, poses, None, state.operator.profile, state.operator.backend)


def agreement(state: State, operator: LatticeOperator) -> Agreement:
    """How well other slices fit to the field of a state.

    Parameters
    ----------
    operator
        Of the other slices, see `operator_on`.
    """
    slices, amplitudes = operator.slices, state.amplitudes
    known = determined_pixels(state, operator)
    share = known.sum() / max(int(slices.mask.sum()), 1)
    if known.sum() < _LEAST_PIXELS:
        return Agreement(0.0, float(share))
    predicted = operator.backend.host(operator.predict(amplitudes))
    count = slices.sum_per_slice(known)
    correlations = np.nan_to_num(slice_correlations(slices, predicted, known))
    weight = np.where(count >= _LEAST_PIXELS_OF_SLICE, count, 0)
    return Agreement(float((weight * correlations).sum() / max(float(weight.sum()), 1.0)), float(share))


def slice_correlations(
    slices: Slices, predicted: Float[np.ndarray, " p"], pixels: Bool[np.ndarray, " p"]
) -> Float[np.ndarray, " n"]:
    """Correlation of each slice with its prediction, over some of its pixels; NaN without contrast."""
    count = np.maximum(slices.sum_per_slice(pixels), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return slices.sum_per_slice(values * pixels) / count

    one, other = predicted.astype(np.float64), slices.values.astype(np.float64)
    one, other = one - slices.per_pixel(mean(one)), other - slices.per_pixel(mean(other))
    size = np.sqrt(mean(one**2) * mean(other**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, mean(one * other) / size, np.nan)


def weights_of(operator: LatticeOperator, pixels: Bool[np.ndarray, " p"]) -> Array:
    """Weights of the pixels' residuals: their coverage where they are told, else zero."""
    return operator.pixels.coverage * operator.backend.array(pixels.astype(np.float32))
