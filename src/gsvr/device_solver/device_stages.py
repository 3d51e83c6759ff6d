"""Between the rounds of a device: masks, binning, lattices; what `gsvr.solver.stages.HostStages` is on the host.

Slices and fields go back and forth as arrays of the host here, a few milliseconds a stage.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gsvr.device_solver import device_binning, device_lattice, device_masks
from gsvr.device_solver.device_free_rounds import begin_free_stage
from gsvr.device_solver.device_geometry_refinement import RefinedRounds
from gsvr.device_solver.device_rounds import DeviceChoices, DeviceStage
from gsvr.device_solver.pixel_grid import PixelGrid, placed_pixels
from gsvr.model.fields import Lattice
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.rounds import begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.stages import StageRounds, check_stage
from gsvr.solver.state import State


class DeviceStages:
    """Stages on a device."""

    predicts_every_pixel = False

    def __init__(self, options: SolverOptions, device: torch.device, choices: DeviceChoices | None = None) -> None:
        self._options, self._device, self._choices = options, device, choices

    def agreed_mask(self, slices: Slices, votes: np.ndarray, poses: np.ndarray) -> Volume:
        """Brain mask in volume world that the slices agree on."""
        return device_masks.agreed_mask(slices, votes, poses, self._options, self._device)

    def project_mask(self, mask: Volume, slices: Slices, poses: np.ndarray) -> np.ndarray:
        """Pixels of every slice that lie within the margin of a mask."""
        return device_masks.project_mask(mask, slices, poses, self._options.masks.margin, self._device)

    def binned(self, slices: Slices, factor: int) -> Slices:
        """Average pixels inside the mask."""
        return device_binning.binned(slices, factor, self._device)

    def begin(self, slices: Slices, stage: Stage, state: State | None, poses: np.ndarray) -> StageRounds:
        """Start the rounds of a stage: the previous field on the new lattice."""
        options = self._options
        check_stage(stage, state)
        if state is None:
            first = begin_stage(slices, stage, options, None, poses)
            return DeviceStage(slices, stage, options, first, self._device, self._choices)
        lattice = self._lattice(slices, stage, state.poses)
        amplitudes = device_lattice.refined_amplitudes(state.lattice_field, lattice, self._device)
        if stage.free:
            running = begin_free_stage(slices, stage, options, state, lattice, amplitudes, self._choices)
            return RefinedRounds(running) if stage.geometry_steps else running
        operator = AcquisitionOperator(lattice, slices, state.poses, state.gains, options.profile, options.backend)
        # the stage predicts for itself
        begun = replace(state, amplitudes=amplitudes.cpu().numpy(), operator=operator, diagonal=None)
        return DeviceStage(slices, stage, options, begun, self._device, self._choices)

    def _lattice(self, slices: Slices, stage: Stage, poses: np.ndarray) -> Lattice:
        """See `gsvr.solver.rounds.stage_lattice`."""
        chosen = torch.as_tensor(np.flatnonzero(slices.mask)).to(self._device)
        placed = placed_pixels(slices, poses, PixelGrid.of(slices.shapes, self._device), chosen)
        margin, sigma = max(self._options.margin, stage.spacing), stage.sigma_ratio * stage.spacing
        return device_lattice.lattice_covering(placed, stage.spacing, sigma, margin, self._options.gap)
