"""Where whole stacks belong, before anything is reconstructed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class StackAlignment:
    """How sure it is where each stack belongs; arrays have one entry a stack.

    Attributes
    ----------
    agreement
        Correlation (-1 to 1) of the stack with the others where it was placed, on coarse volumes and before slices
        move; NaN where it was not compared with any.
    runner_up
        The same at the second-best place that was found, which is elsewhere; NaN where nothing was searched.
    searched
        Whether the header's place did not do, and the stack was searched for in all orientations.
    found
        Whether the stack agrees with the others where it was placed; where it does not, the search failed.
    """

    agreement: Float[np.ndarray, " stacks"]
    runner_up: Float[np.ndarray, " stacks"]
    searched: Bool[np.ndarray, " stacks"]
    found: Bool[np.ndarray, " stacks"]

    @property
    def margin(self) -> Float[np.ndarray, " stacks"]:
        """How much better the place found is than the second-best; NaN where nothing was searched."""
        return self.agreement - self.runner_up
