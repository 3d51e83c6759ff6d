"""Pixels that a fit does not see, to judge it by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32

from gsvr.model.slices import Slices
from gsvr.solver.state import State

# How deep in the brain the pixels lie that are held out (mm): around it skull and skin move otherwise, and the more
# Gaussians the better they are explained.
RIM = 4.0
# Of these pixels, in squares of so many: wider than what the point spread function shares between pixels.
_SHARE, _BLOCK = 0.06, 4
# Residuals count up to so many standard deviations: what nothing explains says nothing about fits.
_LIMIT = 6.0


def held_out(slices: Slices, rng: np.random.Generator) -> Bool[np.ndarray, " p"]:
    """Pixels in use that lie in blocks drawn at random."""
    held = np.zeros(len(slices.mask), bool)
    for s in range(slices.n_slices):
        height, width = slices.shapes[s]
        blocks = rng.random((-(-height // _BLOCK), -(-width // _BLOCK))) < _SHARE
        held[slices.pixels_of(s)] = np.kron(blocks, np.ones((_BLOCK, _BLOCK), bool))[:height, :width].ravel()
    return held & slices.mask


@dataclass(frozen=True)
class HeldOut:
    """Some pixels to judge fits by, and how much each of them counts.

    Attributes
    ----------
    pixels
        Which they are.
    values, weights
        Theirs alone; the weights of their slices.
    limit
        The largest residual that counts.
    """

    pixels: Bool[np.ndarray, " p"]
    values: Float32[np.ndarray, " h"]
    weights: Float[np.ndarray, " h"]
    limit: float

    @staticmethod
    def of(slices: Slices, pixels: Bool[np.ndarray, " p"], state: State) -> HeldOut:
        """Some pixels of slices, by the weights and the noise of a state."""
        weights = slices.per_pixel(state.weights.slices)[pixels] + 1e-12
        return HeldOut(pixels, slices.values[pixels], weights, _LIMIT * state.weights.noise)

    def hidden_from(self, state: State) -> State:
        """The state with these pixels out of use: what it is fitted to from now on."""
        return replace(state, operator=state.operator.with_mask(state.slices.mask & ~self.pixels))

    def predicted(self, state: State) -> Float32[np.ndarray, " h"]:
        """What a state predicts of them."""
        return state.operator.backend.host(state.prediction)[self.pixels]

    def squares(self, prediction: Float32[np.ndarray, " h"]) -> Float[np.ndarray, " h"]:
        """Of the residuals (bright tissue is one)."""
        return np.minimum(np.abs(self.values - prediction), self.limit).astype(np.float64) ** 2

    def mean_square(
        self, prediction: Float32[np.ndarray, " h"], of: Bool[np.ndarray, " h"] | slice = slice(None)
    ) -> float:
        """Of the residuals, or of some of them; zero if there are none, which says nothing."""
        squares = self.squares(prediction)[of]
        return float(np.average(squares, weights=self.weights[of])) if len(squares) else 0.0
