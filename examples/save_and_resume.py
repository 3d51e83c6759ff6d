"""A reconstruction that is interrupted and taken up again: the result is the same to the bit.

Run it with ``python examples/save_and_resume.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import gsvr
from gsvr.simulation.simulate import SimulationOptions, simulate

STAGES = (
    gsvr.Stage("stacks", spacing=5.0, binning=2, outer_iterations=2, inner_iterations=5, motion="stacks"),
    gsvr.Stage("slices", spacing=4.0, binning=1, outer_iterations=3, inner_iterations=5),
    gsvr.Stage("volume", spacing=2.5, binning=1, outer_iterations=2, inner_iterations=5, motion="none", free=True),
)


def main() -> tuple[gsvr.Result, gsvr.Result]:
    """The result of a run that was interrupted after four outer iterations, and that of one that was not."""
    acquisition = SimulationOptions(n_stacks=3, in_plane_spacing=2.5, thickness=5.0)
    slices = gsvr.slices_from_stacks(simulate(gsvr.brain_phantom(spacing=2.0), acquisition).stacks)
    options = gsvr.SolverOptions(stages=STAGES)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"

        def keep(progress: gsvr.Progress) -> None:
            gsvr.write_checkpoint(path, progress.checkpoint())
            if progress.done == 4:
                raise KeyboardInterrupt

        try:
            gsvr.reconstruct(slices, options, keep)
        except KeyboardInterrupt:
            checkpoint = gsvr.read_checkpoint(path)
            print(f"interrupted: {checkpoint}")
            resumed = gsvr.reconstruct(slices, options, checkpoint=checkpoint)

    whole = gsvr.reconstruct(slices, options)
    print(f"the same: {np.array_equal(whole.field.amplitudes, resumed.field.amplitudes)}")
    return resumed, whole


if __name__ == "__main__":
    main()
