"""One round of the reconstruction: weights, amplitudes and motion in turn.

Each piece is a function of its own (`robust_weights`, `fit_gains`, `solve_amplitudes`, `pose_normal_equations`,
`solve_steps`): a method developer can call `advance` round by round, or replace a piece and write the loop anew.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32

from gsvr.acquisition import Slices
from gsvr.field import Lattice, LatticeField, lattice_covering, sample_lattice
from gsvr.forward import AcquisitionOperator, moved_poses
from gsvr.geometry import identity_poses, transform_points
from gsvr.solver.amplitudes import solve_amplitudes
from gsvr.solver.motion import pose_normal_equations, solve_stack_steps, solve_steps
from gsvr.solver.prior import quadratic_prior
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State
from gsvr.solver.weights import Weights, fit_gains, robust_deviation, robust_weights


def first_gains(slices: Slices) -> Float[np.ndarray, " n"]:
    """Gain of every stack from its median intensity inside the mask; weighted mean one."""
    gains, counts = np.ones(slices.n_slices), np.ones(slices.n_slices)
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        inside = slices.values[slices.mask & slices.per_pixel(members)]
        if inside.size:
            gains[members], counts[members] = np.median(inside), inside.size / members.sum()
    gains = np.clip(gains / np.average(gains, weights=counts), 0.1, 10)
    return gains / np.average(gains, weights=counts)


def stage_lattice(slices: Slices, poses: Float[np.ndarray, "n 4 4"], stage: Stage, margin: float) -> Lattice:
    """Lattice of a stage: around every pixel in use, where its slice's pose puts it."""
    positions = slices.pixel_positions()[slices.mask]
    owner = np.repeat(np.arange(slices.n_slices), np.diff(slices.offsets))[slices.mask]
    placed = transform_points(poses[owner], positions)
    return lattice_covering(placed, stage.spacing, stage.sigma_ratio * stage.spacing, max(margin, stage.spacing))


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
    lattice = stage_lattice(slices, poses, stage, options.margin)
    if state:
        amplitudes = refined_amplitudes(state.field, lattice)
        operator = AcquisitionOperator(lattice, slices, poses, gains, options.profile, options.backend)
        prediction = operator.predict(amplitudes)
        return replace(state, field=LatticeField(lattice, amplitudes), prediction=prediction)
    # Before there is a field, trust all pixels alike, and take noise as a small share of the contrast.
    nothing = np.zeros(lattice.shape, np.float32)
    inside = slices.values[slices.mask]
    noise = 0.2 * robust_deviation(inside - np.median(inside))
    weights = Weights(slices.coverage * slices.mask, np.ones(slices.n_slices), noise, noise, np.zeros(slices.n_slices))
    return State(LatticeField(lattice, nothing), poses, gains, weights, np.zeros_like(slices.values))


def advance(slices: Slices, stage: Stage, options: SolverOptions, state: State) -> State:
    """One round: weights and gains from the last prediction, then amplitudes, then motion."""
    lattice, amplitudes = state.field.lattice, state.field.amplitudes
    prediction, gains, weights = state.prediction, state.gains, state.weights
    first = not amplitudes.any()
    if not first:
        weights = robust_weights(slices, prediction, options.weights)
        plain = prediction / slices.per_pixel(gains.astype(np.float32))
        gains = fit_gains(slices, plain, weights.pixels, options.weights)
        prediction = plain * slices.per_pixel(gains.astype(np.float32))
    operator = AcquisitionOperator(lattice, slices, state.poses, gains, options.profile, options.backend)
    solution = solve_amplitudes(
        operator,
        slices.values,
        weights.pixels,
        quadratic_prior(lattice, amplitudes, options.prior.edge),
        options.prior.strength * weights.white_noise**2,
        amplitudes,
        prediction,
        iterations=stage.iterations * (2 if first else 1),
    )
    field = LatticeField(lattice, solution.amplitudes)
    poses, prediction = state.poses, solution.prediction
    if stage.motion != "none":
        poses = _moved(slices, stage, options, operator, replace(state, field=field, weights=weights))
        operator = AcquisitionOperator(lattice, slices, poses, gains, options.profile, options.backend)
        prediction = operator.predict(solution.amplitudes)
    return replace(state, field=field, poses=poses, gains=gains, weights=weights, prediction=prediction)


def _moved(
    slices: Slices, stage: Stage, options: SolverOptions, operator: AcquisitionOperator, state: State
) -> Float[np.ndarray, "n 4 4"]:
    prediction, jacobian = operator.pose_derivatives(state.field.amplitudes)
    equations = pose_normal_equations(slices, slices.values - prediction, jacobian, state.weights.pixels)
    if stage.motion == "stacks":
        return solve_stack_steps(slices, state.poses, equations, options.motion)
    steps = solve_steps(slices, state.poses, equations, state.weights.noise**2, options.motion)
    return moved_poses(slices, state.poses, steps)
