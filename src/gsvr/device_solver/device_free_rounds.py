"""Rounds with free Gaussians on a device: `gsvr.solver.free_rounds.advance_free` without a trip to the host."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.backends.torch.gaussians import DeviceGaussianKernel
from gsvr.backends.views import slice_views
from gsvr.device_solver.device_field import DeviceField
from gsvr.device_solver.device_free_amplitudes import FreeConjugateGradients
from gsvr.device_solver.device_neighbour_search import DevicePairs, find_pairs
from gsvr.device_solver.device_neighbours import DeviceNeighbours
from gsvr.device_solver.device_operator import GainedOperator
from gsvr.device_solver.device_rounds import DeviceChoices
from gsvr.device_solver.device_seeding import seed_from_lattice
from gsvr.device_solver.device_slices import DeviceSlices
from gsvr.device_solver.device_weights import DeviceWeights, fit_gains, robust_weights
from gsvr.model.fields import GaussianField, Lattice
from gsvr.model.point_spread import point_spread
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator
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
        self._begun, self._graphs = state, choices.graphs
        kernel = DeviceGaussianKernel(field, views, device, choices.gaussians, options.deterministic, slices.mask)
        self.weights = DeviceWeights.of(state.weights, slices, self.slices)
        self._weighs = bool(state.amplitudes.any())
        self._moved = False
        self._set_pairs(pairs or DevicePairs.of(state.neighbours, device))
        self._use(
            replace(DeviceField.of(field, device), amplitudes=torch.as_tensor(state.amplitudes).to(device)),
            GainedOperator(kernel, self.slices, state.gains),
        )

    def _use(self, field: DeviceField, operator: GainedOperator[DeviceGaussianKernel]) -> None:
        """Start from these Gaussians, which the operator is for."""
        self._field, self.operator = field, operator
        self.amplitudes = field.amplitudes
        self.prediction = operator.predict(field.amplitudes)
        self._diagonal: Float32[Tensor, " n"] | None = None
        self.solver = FreeConjugateGradients(operator, self.neighbours, self._graphs)

    def _set_pairs(self, pairs: DevicePairs) -> None:
        self._pairs = pairs
        self.neighbours = DeviceNeighbours(pairs, self._begun.level, self.options.neighbours)

    @property
    def field(self) -> DeviceField:
        """The Gaussians as they stand."""
        return replace(self._field, amplitudes=self.amplitudes)

    def place(self, field: DeviceField, pairs: DevicePairs | None = None) -> None:
        """Go on with other Gaussians, at the same weights and gains; asks the device for lengths of lists.

        Parameters
        ----------
        pairs
            Their neighbours; default: the same as before, for as many Gaussians.
        """
        if pairs is not None:
            self._set_pairs(pairs)
        kernel = self.operator.kernel.with_gaussians(field.means, field.log_scales, field.quaternions)
        self._moved = True
        self._use(field, GainedOperator(kernel, self.slices, self.operator.gains))

    def advance(self) -> float:
        """One round; nothing moves in it."""
        self.round()
        return 0.0

    def round(self) -> None:
        """One round of weights, gains and amplitudes; nothing waits for the device."""
        options, operator, slices = self.options, self.operator, self.slices
        if self._weighs:
            self.weights = robust_weights(slices, self.prediction, options.weights)
            plain = self.prediction / operator.pixel_gains
            operator.set_gains(fit_gains(slices, plain, self.weights.pixels, options.weights))
            self.prediction = plain * operator.pixel_gains
        self._weighs = True
        self.solve(self.stage.iterations)

    def solve(self, iterations: int) -> None:
        """Better amplitudes at the present weights and gains; nothing waits for the device."""
        options, operator = self.options, self.operator
        self.neighbours.reweight(self.amplitudes)
        strength = (options.neighbours.strength * self.weights.white_noise**2).to(torch.float32)
        if self._diagonal is None:
            self._diagonal = operator.diagonal(self.weights.pixels)
        self.neighbours.prepare(self._diagonal, strength)
        self.amplitudes, self.prediction = self.solver.solve(
            self.slices.values, self.weights.pixels, strength, self.amplitudes, self.prediction, iterations
        )

    def state(self) -> FreeState:
        """A copy on the host; pixels of tiles (`gsvr.backends.torch.lattice_tiles`) outside of the mask are predicted as zero."""
        begun, options, gains = self._begun, self.options, self.operator.gains.cpu().double().numpy()
        operator, neighbours = begun.operator.with_gains(gains), begun.neighbours
        if self._moved:
            field, neighbours = self.field.on_host(), self._pairs.on_host()
            operator = AcquisitionOperator(field, operator.slices, begun.poses, gains, options.profile, options.backend)
        return replace(
            begun,
            amplitudes=self.amplitudes.cpu().numpy(),
            operator=operator,
            neighbours=neighbours,
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
    seeds = seed_from_lattice(amplitudes, lattice, state.weights.white_noise, options.seeds_of(stage))
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
