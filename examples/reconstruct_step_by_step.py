"""For method developers: a reconstruction driven by hand, with stages, a loss and a motion model of one's own.

There are two ways to change the method. Stages say what happens at which resolution. All the rest are parts of
`SolverOptions`, and any object with the same methods takes the place of one: here Huber's loss, and slices that shift
but do not turn. Parts compute with arrays of a backend, so they run on a graphics card as well.
Takes seconds; run it with ``python examples/reconstruct_step_by_step.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

import gsvr
from gsvr.backends.protocol import Array
from gsvr.operators.acquisition import AcquisitionOperator, PoseEquations, moved_poses
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import Simulation, SimulationOptions, simulate
from gsvr.solver.gains import intensity_scale
from gsvr.solver.loss import RobustLoss, Weights, robust_deviation
from gsvr.solver.outer_iteration import advance, begin_stage


@dataclass(frozen=True)
class HuberLoss:
    """A `gsvr.solver.loss.Loss`: a pixel counts in full while its residual is below `width` deviations of the noise.

    Noise and weights of slices are those of the package's own loss.
    """

    width: float = 1.5

    def weights(self, operator: AcquisitionOperator, prediction: Array) -> Weights:
        """Huber's weights: 1, or 1 / |scaled residual| where that exceeds one."""
        robust, pixels = RobustLoss().weights(operator, prediction), operator.pixels
        scaled = abs(pixels.values - prediction) / (self.width * robust.noise)
        return replace(robust, pixels=pixels.coverage * pixels.per_pixel(robust.slices) / scaled.clip(min=1))


@dataclass(frozen=True)
class ShiftsOnly:
    """A `gsvr.solver.motion.MotionModel`: every slice shifts by a damped Gauss-Newton step, and none of them turns."""

    damping: float = 0.1

    def moved(
        self, slices: gsvr.Slices, poses: np.ndarray, equations: PoseEquations, noise_variance: float
    ) -> np.ndarray:
        """The lower right block of the normal equations alone: translations (mm, slice frame)."""
        curvature, gradient = equations.curvature[:, 3:, 3:], equations.gradient[:, 3:, None]
        ridge = self.damping * np.trace(curvature.mean(axis=0)) / 3 * np.eye(3)
        shifts = np.linalg.solve(curvature + ridge, gradient)[:, :, 0]
        return moved_poses(slices, poses, np.pad(shifts, ((0, 0), (3, 0))))


# Coarse to fine: spacing of the Gaussians (mm), pixels averaged along each axis, outer iterations, conjugate-gradient
# steps in each of them, and what moves.
OPTIONS = gsvr.SolverOptions(loss=HuberLoss())
PLAN = (
    (gsvr.Stage("stacks", 5.0, 2, 5, 5, motion="stacks"), OPTIONS),
    (gsvr.Stage("slices, shifts", 5.0, 2, 3, 5), replace(OPTIONS, motion=ShiftsOnly())),
    (gsvr.Stage("slices", 3.5, 1, 6, 5), OPTIONS),
    (gsvr.Stage("final volume", 2.2, 1, 3, 6, motion="none", sigma_ratio=0.6), OPTIONS),
)


def main(tell: Callable[[str], None] = print) -> list[float]:
    """Reconstruct a small acquisition; the residual (share of the bright tissue) after every outer iteration."""
    simulation = acquire()
    masks = [stack.mask for stack in simulation.stacks if stack.mask is not None]
    slices = gsvr.slices_from_stacks(simulation.stacks, masks)
    # the solver works on intensities whose bright tissue is one
    slices = replace(slices, values=slices.values / np.float32(intensity_scale(slices)))

    residuals: list[float] = []
    state: gsvr.State | None = None
    for stage, options in PLAN:
        state = begin_stage(slices.binned(stage.binning), stage, options, state)
        for number in range(1, stage.outer_iterations + 1):
            state = advance(stage, options, state)
            residuals.append(residual(state))
            tell(f"{stage.name:<16} iteration {number}   residual {100 * residuals[-1]:5.2f} %")
    return residuals


def acquire() -> Simulation:
    """Three stacks of the phantom, 2.5 x 2.5 x 5 mm, that moved by 3.9 mm on average."""
    options = SimulationOptions(n_stacks=3, in_plane_spacing=2.5, thickness=5.0, motion="moderate")
    return simulate(brain_phantom(spacing=2.0), options)


def residual(state: gsvr.State) -> float:
    """Robust standard deviation of what the model does not explain; finer pixels have more noise to leave."""
    slices, prediction = state.slices, state.operator.backend.host(state.prediction)
    return robust_deviation((slices.values - prediction)[slices.mask])


if __name__ == "__main__":
    main()
