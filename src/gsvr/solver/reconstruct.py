"""Slices in, field and poses out: outer iterations of weights, amplitudes and motion, coarse to fine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32
from threadpoolctl import threadpool_limits

from gsvr.masks.consensus import consensus_mask, project_mask
from gsvr.model.bias_field import BiasField
from gsvr.model.fields import LatticeField
from gsvr.model.slices import Slices
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.bias_estimation import first_guess, refined
from gsvr.solver.brightness import field_as_bright_as_slices
from gsvr.solver.checkpoint import Checkpoint
from gsvr.solver.final_field import final_field
from gsvr.solver.gains import levelled
from gsvr.solver.geometry_refinement import refine_geometry
from gsvr.solver.held_out import RIM
from gsvr.solver.lost_slices import poses_with_lost_slices
from gsvr.solver.motion import displacements
from gsvr.solver.noise_floor import noise_floor
from gsvr.solver.outer_iteration import advance, begin_stage, state_from_field
from gsvr.solver.pose_uncertainty import pose_deviations
from gsvr.solver.schedule import SolverOptions, Stage, moving_parts, restart_stages
from gsvr.solver.stack_alignment import first_poses, with_lost_stacks
from gsvr.solver.state import FieldChoice, Result, State, StopReconstruction, Thickness
from gsvr.solver.thickness import estimated_thickness
from gsvr.solver.uncertainty import posterior_deviations


@dataclass(frozen=True, repr=False)
class Progress:
    """What a callback is told after each outer iteration.

    Attributes
    ----------
    stage, iteration
        Which stage, and which of its outer iterations (from 1).
    done, total
        Outer iterations so far and in all; those that a stage did not need count as done.
    state
        The reconstruction as it stands; intensities are scaled by `scale`.
    seconds
        Wall time since the start.
    stage_done
        Whether this was the stage's last outer iteration.
    mask
        Pixels in use (flat, as `Slices.mask`).
    bias
        Coefficients of the stacks' bias fields, see `gsvr.model.bias_field.BiasField`.
    choice, thickness
        What was decided so far, see `gsvr.solver.state.Result`.
    """

    stage: Stage
    iteration: int
    done: int
    total: int
    state: State
    scale: float
    seconds: float
    stage_done: bool
    mask: Bool[np.ndarray, " p"]
    bias: Float[np.ndarray, "stacks 9"]
    choice: FieldChoice | None = None
    thickness: Thickness | None = None

    def __repr__(self) -> str:
        return f"Progress({self.stage.name!r}, {self.done} of {self.total}, {self.state!r})"

    def checkpoint(self) -> Checkpoint:
        """All that `reconstruct` needs to go on from here with the same result, to the bit."""
        kept = Checkpoint.of(self.stage.name, self.iteration, self.stage_done, self.state, self.mask, self.bias)
        return replace(kept, choice=self.choice, thickness=self.thickness)


Callback = Callable[[Progress], None]


@dataclass(frozen=True, repr=False)
class Earlier:
    """What a reconstruction of some of the slices found, for another one to go on from.

    Attributes
    ----------
    field
        What the first stage starts from instead of nothing, in intensities of the input.
    bias
        Of its stacks, see `gsvr.model.bias_field.BiasField.polynomials`.
    choice, thickness
        What it decided, to be taken as it is; None: not decided yet.
    """

    field: LatticeField
    bias: Mapping[str, Float[np.ndarray, " 9"]]
    choice: FieldChoice | None = None
    thickness: Thickness | None = None

    def __repr__(self) -> str:
        return f"Earlier({self.field!r})"


def reconstruct(
    slices: Slices,
    options: SolverOptions | None = None,
    callback: Callback | None = None,
    poses: Float[np.ndarray, "n 4 4"] | None = None,
    poses_are_good: bool = False,
    checkpoint: Checkpoint | None = None,
    earlier: Earlier | None = None,
    sampling: Callable[[int, int], None] | None = None,
) -> Result:
    """Reconstruct a volume from slices.

    Parameters
    ----------
    slices
        The acquisition, see `gsvr.model.slices.slices_from_stacks`.
    options
        Stages and the options of every part.
    callback
        Called after each outer iteration with a `Progress`; may raise `StopReconstruction` to end here with what there
        is, or anything else to give up.
    poses
        First guess, acquired world -> volume world; default: `gsvr.solver.stack_alignment.first_poses`.
    poses_are_good
        Whether to refine the poses given at the finest resolution only, as after another reconstruction: coarse stages
        know them to a few tenths of a millimetre.
    checkpoint
        Go on from a state that was saved by a callback (`Progress.checkpoint`), with the same slices and options.
    earlier
        Go on from what is known of some of these slices. Without `poses` it makes little sense.
    sampling
        Told how many samples of the uncertainty are drawn, and how many there will be, which takes about as long as all
        before; may raise `StopReconstruction` to have those alone.

    Raises
    ------
    ValueError
        If no pixel carries any signal, or the checkpoint is of other slices or options.
    """
    options = options or SolverOptions()
    if poses_are_good:
        if poses is None:
            raise ValueError("poses_are_good needs poses")
        options = replace(options, stages=restart_stages(options.stages))
    # The kernels keep all cores busy by themselves; threads of the linear algebra library would only spin.
    with threadpool_limits(1, "blas"):
        if poses is None:
            poses = first_poses(slices, options.search != "none" and moving_parts(options.stages) != "none")
        return _Reconstruction(slices, options, poses, earlier, sampling).run(callback, checkpoint)


class _Reconstruction:
    """One reconstruction in progress."""

    def __init__(
        self,
        slices: Slices,
        options: SolverOptions,
        poses: Float[np.ndarray, "n 4 4"],
        earlier: Earlier | None = None,
        sampling: Callable[[int, int], None] | None = None,
    ) -> None:
        if len(poses) != slices.n_slices:
            raise ValueError(f"{len(poses)} poses for {slices.n_slices} slices: give one a slice")
        self._started = time.perf_counter()
        self._slices, self._options, self._poses, self._earlier = slices, options, poses, earlier
        self._sampling = sampling
        self._floor = noise_floor(slices)
        self._levelled, self._levels, self._scale = levelled(replace(slices, values=slices.values - self._floor))
        self._scaled, self._bias = self._levelled, BiasField.none(slices)
        self._choice: FieldChoice | None = None
        self._thickness: Thickness | None = None
        if options.bias is not None:
            self._set_bias(first_guess(self._bias, self._levelled, options.bias))
        if earlier is not None and options.bias is not None:
            self._set_bias(self._bias.with_polynomials(slices, earlier.bias))
        if earlier is not None and options.estimate_thickness:
            self._set_thickness(earlier.thickness)

    def run(self, callback: Callback | None, checkpoint: Checkpoint | None) -> Result:
        """All stages, or those that a checkpoint leaves to be done."""
        stages, state = self._options.stages, None
        first = 0 if checkpoint is None else checkpoint.stage_of(stages)
        total, done = sum(stage.outer_iterations for stage in stages), 0
        for number, stage in enumerate(stages):
            done += stage.outer_iterations
            if number < first:
                continue
            if checkpoint is not None and number == first:
                state, iteration, finished = (
                    self._restored(stage, checkpoint),
                    checkpoint.iteration,
                    checkpoint.finished,
                )
            else:
                if stage.alternative is not None and state is not None and self._thickness is None:
                    state = self._with_thickness(stages[number - 1], state)
                state, iteration = self._begun(stage, state)
                finished = False
            if stage.alternative is not None and isinstance(state.operator, LatticeOperator):
                stage = stage.alternative
            while not finished:
                iteration += 1
                state, finished = self._advanced(stage, iteration, state)
                if callback:
                    left = 0 if finished else stage.outer_iterations - iteration
                    seconds = time.perf_counter() - self._started
                    mask = self._scaled.mask
                    bias = self._bias.coefficients
                    told = Progress(
                        *(stage, iteration, done - left, total, state, self._scale, seconds, finished, mask, bias),
                        choice=self._choice,
                        thickness=self._thickness,
                    )
                    try:
                        callback(told)
                    except StopReconstruction:
                        return self._result(state)
            if number == 0 and stage.motion == "stacks":
                state = with_lost_stacks(stage, self._options, state)
                self._correct_bias(state)
            elif not stage.free and number < len(stages) - 1:
                self._correct_bias(state)
                if stage.motion == "slices" and stage.consensus_mask:
                    state = self._with_lost_slices(state)
        assert state is not None  # there is a stage, see `SolverOptions`
        return self._result(state)

    def _with_lost_slices(self, state: State) -> State:
        """The state with slices that went astray where they fit better, and the pixels that they show there."""
        options, given = self._options, self._slices.mask
        mask = consensus_mask(self._scaled, given, state.poses, options.masks, options.profile)
        poses = poses_with_lost_slices(state, self._scaled.with_mask(given), mask, options)
        moved = (poses != state.poses).any(axis=(1, 2))
        if not moved.any():
            return state
        inside = project_mask(mask, self._scaled, poses, options.masks.margin)
        self._scaled = self._scaled.with_mask(np.where(self._scaled.per_pixel(moved), inside, self._scaled.mask))
        return state.moved(poses)

    def _correct_bias(self, state: State) -> None:
        """Even out the brightness of stacks, by what the residuals of a state say."""
        if self._options.bias is not None:
            self._set_bias(refined(self._bias, state, self._options.bias))

    def _set_bias(self, bias: BiasField) -> None:
        self._bias = bias
        self._scaled = replace(self._scaled, values=self._levelled.values / bias.at(self._levelled))

    def _with_thickness(self, stage: Stage, state: State) -> State:
        """Correct thickness and profile of slices where they are not what they look like, and poses by those.

        Parameters
        ----------
        stage
            The one that ended with the state, which is then done once more.
        """
        options, slices = self._options, self._scaled
        if not (options.estimate_thickness and state.has_field and isinstance(state.operator, LatticeOperator)):
            return state
        mask = consensus_mask(slices, self._slices.mask, state.poses, options.masks, options.profile)
        inner = slices.with_mask(project_mask(mask, slices, state.poses, -RIM)).binned(stage.binning).mask
        self._set_thickness(estimated_thickness(slices.binned(stage.binning), inner, stage, options, state))
        if self._thickness is None or not self._thickness.used:
            return state
        state = begin_stage(self._scaled.binned(stage.binning), stage, self._options, state)
        for iteration in range(1, stage.outer_iterations + 1):
            state, finished = self._advanced(stage, iteration, state)
            if finished:
                break
        return state

    def _set_thickness(self, thickness: Thickness | None) -> None:
        self._thickness = thickness
        if thickness is not None and thickness.used:
            self._scaled = replace(self._scaled, thicknesses=thickness.factor * self._slices.thicknesses)
            self._options = replace(self._options, profile=thickness.profile(self._options.profile))

    def _begun(self, stage: Stage, state: State | None) -> tuple[State, int]:
        """The first state of a stage, and how many of its outer iterations that took."""
        poses, inner = self._poses if state is None else state.poses, self._scaled.mask
        if stage.consensus_mask and not (state is None and self._earlier is None):
            options = self._options
            mask = consensus_mask(self._scaled, self._slices.mask, poses, options.masks, options.profile)
            inside = project_mask(mask, self._scaled, poses, options.masks.margin)
            if stage.alternative is not None:
                inner = project_mask(mask, self._scaled, poses, -RIM)
            self._scaled = self._scaled.with_mask(inside)
        binned = self._scaled.binned(stage.binning)
        earlier = self._earlier
        if state is None and earlier is not None:
            field = replace(earlier.field, amplitudes=earlier.field.amplitudes / np.float32(self._scale))
            return state_from_field(binned, stage, self._options, field, poses), 0
        if stage.alternative is not None and state is not None and state.has_field:
            deep = self._scaled.with_mask(inner).binned(stage.binning).mask
            known = None if earlier is None else earlier.choice
            state, self._choice = final_field(binned, deep, stage, self._options, state, known)
            goes_on = stage.alternative if isinstance(state.operator, LatticeOperator) else stage
            return state, goes_on.trial_iterations
        return begin_stage(binned, stage, self._options, state, self._poses), 0

    def _restored(self, stage: Stage, checkpoint: Checkpoint) -> State:
        """The state that was saved."""
        self._scaled = self._scaled.with_mask(checkpoint.checked_mask(self._scaled))
        self._choice = checkpoint.choice
        self._set_thickness(checkpoint.thickness)
        self._set_bias(replace(self._bias, coefficients=checkpoint.checked_bias(self._scaled)))
        return checkpoint.state(self._scaled.binned(stage.binning), self._options, stage)

    def _advanced(self, stage: Stage, iteration: int, state: State) -> tuple[State, bool]:
        """The state after an outer iteration, and whether it was the stage's last."""
        options, before, last = self._options, state.poses, iteration == stage.outer_iterations
        if last and stage.geometry_steps:
            state = refine_geometry(
                state, stage.geometry_steps, options.refinement, options.neighbours, options.seeds.level
            )
        state = advance(stage, options, state)
        if stage.motion == "none":
            return state, last
        moved = float(np.median(displacements(state.slices, before, state.poses)))
        return state, last or bool(moved < stage.settled * stage.spacing)

    def _result(self, state: State) -> Result:
        """Undo the intensity scales: one of all slices, and the levels of their stacks (mean one)."""
        options, scale, levels = self._options, np.float32(self._scale), self._levels
        mask = consensus_mask(self._scaled, self._slices.mask, state.poses, options.masks, options.profile)
        deviations = posterior_deviations(state, options.uncertainty_samples, options.seed, self._sampling)
        prediction, uneven = self._prediction(state), self._bias.at(self._slices)
        return Result(
            field=field_as_bright_as_slices(state).scaled(self._scale),
            slices=replace(self._slices.with_mask(self._scaled.mask), thicknesses=self._scaled.thicknesses),
            mask=mask,
            poses=state.poses,
            pose_deviations=pose_deviations(state),
            gains=state.gains * levels,
            slice_weights=np.where(self._scaled.sum_per_slice(self._scaled.mask) > 0, state.weights.slices, 0.0),
            noise=state.weights.noise * self._scale,
            residuals=state.weights.residuals * self._scale * levels,
            prediction=prediction * scale * self._slices.per_pixel(levels.astype(np.float32)) * uneven + self._floor,
            profile=options.profile,
            bias=self._bias,
            choice=self._choice,
            thickness=self._thickness,
            deviations=tuple(part.scaled(self._scale) for part in deviations),
        )

    def _prediction(self, state: State) -> Float32[np.ndarray, " p"]:
        """Of the signal of all pixels, on the host, in the intensities of the stages."""
        operator, prediction = state.operator, state.prediction
        if state.slices.binning != self._scaled.binning:
            prediction = operator.with_slices(self._scaled).predict(state.amplitudes)
        own = operator.backend.host(prediction)
        if state.partner is None:
            return own
        return np.float32(1 - state.share) * self._prediction(state.partner) + np.float32(state.share) * own
