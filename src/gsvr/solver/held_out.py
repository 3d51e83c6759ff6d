"""Pixels that a fit does not see, to judge it by."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

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


def error_limit(state: State) -> float:
    """The largest residual that counts, by the noise of a state."""
    return _LIMIT * state.weights.noise
