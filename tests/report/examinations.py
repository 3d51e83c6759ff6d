"""A small examination to make reports of: the phantom's stacks at their true poses, some of their slices damaged."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from gsvr.io.transforms import SlicePose
from gsvr.model.slices import slices_from_stacks
from gsvr.report.examination import Acquisition, Examination
from tests.moving_brain import moving_brain, small_brain, true_poses

# Of these slices of the second stack the signal is lost.
DARK = (6, 7, 8)


@cache
def small_examination() -> Examination:
    """Three stacks; names that a page must not take for markup."""
    simulation = moving_brain("moderate")
    stacks = [replace(stack, name=f"<b>run&{number}") for number, stack in enumerate(simulation.stacks)]
    slices = slices_from_stacks(stacks)
    poses = true_poses(slices, simulation)
    measured = slices.values.copy()
    dark = [s for s in range(slices.n_slices) if slices.stack_index[s] == 1 and slices.slice_index[s] in DARK]
    for number in dark:
        measured[slices.pixels_of(number)] *= 0.3
    pixels = slices.sum_per_slice(slices.mask)
    records = [
        SlicePose(
            slices.stack_names[slices.stack_index[s]],
            int(slices.slice_index[s]),
            poses[s],
            {
                "pixels": int(pixels[s]),
                "used": bool(pixels[s] > 0),
                "weight": 0.02 if s in dark else 1.0,
                "gain": 1.0,
                "residual": 50.0 if s in dark else 10.0,
                "time": float(slices.times[s]),
            },
        )
        for s in range(slices.n_slices)
    ]
    record = {
        "versions": {"gsvr": "0"},
        "stacks": [
            {
                "name": stack.name,
                "slices": stack.n_slices,
                "spacing": stack.spacing.tolist(),
                "thickness": stack.thickness,
                "mask_given": True,
            }
            for stack in stacks
        ],
        "timings_seconds": {"read": 1.0, "reconstruction": 20.0},
        "iterations": [
            {"stage": stage, "residual": residual, "seconds": seconds}
            for stage, residual, seconds in (("stacks", 0.2, 1.0), ("stacks", 0.1, 2.0), ("final", 0.05, 6.0))
        ],
    }
    acquisition = Acquisition(stacks, replace(slices, values=measured), poses, slices.values)
    return Examination("<i>brain</i>", record, small_brain(), records, acquisition)
