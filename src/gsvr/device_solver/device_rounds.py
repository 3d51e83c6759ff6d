"""Rounds of a stage on a device: `gsvr.solver.rounds.advance` without a trip to the host.

Between stages, and for callbacks, the state is copied to the host (`DeviceStage.state`). After a round the host asks
for one number, how far the slices have moved, since that decides whether the stage is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.device_solver.device_amplitudes import ConjugateGradients
from gsvr.device_solver.device_motion import (
    displacements,
    moved_poses,
    pose_normal_equations,
    solve_stack_steps,
    solve_steps,
)
from gsvr.device_solver.device_operator import DeviceOperator
from gsvr.device_solver.device_prior import DevicePrior
from gsvr.device_solver.device_slices import DeviceSlices
from gsvr.device_solver.device_weights import DeviceWeights, fit_gains, robust_weights
from gsvr.device_solver.order_statistics import median
from gsvr.model.slices import Slices
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State


@dataclass(frozen=True)
class DeviceChoices:
    """How the device is used.

    Attributes
    ----------
    tiles, prior, gaussians
        Modules of kernels (`gsvr.backends.triton.lattice`, `gsvr.backends.triton.bonds`,
        `gsvr.backends.triton.gaussians`, or their plain twins); None: Triton on CUDA devices, plain PyTorch elsewhere.
    graphs
        Record conjugate gradients as CUDA graphs.
    """

    tiles: ModuleType | None = None
    prior: ModuleType | None = None
    gaussians: ModuleType | None = None
    graphs: bool = True


class DeviceStage:
    """One stage on a device, from the state in which it starts.

    Parameters
    ----------
    slices, stage, options, state
        As for `gsvr.solver.rounds.advance`.
    """

    def __init__(
        self,
        slices: Slices,
        stage: Stage,
        options: SolverOptions,
        state: State,
        device: torch.device,
        choices: DeviceChoices | None = None,
    ) -> None:
        choices = choices or DeviceChoices()
        self.stage, self.options = stage, options
        self.slices = DeviceSlices.of(slices, device)
        self.operator = DeviceOperator(state.operator, self.slices, choices.tiles, options.deterministic, slices.mask)
        lattice = state.operator.lattice
        self.prior = DevicePrior(lattice, options.prior.edge, device, choices.prior)
        self.solver = ConjugateGradients(self.operator, self.prior, choices.graphs)
        self.amplitudes = torch.as_tensor(state.amplitudes).to(device)
        self.prediction = self.operator.predict(self.amplitudes)
        self.weights = DeviceWeights.of(state.weights, slices, self.slices)
        self._host_operator = state.operator
        self._diagonal: Float32[Tensor, "nx ny nz"] | None = None
        self._first = not state.amplitudes.any()

    def advance(self) -> float:
        """One round; how far (mm) the typical slice has moved in it."""
        before = self.operator.poses
        self.round()
        return float(median(displacements(self.slices, before, self.operator.poses)))

    def round(self) -> None:
        """One round of weights, gains, amplitudes and motion; nothing waits for the device."""
        options, operator, slices = self.options, self.operator, self.slices
        first, prediction = self._first, self.prediction
        if not first:
            self.weights = robust_weights(slices, prediction, options.weights)
            plain = prediction / operator.pixel_gains
            operator.set_gains(fit_gains(slices, plain, self.weights.pixels, options.weights))
            prediction = plain * operator.pixel_gains
        self._first = False
        self.prior.reweight(self.amplitudes)
        strength = (options.prior.strength * self.weights.white_noise**2).to(torch.float32)
        iterations = self.stage.iterations * (2 if first else 1)
        if self._diagonal is None:
            self._diagonal = operator.diagonal(self.weights.pixels)
        self.amplitudes, self.prediction = self.solver.solve(
            slices.values, self.weights.pixels, strength, self.amplitudes, prediction, iterations, self._diagonal
        )
        if self.stage.motion != "none":
            self._move()

    def _move(self) -> None:
        """One Gauss-Newton step of all stacks or slices."""
        operator, slices, motion = self.operator, self.slices, self.options.motion
        prediction, jacobian = operator.pose_derivatives(self.amplitudes)
        equations = pose_normal_equations(slices, slices.values - prediction, jacobian, self.weights.pixels)
        if self.stage.motion == "stacks":
            poses = solve_stack_steps(slices, operator.poses, equations, motion)
        else:
            steps = solve_steps(slices, operator.poses, equations, self.weights.noise**2, motion)
            poses = moved_poses(slices, operator.poses, steps)
        operator.set_poses(poses)
        self._diagonal = None
        self.prediction = operator.predict(self.amplitudes)

    def state(self) -> State:
        """A copy on the host; pixels of tiles (`gsvr.backends.torch.lattice_tiles`) outside of the mask are predicted as zero."""
        poses = self.operator.poses.cpu().double().numpy()
        operator = self._host_operator.with_poses(poses).with_gains(self.operator.gains.cpu().double().numpy())
        diagonal = None if self._diagonal is None else self._diagonal.cpu().numpy()
        weights = self.weights.on_host()
        return State(self.amplitudes.cpu().numpy(), operator, weights, self.prediction.cpu().numpy(), diagonal)
