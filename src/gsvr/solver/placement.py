"""Where new slices belong in a field that exists: rigid Gauss-Newton against it, coarse to fine; the field stays as is.

Coarse levels see farther: they compare averaged pixels with a smoothed field.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from gsvr.backends.protocol import Array
from gsvr.model.fields import LatticeField, lattice_covering
from gsvr.model.slices import Slices
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.loss import robust_deviation
from gsvr.solver.motion import movements
from gsvr.solver.outer_iteration import resampled_amplitudes
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.stack_agreement import slice_correlations


@dataclass(frozen=True)
class Level:
    """One resolution that slices are placed at.

    Attributes
    ----------
    spacing
        Of the lattice (mm); 0: the field's own.
    binning
        Pixels averaged along each in-plane axis.
    stack_steps, slice_steps
        Gauss-Newton steps of whole stacks, then of slices.
    """

    spacing: float
    binning: int
    stack_steps: int
    slice_steps: int


# Of a stack that is complete, and of slices whose stack is known to a few millimetres. A smoothed field alone would put
# them wrong by half a millimetre: it lacks what a slice shows sharply along itself.
STACK_LEVELS = (Level(5.0, 3, 10, 0), Level(3.5, 3, 2, 3), Level(0.0, 2, 0, 6))
SLICE_LEVELS = (Level(3.5, 3, 0, 3), Level(0.0, 2, 0, 6))

_SIGMA_RATIO = 0.65
# How much a field is smoothed (standard deviation, as a share of the spacing) before it is sampled on a lattice.
_SMOOTHING = 0.5


@dataclass(frozen=True, repr=False)
class Placement:
    """Where slices belong.

    Attributes
    ----------
    poses
        Acquired world -> volume world.
    agreement
        Correlation of each slice with what the field predicts of it; NaN where it shows nothing of the field.
    total_agreement
        The same over all pixels.
    movement
        See `gsvr.solver.motion.movements`.
    """

    poses: Float[np.ndarray, "n 4 4"]
    agreement: Float[np.ndarray, " n"]
    total_agreement: float
    movement: Float[np.ndarray, " n"]

    def __repr__(self) -> str:
        return f"Placement({len(self.poses)} slices, agreement {self.total_agreement:.3f})"


def place(
    field: LatticeField,
    slices: Slices,
    poses: Float[np.ndarray, "n 4 4"],
    options: SolverOptions,
    levels: tuple[Level, ...] = STACK_LEVELS,
) -> Placement:
    """Place slices against a field.

    Parameters
    ----------
    field
        In intensities that may differ from those of the slices by a factor.
    slices
        Of one or more stacks; the motion of a stack's slices is linked along time. The mask says which pixels count;
        slices without any are carried along by the others.
    poses
        First guess.
    """
    with threadpool_limits(1, "blas"):
        used = slices
        for level in levels:
            used, coarse = slices.binned(level.binning), coarser(field, level.spacing)
            operator = LatticeOperator(coarse.lattice, used, poses, None, options.profile, options.backend)
            amplitudes = operator.backend.array(coarse.amplitudes)
            for number in range(level.stack_steps + level.slice_steps):
                motion = options.stack_motion if number < level.stack_steps else options.motion
                gains, noise = _matched(operator, amplitudes, options)
                pixels, matched = operator.pixels, operator.with_gains(gains)
                equations = matched.pose_equations(amplitudes, pixels.values, pixels.coverage)
                poses = motion.moved(used, poses, equations, max(noise, 1e-6) ** 2)
                operator = LatticeOperator(coarse.lattice, used, poses, None, options.profile, operator.backend)
        prediction = operator.backend.host(operator.predict(amplitudes))
    agreement, total = _correlations(used, prediction)
    return Placement(poses, agreement, total, movements(slices, poses))


def coarser(field: LatticeField, spacing: float) -> LatticeField:
    """A smooth version of a field on a coarser lattice; the field itself where it is no finer."""
    own = field.lattice
    if spacing <= own.spacing:
        return field
    sigma = float(np.hypot(own.sigma, _SMOOTHING * spacing))
    level = np.float32((own.sigma / sigma) ** 3)  # what a wider Gaussian of the same integral is lower by
    smooth = LatticeField(replace(own, sigma=sigma), field.amplitudes * level)
    sites = np.argwhere(own.support) * own.spacing + own.origin
    lattice = lattice_covering(sites, spacing, _SIGMA_RATIO * spacing, spacing)
    return LatticeField(lattice, resampled_amplitudes(smooth, lattice))


def _matched(
    operator: LatticeOperator, amplitudes: Array, options: SolverOptions
) -> tuple[Float[np.ndarray, " n"], float]:
    """Gains that match field and slices, and the spread of what they leave."""
    slices, pixels = operator.slices, operator.pixels
    plain = operator.predict(amplitudes)
    gains = options.intensity.gains(operator, plain, pixels.coverage, mean_one=False)
    residual = operator.backend.host(pixels.values - operator.with_gains(gains).with_own_gains(plain))
    return gains, robust_deviation(residual[slices.mask])


def _correlations(slices: Slices, prediction: Float[np.ndarray, " p"]) -> tuple[Float[np.ndarray, " n"], float]:
    """Correlation of every slice and of all pixels with their prediction."""
    inside, seen = slices.values[slices.mask], prediction[slices.mask]
    total = -1.0
    if len(inside) > 1 and inside.std() > 0 and seen.std() > 0:
        total = float(np.corrcoef(inside, seen)[0, 1])
    return slice_correlations(slices, prediction, slices.mask), total
