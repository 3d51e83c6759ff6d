"""Stages on the host or on a device: the one place where the solver asks which."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from gsvr.backends import on_device
from gsvr.masks.consensus import agreed_mask, project_mask
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.solver.free_rounds import FreeState, advance_free, begin_free_stage
from gsvr.solver.geometry_refinement import refine_geometry
from gsvr.solver.motion import displacements
from gsvr.solver.rounds import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State


@runtime_checkable
class StageRounds(Protocol):
    """A stage in progress."""

    def advance(self) -> float:
        """One round; how far (mm) the typical slice has moved in it."""
        ...

    def state(self) -> State:
        """The reconstruction as it stands."""
        ...


@runtime_checkable
class Stages(Protocol):
    """Everything about stages that a host or a device does in its own way.

    Attributes
    ----------
    predicts_every_pixel
        Whether states predict pixels outside the mask, too.
    """

    predicts_every_pixel: bool

    def agreed_mask(self, slices: Slices, votes: np.ndarray, poses: np.ndarray) -> Volume:
        """Brain mask in volume world that the slices agree on."""
        ...

    def project_mask(self, mask: Volume, slices: Slices, poses: np.ndarray) -> np.ndarray:
        """Pixels of every slice that lie within the margin of a mask."""
        ...

    def binned(self, slices: Slices, factor: int) -> Slices:
        """Average pixels inside the mask."""
        ...

    def begin(self, slices: Slices, stage: Stage, state: State | None, poses: np.ndarray) -> StageRounds:
        """Start the rounds of a stage."""
        ...


class HostRounds:
    """Rounds by `gsvr.solver.rounds.advance`, on a lattice, or with free Gaussians by `advance_free`."""

    def __init__(self, slices: Slices, stage: Stage, options: SolverOptions, state: State) -> None:
        self._slices, self._stage, self._options, self._state = slices, stage, options, state
        self._rounds = 0

    def advance(self) -> float:
        """One round; how far (mm) the typical slice has moved in it."""
        before = self._state.poses
        self._rounds += 1
        if isinstance(self._state, FreeState):
            if self._rounds == self._stage.rounds > 1:
                self._state = refine_geometry(self._slices, self._state, self._options, self._stage.geometry_steps)
            self._state = advance_free(self._slices, self._stage, self._options, self._state)
            return 0.0
        self._state = advance(self._slices, self._stage, self._options, self._state)
        return float(np.median(displacements(self._slices, before, self._state.poses)))

    def state(self) -> State:
        """The reconstruction as it stands."""
        return self._state


def begin_on_host(
    slices: Slices, stage: Stage, options: SolverOptions, state: State | None, poses: np.ndarray
) -> State:
    """State at the start of a stage, on its lattice or with free Gaussians.

    Raises
    ------
    ValueError
        If there can be no such stage, see `check_stage`.
    """
    check_stage(stage, state)
    if stage.free and state is not None:
        return begin_free_stage(slices, stage, options, state)
    return begin_stage(slices, stage, options, state, poses)


def check_stage(stage: Stage, state: State | None) -> None:
    """See to it that a stage can begin.

    Raises
    ------
    ValueError
        If the first stage, or one with motion, is to have free Gaussians; or if the geometry is to be refined of
        Gaussians that are not free or in a stage of one round.
    """
    if stage.geometry_steps and not (stage.free and stage.rounds > 1):
        raise ValueError(f"stage {stage.name!r}: geometry steps need free Gaussians, and a round before and after")
    if stage.free and (state is None or stage.motion != "none"):
        raise ValueError(f"stage {stage.name!r}: free Gaussians need a field on a lattice to start from, and no motion")


class HostStages:
    """What happens on the host between rounds; `gsvr.device_solver.device_stages` does the same on a device."""

    predicts_every_pixel = True

    def __init__(self, options: SolverOptions) -> None:
        self._options = options

    def agreed_mask(self, slices: Slices, votes: np.ndarray, poses: np.ndarray) -> Volume:
        """See `gsvr.masks.consensus.agreed_mask`."""
        options = self._options
        return agreed_mask(slices, votes, poses, options.masks, options.profile, options.backend)

    def project_mask(self, mask: Volume, slices: Slices, poses: np.ndarray) -> np.ndarray:
        """See `gsvr.masks.consensus.project_mask`."""
        return project_mask(mask, slices, poses, self._options.masks.margin)

    def binned(self, slices: Slices, factor: int) -> Slices:
        """See `gsvr.model.slices.Slices.binned`."""
        return slices.binned(factor)

    def begin(self, slices: Slices, stage: Stage, state: State | None, poses: np.ndarray) -> StageRounds:
        """Start the rounds of a stage."""
        return HostRounds(slices, stage, self._options, begin_on_host(slices, stage, self._options, state, poses))


def stages_of(options: SolverOptions) -> Stages:
    """Stages where the options say: on a PyTorch device or on the host."""
    if not on_device(options.backend):
        return HostStages(options)
    import torch

    from gsvr.device_solver.device_stages import DeviceStages

    return DeviceStages(options, torch.device(options.backend))
