"""For method developers: a reconstruction driven round by round, with stages and pixel weights of one's own.

Two ways to change the method. As long as only the schedule differs, give `advance` other stages. To replace a piece,
write the round from the pieces it is made of, as `my_round` does with Huber weights in place of Cauchy weights.
Takes seconds; run it with ``python examples/reconstruct_step_by_step.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import gsvr
from gsvr.simulation.simulate import Simulation, SimulationOptions, simulate
from gsvr.solver.amplitudes import solve_amplitudes
from gsvr.solver.priors.lattice import quadratic_prior
from gsvr.solver.reconstruct import intensity_scale
from gsvr.solver.rounds import advance, begin_stage
from gsvr.solver.weights import Weights, fit_gains, robust_deviation, robust_weights

# A schedule of one's own. Lattice spacing and pixels get finer from stage to stage: spacing of the Gaussians (mm),
# pixels averaged along each axis, rounds, conjugate-gradient steps a round, and what moves.
STAGES = (
    gsvr.Stage("stacks", spacing=5.0, binning=2, rounds=5, iterations=5, motion="stacks"),
    gsvr.Stage("slices, coarse", spacing=5.0, binning=2, rounds=4, iterations=5),
    gsvr.Stage("slices, fine", spacing=3.5, binning=1, rounds=6, iterations=5),
)
FINAL = gsvr.Stage("final volume", spacing=2.2, binning=1, rounds=3, iterations=6, motion="none", sigma_ratio=0.6)
HUBER_WIDTH = 1.5


def huber_weights(slices: gsvr.Slices, prediction: np.ndarray, options: gsvr.SolverOptions) -> Weights:
    """Weights of our own: those of the package with Huber's function for the pixels, slice weights as they are."""
    weights = robust_weights(slices, prediction, options.weights)
    residual = np.abs(slices.values - prediction) / np.float32(HUBER_WIDTH * weights.noise)
    huber = slices.coverage * slices.mask / np.maximum(residual, 1)
    return replace(weights, pixels=huber * slices.per_pixel(weights.slices.astype(np.float32)))


def my_round(slices: gsvr.Slices, stage: gsvr.Stage, options: gsvr.SolverOptions, state: gsvr.State) -> gsvr.State:
    """One round without motion: weights, then gains, then amplitudes. `advance` does the same and moves the slices."""
    weights = huber_weights(slices, state.prediction, options)
    without_gains = state.operator.without_gains(state.prediction)
    operator = state.operator.with_gains(fit_gains(slices, without_gains, weights.pixels, options.weights))
    solution = solve_amplitudes(
        operator,
        slices.values,
        weights.pixels,
        quadratic_prior(operator.lattice, state.amplitudes, options.prior.edge),
        options.prior.strength * weights.white_noise**2,
        state.amplitudes,
        iterations=stage.iterations,
    )
    return gsvr.State(solution.amplitudes, operator, weights, solution.prediction)


def main(tell: Callable[[str], None] = print) -> list[float]:
    """Reconstruct a small acquisition; the residual (share of the bright tissue) after every round."""
    simulation = acquire()
    masks = [stack.mask for stack in simulation.stacks if stack.mask is not None]
    slices = gsvr.slices_from_stacks(simulation.stacks, masks)
    # the solver works on intensities whose bright tissue is one
    slices = replace(slices, values=slices.values / np.float32(intensity_scale(slices)))
    options = gsvr.SolverOptions()

    residuals: list[float] = []
    state: gsvr.State | None = None
    for stage in (*STAGES, FINAL):
        binned = slices.binned(stage.binning)
        state = begin_stage(binned, stage, options, state)
        for number in range(1, stage.rounds + 1):
            step = my_round if stage is FINAL else advance
            state = step(binned, stage, options, state)
            residuals.append(residual(binned, state))
            tell(f"{stage.name:<16} round {number}   residual {100 * residuals[-1]:5.2f} %")
    return residuals


def acquire() -> Simulation:
    """Three stacks of the phantom, 2.5 x 2.5 x 5 mm, that moved by 3.9 mm on average."""
    options = SimulationOptions(n_stacks=3, in_plane_spacing=2.5, thickness=5.0, motion="moderate")
    return simulate(gsvr.brain_phantom(spacing=2.0), options)


def residual(slices: gsvr.Slices, state: gsvr.State) -> float:
    """Robust standard deviation of what the model does not explain; finer pixels have more noise to leave."""
    return robust_deviation((slices.values - state.prediction)[slices.mask])


if __name__ == "__main__":
    main()
