"""One round of the reconstruction: weights, amplitudes and motion in turn.

Each piece is a function of its own (`robust_weights`, `fit_gains`, `solve_amplitudes`, `pose_equations`,
`solve_steps`): a method developer can call `advance` round by round, or replace a piece and write the loop anew.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32

from gsvr.model.fields import Lattice, LatticeField, lattice_covering, sample_lattice
from gsvr.model.geometry import identity_poses
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator, moved_poses
from gsvr.solver.amplitudes import solve_amplitudes
from gsvr.solver.motion import solve_stack_steps, solve_steps
from gsvr.solver.pose_equations import pose_equations
from gsvr.solver.priors.lattice import quadratic_prior
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State
from gsvr.solver.weights import Weights, fit_gains, robust_deviation, robust_weights


def first_gains(slices: Slices) -> Float[np.ndarray, " n"]:
    """Gain of every stack from the median of its positive pixels inside the mask; weighted mean one.

    Zeros say nothing about the scale (background of a stripped brain, pixels that were filled in); a stack without
    positive pixels counts as average.
    """
    gains, counts = np.ones(slices.n_slices), np.ones(slices.n_slices)
    levels: dict[int, float] = {}
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        inside = slices.values[slices.mask & slices.per_pixel(members)]
        positive = inside[inside > 0]
        if positive.size:
            levels[int(stack)] = float(np.median(positive))
            counts[members] = positive.size / members.sum()
    typical = float(np.median(list(levels.values()))) if levels else 1.0
    for stack, level in levels.items():
        gains[slices.stack_index == stack] = level / typical
    return gains / np.average(gains, weights=counts)


def stage_lattice(slices: Slices, poses: Float[np.ndarray, "n 4 4"], stage: Stage, options: SolverOptions) -> Lattice:
    """Lattice of a stage: around every pixel in use, where its slice's pose puts it, and in the gaps between them."""
    placed = slices.pixel_positions(poses, slices.mask)
    margin = max(options.margin, stage.spacing)
    return lattice_covering(placed, stage.spacing, stage.sigma_ratio * stage.spacing, margin, options.gap)


def refined_amplitudes(field: LatticeField, lattice: Lattice) -> Float32[np.ndarray, "nx ny nz"]:
    """Amplitudes on another lattice that give nearly the same volume: its values at the sites, rescaled.

    A lattice of equal amplitudes c is a constant field c (sigma sqrt(2 pi) / spacing)^3.
    """
    axes = tuple(
        first + lattice.spacing * np.arange(count) for first, count in zip(lattice.origin, lattice.shape, strict=True)
    )
    level = np.float32((lattice.spacing / (lattice.sigma * np.sqrt(2 * np.pi))) ** 3)
    return sample_lattice(field, (axes[0], axes[1], axes[2])) * level * lattice.support


def begin_stage(
    slices: Slices, stage: Stage, options: SolverOptions, state: State | None, poses: np.ndarray | None = None
) -> State:
    """State at the start of a stage (for its binned `slices`): the previous field on the new lattice."""
    poses = state.poses if state else identity_poses(slices.n_slices) if poses is None else poses
    gains = state.gains if state else first_gains(slices)
    lattice = stage_lattice(slices, poses, stage, options)
    operator = AcquisitionOperator(lattice, slices, poses, gains, options.profile, options.backend)
    if state:
        amplitudes = refined_amplitudes(state.lattice_field, lattice)
        return State(amplitudes, operator, state.weights, operator.predict(amplitudes))
    # Before there is a field, trust all pixels alike, and take noise as a small share of the contrast.
    inside = slices.values[slices.mask]
    noise = 0.2 * robust_deviation(inside - np.median(inside))
    nobody = np.zeros(slices.n_slices)
    weights = Weights(slices.coverage * slices.mask, nobody + 1, noise, noise, nobody)
    return State(np.zeros(lattice.shape, np.float32), operator, weights, np.zeros_like(slices.values))


def advance(slices: Slices, stage: Stage, options: SolverOptions, state: State) -> State:
    """One round: weights and gains from the last prediction, then amplitudes, then motion."""
    first = not state.amplitudes.any()
    operator, weights, prediction = weighed(slices, options, state)
    solution = solve_amplitudes(
        operator,
        slices.values,
        weights.pixels,
        quadratic_prior(operator.lattice, state.amplitudes, options.prior.edge),
        options.prior.strength * weights.white_noise**2,
        state.amplitudes,
        prediction,
        iterations=stage.iterations * (2 if first else 1),
        diagonal=state.diagonal,
    )
    state = State(solution.amplitudes, operator, weights, solution.prediction, solution.diagonal)
    return state if stage.motion == "none" else _moved(slices, stage, options, state)


def weighed(
    slices: Slices, options: SolverOptions, state: State
) -> tuple[AcquisitionOperator, Weights, Float32[np.ndarray, " p"]]:
    """Operator with new gains, new weights, and the prediction with those gains; without a field yet, the old ones."""
    if not state.amplitudes.any():
        return state.operator, state.weights, state.prediction
    weights = robust_weights(slices, state.prediction, options.weights)
    plain = state.operator.without_gains(state.prediction)
    operator = state.operator.with_gains(fit_gains(slices, plain, weights.pixels, options.weights))
    return operator, weights, plain * slices.per_pixel(operator.gains.astype(np.float32))


def _moved(slices: Slices, stage: Stage, options: SolverOptions, state: State) -> State:
    """The state after one Gauss-Newton step of all stacks or slices."""
    operator = state.operator
    equations = pose_equations(operator, state.amplitudes, slices.values, state.weights.pixels)
    if stage.motion == "stacks":
        poses = solve_stack_steps(slices, operator.poses, equations, options.motion)
    else:
        steps = solve_steps(slices, operator.poses, equations, state.weights.noise**2, options.motion)
        poses = moved_poses(slices, operator.poses, steps)
    moved = operator.with_poses(poses)
    return replace(state, operator=moved, prediction=moved.predict(state.amplitudes), diagonal=None)
