"""The parts of ``make bench-gpu``, in the order in which they run."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from benchmarks.gpu_ceilings import measure_ceilings
from benchmarks.gpu_correctness import measure_correctness
from benchmarks.gpu_free_kernels import measure_free_kernels
from benchmarks.gpu_kernels import measure_launches, measure_stage_kernels
from benchmarks.gpu_reconstruction import (
    measure_paper,
    measure_quality,
    measure_rounds,
    measure_time,
    options_for,
    slices_of,
    to_volume,
)
from benchmarks.gpu_throughput import measure_throughput
from benchmarks.speed_acquisitions import SIZES, USUAL
from gsvr.model.slices import Slices


class GpuParts:
    """Measurements on one card.

    Parameters
    ----------
    known
        What has been measured on it before; parts may build on earlier ones.
    """

    def __init__(self, device: torch.device, known: dict[str, Any]) -> None:
        self._device = device
        self._backend = str(device)
        self._known = dict(known)

    @cached_property
    def _slices(self) -> Slices:
        return slices_of(USUAL)

    def correctness(self) -> dict[str, Any]:
        """Every kernel against the reference."""
        return measure_correctness(self._device)

    def ceilings(self) -> dict[str, float]:
        """What the card can do."""
        self._known["ceilings"] = measure_ceilings(self._device)
        return self._known["ceilings"]

    def kernels(self) -> dict[str, Any]:
        """Kernels of every stage's lattice and of free Gaussians; the finest lattice's in several compilations."""
        ceilings = self._known.get("ceilings") or self.ceilings()
        stages = options_for(USUAL, self._backend).stages
        return {
            "stages": [measure_stage_kernels(self._slices, stage, self._device, ceilings) for stage in stages[1:]],
            "free": [
                measure_free_kernels(self._slices, stage, self._device, ceilings) for stage in stages if stage.free
            ],
            "launches": measure_launches(self._slices, stages[-1], self._device),
        }

    def reconstruction(self) -> dict[str, Any]:
        """Seconds, memory and spread of the default mode, and quality beside that of the CPU."""
        found, volumes, result = measure_time(self._slices, options_for(USUAL, self._backend))
        return found | {"quality": measure_quality(volumes, result, self._slices, options_for(USUAL, "cpu"))}

    def deterministic(self) -> dict[str, Any]:
        """The same in the deterministic mode, without the quality."""
        return measure_time(self._slices, options_for(USUAL, self._backend, deterministic=True))[0]

    def rounds(self) -> list[dict[str, Any]]:
        """Launches and waits of a round in every stage."""
        return measure_rounds(self._slices, options_for(USUAL, self._backend), self._device)

    def throughput(self) -> list[dict[str, Any]]:
        """Several small subjects at once."""
        return measure_throughput(SIZES[0], self._backend)

    def paper(self) -> dict[str, float]:
        """The published settings in plain PyTorch on the same card."""
        return measure_paper(self._slices, self._device)

    def large(self) -> dict[str, Any]:
        """Ten million pixels: seconds and memory."""
        acquisition = SIZES[-1]
        torch.cuda.reset_peak_memory_stats()
        result, _, seconds = to_volume(slices_of(acquisition), options_for(acquisition, self._backend))
        return {
            "pixels": result.slices.n_pixels,
            "seconds_with_compiling": seconds,
            "peak_megabytes": torch.cuda.max_memory_allocated() / 1e6,
        }
