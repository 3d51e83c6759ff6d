"""Rounds with free Gaussians on a device: `gsvr.solver.free_rounds.advance_free` without a trip to the host."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.acquisition import Slices
from gsvr.device_solver.device_free_amplitudes import FreeConjugateGradients
from gsvr.device_solver.device_neighbour_search import DevicePairs, find_pairs
from gsvr.device_solver.device_neighbours import DeviceNeighbours
from gsvr.device_solver.device_operator import GainedOperator
from gsvr.device_solver.device_rounds import DeviceChoices
from gsvr.device_solver.device_seeding import seed_from_lattice
from gsvr.device_solver.device_slices import DeviceSlices
from gsvr.device_solver.device_weights import DeviceWeights, fit_gains, robust_weights
from gsvr.field import GaussianField, Lattice
from gsvr.forward import AcquisitionOperator
from gsvr.kernels.gaussian_tiled import DeviceGaussianKernel
from gsvr.kernels.gaussian_views import slice_views
from gsvr.psf import point_spread
from gsvr.solver.free_rounds import FreeState
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State


class DeviceFreeStage:
    """The stage with free Gaussians on a device, from the state in which it starts.

    Parameters
    ----------
    slices, stage, options, state
        As for `gsvr.solver.free_rounds.advance_free`.
    pairs
        The state's neighbours, where they are on the device already.
    """

    def __init__(
        self,
        slices: Slices,
        stage: Stage,
        options: SolverOptions,
        state: FreeState,
        device: torch.device,
        choices: DeviceChoices | None = None,
        pairs: DevicePairs | None = None,
    ) -> None:
        choices = choices or DeviceChoices()
        field = state.operator.primitives
        assert isinstance(field, GaussianField)
        self.stage, self.options = stage, options
        self.slices = DeviceSlices.of(slices, device)
        spread = point_spread(slices.spacings, slices.thicknesses, options.profile, slices.binning)
        views = slice_views(slices, state.poses, spread)
        kernel = DeviceGaussianKernel(field, views, device, choices.gaussians, options.deterministic, slices.mask)
        self.operator = GainedOperator(kernel, self.slices, state.gains)
        pairs = pairs or DevicePairs.of(state.neighbours, device)
        self.neighbours = DeviceNeighbours(pairs, state.level, options.neighbours)
        self.solver = FreeConjugateGradients(self.operator, self.neighbours, choices.graphs)
        self.amplitudes = torch.as_tensor(state.amplitudes).to(device)
        self.prediction = self.operator.predict(self.amplitudes)
        self.weights = DeviceWeights.of(state.weights, slices, self.slices)
        self._diagonal: Float32[Tensor, " n"] | None = None
        self._begun = state
        self._weighs = bool(state.amplitudes.any())

    def advance(self) -> float:
        """One round; nothing moves in it."""
        self.round()
        return 0.0

    def round(self) -> None:
        """One round of weights, gains and amplitudes; nothing waits for the device."""
        options, operator, slices, prediction = self.options, self.operator, self.slices, self.prediction
        if self._weighs:
            self.weights = robust_weights(slices, prediction, options.weights)
            plain = prediction / operator.pixel_gains
            operator.set_gains(fit_gains(slices, plain, self.weights.pixels, options.weights))
            prediction = plain * operator.pixel_gains
        self._weighs = True
        self.neighbours.reweight(self.amplitudes)
        strength = (options.neighbours.strength * self.weights.white_noise**2).to(torch.float32)
        if self._diagonal is None:
            self._diagonal = operator.diagonal(self.weights.pixels)
        self.neighbours.prepare(self._diagonal, strength)
        self.amplitudes, self.prediction = self.solver.solve(
            slices.values, self.weights.pixels, strength, self.amplitudes, prediction, self.stage.iterations
        )

    def state(self) -> FreeState:
        """A copy on the host; pixels of tiles (`gsvr.kernels.tiles`) outside of the mask are predicted as zero."""
        begun = self._begun
        return replace(
            begun,
            amplitudes=self.amplitudes.cpu().numpy(),
            operator=begun.operator.with_gains(self.operator.gains.cpu().double().numpy()),
            weights=self.weights.on_host(),
            prediction=self.prediction.cpu().numpy(),
            diagonal=None if self._diagonal is None else self._diagonal.cpu().numpy(),
        )


def begin_free_stage(
    slices: Slices,
    stage: Stage,
    options: SolverOptions,
    state: State,
    lattice: Lattice,
    amplitudes: Float32[Tensor, "nx ny nz"],
    choices: DeviceChoices | None = None,
) -> DeviceFreeStage:
    """Free Gaussians where the previous field has its edges, and their neighbours, on the device of the amplitudes.

    Parameters
    ----------
    slices, stage, options, state
        As for `gsvr.solver.free_rounds.begin_free_stage`.
    lattice, amplitudes
        The previous field on this stage's lattice.
    """
    seeds = seed_from_lattice(amplitudes, lattice, state.weights.white_noise, options.seeds)
    pairs = find_pairs(seeds.means, seeds.log_scales, options.neighbours.count)
    field = seeds.on_host()
    begun = FreeState(
        amplitudes=field.amplitudes,
        operator=AcquisitionOperator(field, slices, state.poses, state.gains, options.profile, options.backend),
        weights=state.weights,
        prediction=state.prediction,  # of another field: the stage predicts for itself
        neighbours=pairs.on_host(),
        level=options.seeds.level,
    )
    return DeviceFreeStage(slices, stage, options, begun, amplitudes.device, choices, pairs)
