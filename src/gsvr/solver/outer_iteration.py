"""An outer iteration: weights, gains, amplitudes and motion in turn; and how a stage begins.

A method developer can call `begin_stage` and `advance` alone, and replace loss, intensity model, priors and motion
model by others (`gsvr.solver.schedule.SolverOptions`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32

from gsvr.backends import named
from gsvr.errors import InputError
from gsvr.model.fields import Lattice, LatticeField, lattice_covering, lattice_values
from gsvr.model.geometry import identity_poses
from gsvr.model.slices import Slices
from gsvr.operators.any_field import operator_of
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.amplitudes import refit
from gsvr.solver.gains import slice_levels
from gsvr.solver.loss import Weights, robust_deviation
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.seeding import seed_from_lattice
from gsvr.solver.state import State


def stage_lattice(slices: Slices, poses: Float[np.ndarray, "n 4 4"], stage: Stage, options: SolverOptions) -> Lattice:
    """Lattice of a stage: around every pixel in use, where its slice's pose puts it, and in the gaps between them.

    Raises
    ------
    InputError
        If no pixel is in use.
    """
    if not slices.mask.any():
        raise InputError("the slices do not agree on where anything is: look at the stacks, and draw or check masks")
    placed = slices.pixel_positions(poses, slices.mask)
    margin = max(options.margin, stage.spacing)
    return lattice_covering(placed, stage.spacing, stage.sigma_ratio * stage.spacing, margin, options.gap)


def resampled_amplitudes(field: LatticeField, lattice: Lattice) -> Float32[np.ndarray, "nx ny nz"]:
    """Amplitudes on another lattice that give nearly the same volume: its values at the sites, rescaled.

    A lattice of equal amplitudes c is a constant field c (sigma sqrt(2 pi) / spacing)^3. Sites that both
    lattices have keep their amplitudes.
    """
    apart = (lattice.origin - field.lattice.origin) / lattice.spacing
    alike = (lattice.spacing, lattice.sigma) == (field.lattice.spacing, field.lattice.sigma)
    if alike and np.allclose(apart, np.rint(apart), atol=1e-6):
        return _shared_sites(field, lattice)
    level = np.float32((lattice.spacing / (lattice.sigma * np.sqrt(2 * np.pi))) ** 3)
    return lattice_values(field, lattice.axes) * level * lattice.support


def _shared_sites(field: LatticeField, lattice: Lattice) -> Float32[np.ndarray, "nx ny nz"]:
    """Amplitudes of the sites that both lattices have; zero at the others."""
    shift = np.rint((lattice.origin - field.lattice.origin) / lattice.spacing).astype(int)
    low, high = np.maximum(shift, 0), np.minimum(shift + lattice.shape, field.lattice.shape)
    amplitudes = np.zeros(lattice.shape, np.float32)
    if (high > low).all():
        of_field = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        of_lattice = tuple(slice(*ends) for ends in zip(low - shift, high - shift, strict=True))
        amplitudes[of_lattice] = field.amplitudes[of_field]
    return amplitudes * lattice.support


def begin_stage(
    slices: Slices,
    stage: Stage,
    options: SolverOptions,
    state: State | None = None,
    poses: Float[np.ndarray, "n 4 4"] | None = None,
) -> State:
    """State at the start of a stage: the previous field on the new lattice, or free Gaussians seeded from that.

    Parameters
    ----------
    slices
        Binned as the stage asks, intensities scaled so that bright tissue is near one.
    state
        How the previous stage ended; None: there was none.
    poses
        Where to start without a state; default: the scanner's coordinates.

    Raises
    ------
    ValueError
        If free Gaussians are to be seeded from anything but a field on a lattice.
    InputError
        If the stage before left nothing to go on from.
    """
    if state is None:
        return _first_state(slices, stage, options, poses)
    if not state.has_field:
        raise InputError(
            "no volume explains any of the slices: look at the stacks for damage, and whether masks lie on the brain"
        )
    previous = state.own_field
    if not isinstance(previous, LatticeField):
        raise ValueError(f"stage {stage.name!r} needs a field on a lattice to start from: free Gaussians come last")
    lattice = stage_lattice(slices, state.poses, stage, options)
    field = LatticeField(lattice, resampled_amplitudes(previous, lattice))
    if stage.free:
        field = seed_from_lattice(field, state.weights.white_noise, options.seeds_of(stage))
    operator = operator_of(field, slices, state.poses, state.gains, options.profile, options.backend)
    start = operator.backend.array(field.amplitudes)
    return State(start, operator, options.prior_on(operator, stage), state.weights, operator.predict(start))


def _first_state(
    slices: Slices, stage: Stage, options: SolverOptions, poses: Float[np.ndarray, "n 4 4"] | None
) -> State:
    """No field yet: all pixels are trusted alike, and the noise is taken as a small share of the contrast."""
    if stage.free:
        raise ValueError(f"stage {stage.name!r}: free Gaussians need a field on a lattice to start from")
    poses = identity_poses(slices.n_slices) if poses is None else poses
    operator = _stage_operator(slices, stage, options, poses)
    nothing = operator.backend.array(np.zeros(operator.lattice.shape, np.float32))
    weights = _first_weights(operator)
    return State(nothing, operator, options.prior_on(operator, stage), weights, 0 * operator.pixels.values)


def state_from_field(
    slices: Slices, stage: Stage, options: SolverOptions, field: LatticeField, poses: Float[np.ndarray, "n 4 4"]
) -> State:
    """State at the start of a stage from a field that other slices may have made: all pixels are trusted alike.

    Parameters
    ----------
    slices
        Binned as the stage asks, in the intensities of the field.
    stage
        On a lattice.
    poses
        Of every slice, in the world of the field.
    """
    operator = _stage_operator(slices, stage, options, poses)
    start = operator.backend.array(resampled_amplitudes(field, operator.lattice))
    return State(start, operator, options.prior_on(operator, stage), _first_weights(operator), operator.predict(start))


def _stage_operator(
    slices: Slices, stage: Stage, options: SolverOptions, poses: Float[np.ndarray, "n 4 4"]
) -> LatticeOperator:
    lattice = stage_lattice(slices, poses, stage, options)
    return LatticeOperator(lattice, slices, poses, slice_levels(slices), options.profile, named(options.backend))


def _first_weights(operator: LatticeOperator) -> Weights:
    slices = operator.slices
    inside = slices.values[slices.mask]
    noise = 0.2 * robust_deviation(inside - np.median(inside))
    nobody = np.zeros(slices.n_slices)
    return Weights(operator.pixels.coverage, nobody + 1, noise, noise, nobody)


def advance(stage: Stage, options: SolverOptions, state: State) -> State:
    """Weights and gains from the last prediction, then amplitudes, then motion."""
    if state.has_field:
        state = refit(reweighted(options, state), stage.inner_iterations)
    else:
        state = refit(state, 2 * stage.inner_iterations)
    motion = options.motion_of(stage)
    if motion is None:
        return state
    operator, weights = state.operator, state.weights
    equations = operator.pose_equations(state.amplitudes, operator.pixels.values, weights.pixels)
    return state.moved(motion.moved(state.slices, operator.poses, equations, weights.noise**2))


def reweighted(options: SolverOptions, state: State) -> State:
    """The state with weights and gains from its prediction, and the prediction with those gains."""
    operator = state.operator
    weights = options.loss.weights(operator, state.prediction)
    plain = operator.without_gains(state.prediction)
    operator = operator.with_gains(options.intensity.gains(operator, plain, weights.pixels))
    return replace(state, operator=operator, weights=weights, prediction=operator.with_own_gains(plain))
