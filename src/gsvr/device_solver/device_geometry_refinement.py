"""Optimising the geometry of free Gaussians on a device, as `gsvr.solver.geometry_refinement` does and explains.

Every step lists the splats of the moved Gaussians anew, which asks the device for the lengths of its lists.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.device_solver.device_field import DeviceField
from gsvr.device_solver.device_free_rounds import DeviceFreeStage
from gsvr.device_solver.device_neighbour_search import find_pairs
from gsvr.device_solver.order_statistics import median
from gsvr.solver.adamw import EPSILON, MEMORY, MOMENTUM
from gsvr.solver.schedule import RefinementOptions
from gsvr.solver.state import State


class RefinedRounds:
    """The rounds of a stage with free Gaussians whose geometry is optimised before the last of them."""

    def __init__(self, running: DeviceFreeStage) -> None:
        self.running = running
        self._rounds = 0

    def advance(self) -> float:
        """One round; no slice moves in it."""
        self._rounds += 1
        if self._rounds == self.running.stage.rounds:
            refine_geometry(self.running, self.running.stage.geometry_steps)
        return self.running.advance()

    def state(self) -> State:
        """A copy on the host."""
        return self.running.state()


class GeometrySteps:
    """Steps of AdamW on means, log-scales and quaternions of a field; the field given stays as it is.

    Parameters
    ----------
    steps
        How many there will be: rates are halved after half of them.
    """

    def __init__(self, field: DeviceField, options: RefinementOptions, steps: int) -> None:
        self._means, self._log_scales, self._quaternions = (
            part.clone() for part in (field.means, field.log_scales, field.quaternions)
        )
        self._floor, self._ceiling = field.log_scales.min(), field.log_scales.max()
        typical = float(median(field.log_scales.flatten()).exp())
        rates = (options.mean_rate * typical, options.scale_rate, options.quaternion_rate)
        groups = [
            {"params": [part], "lr": rate}
            for part, rate in zip((self._means, self._log_scales, self._quaternions), rates, strict=True)
        ]
        self._optimiser = torch.optim.AdamW(groups, betas=(MOMENTUM, MEMORY), eps=EPSILON, weight_decay=0.0)
        self._halving = torch.optim.lr_scheduler.StepLR(self._optimiser, max(steps // 2, 1), gamma=0.5)

    def moved(self, field: DeviceField, means: Tensor, covariances: Tensor) -> DeviceField:
        """The field after one step against the gradients by its means and covariances."""
        by_scale, by_quaternion = field.shape_gradient(covariances)
        self._means.grad, self._log_scales.grad, self._quaternions.grad = (
            part.float() for part in (means, by_scale, by_quaternion)
        )
        self._optimiser.step()
        self._halving.step()
        self._log_scales.clamp_(self._floor, self._ceiling)
        # copies: the next step changes these in place
        return replace(
            field,
            means=self._means.clone(),
            log_scales=self._log_scales.clone(),
            quaternions=self._quaternions.clone(),
        )


def refine_geometry(running: DeviceFreeStage, steps: int) -> None:
    """Move, stretch and turn the Gaussians of a stage; then split and prune, if the options say so.

    Parameters
    ----------
    running
        After at least one round: its weights are used.
    steps
        Steps of AdamW; without any nothing changes.
    """
    if steps == 0:
        return
    options = running.options.refinement
    optimiser = GeometrySteps(running.field, options, steps)
    for step in range(1, steps + 1):
        operator = running.operator
        pixels = operator.pixel_gains * running.weights.pixels * residual(running)
        means, covariances, _ = operator.kernel.gradient(running.amplitudes, pixels)
        running.place(optimiser.moved(running.field, means, covariances))
        if step % options.amplitudes_every == 0:
            running.solve(options.iterations)
    field = running.field
    if options.split_share > 0 or options.prune_below > 0:
        field = split_and_pruned(running)
    running.place(field, find_pairs(field.means, field.log_scales, running.options.neighbours.count))


def residual(running: DeviceFreeStage) -> Float32[Tensor, " p"]:
    """Prediction minus pixels."""
    return running.prediction - running.slices.values


def split_and_pruned(running: DeviceFreeStage) -> DeviceField:
    """Without Gaussians that do next to nothing, and with two in place of those where residuals are largest."""
    options, weights, operator = running.options.refinement, running.weights, running.operator
    diagonal = operator.diagonal(weights.pixels)
    share = diagonal.sqrt() * running.amplitudes.abs() / weights.white_noise
    keep = share >= options.prune_below
    energy = operator.diagonal(weights.pixels * residual(running) ** 2) / diagonal.clamp(min=1e-6)
    # where hardly any pixel looks, there is nothing to split by
    energy = energy.masked_fill(~keep | (diagonal < 0.1 * median(diagonal)), 0)
    count = int(options.split_share * len(keep))
    chosen = torch.zeros_like(keep)
    chosen[energy.argsort(stable=True)[len(energy) - count :]] = True
    return running.field.subset(keep & ~chosen).joined(running.field.subset(chosen).halves())
