"""Rounds of one stage, on the host or on a device: the one place where the solver asks which."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from gsvr.acquisition import Slices
from gsvr.kernels import on_device
from gsvr.solver.motion import displacements
from gsvr.solver.rounds import advance
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

    def finish(self) -> State:
        """The same, for the stage to come."""
        ...


class HostRounds:
    """Rounds by `gsvr.solver.rounds.advance`."""

    def __init__(self, slices: Slices, stage: Stage, options: SolverOptions, state: State) -> None:
        self._slices, self._stage, self._options, self._state = slices, stage, options, state

    def advance(self) -> float:
        """One round; how far (mm) the typical slice has moved in it."""
        before = self._state.poses
        self._state = advance(self._slices, self._stage, self._options, self._state)
        return float(np.median(displacements(self._slices, before, self._state.poses)))

    def state(self) -> State:
        """The reconstruction as it stands."""
        return self._state

    finish = state


def stage_rounds(slices: Slices, stage: Stage, options: SolverOptions, state: State) -> StageRounds:
    """Start the rounds of a stage where the options say: a PyTorch device or the host."""
    if not on_device(options.backend):
        return HostRounds(slices, stage, options, state)
    import torch

    from gsvr.device_solver.device_rounds import DeviceStage

    return DeviceStage(slices, stage, options, state, torch.device(options.backend))
