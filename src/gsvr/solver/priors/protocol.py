"""What the solver asks of a prior on amplitudes: a quadratic form that touches its energy from above.

An edge-preserving energy is minimised by reweighting: at the present amplitudes it is replaced by 1/2 strength c^T L c,
and each step that lowers the quadratic lowers the energy, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from gsvr.backends.protocol import Array
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator


@runtime_checkable
class QuadraticPrior(Protocol):
    """1/2 c^T L c, with L symmetric and positive semi-definite."""

    def apply(self, values: Array, factor: float = 1.0, start: Array | None = None) -> Array:
        """`factor` L c, added to `start` if that is given."""
        ...

    def preconditioner(self, diagonal: Array, strength: float) -> Callable[[Array], Array]:
        """An approximate inverse of A^T W A + strength L, symmetric and positive.

        Parameters
        ----------
        diagonal
            Of A^T W A.
        """
        ...

    def noise(self, strength: float, rng: np.random.Generator) -> Array:
        """A random vector with covariance strength L."""
        ...


@runtime_checkable
class Prior(Protocol):
    """A prior on the amplitudes of some Gaussians.

    Attributes
    ----------
    strength
        In units of the noise variance: the energy is weighed against residuals of standard deviation one.
    """

    strength: float

    def at(self, amplitudes: Array) -> QuadraticPrior:
        """The quadratic form that touches the energy at these amplitudes."""
        ...


@runtime_checkable
class PriorOnLattices(Protocol):
    """Makes the prior of a stage on a lattice."""

    def on(self, operator: LatticeOperator, sharpened: bool = False) -> Prior:
        """The prior on the lattice of an operator.

        Parameters
        ----------
        sharpened
            As `gsvr.solver.schedule.Stage.sharpened`; a prior that knows but one preconditioner need not heed it.
        """
        ...


@runtime_checkable
class PriorOnGaussians(Protocol):
    """Makes the prior of a stage with free Gaussians."""

    def on(self, operator: GaussianOperator, level: float) -> Prior:
        """The prior on the Gaussians of an operator; `level`: intensity of a field whose amplitudes are all one."""
        ...
