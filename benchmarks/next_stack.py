"""Does it pay to follow the advice on what to acquire next? A fourth stack by the advice, and by the fixed cycle.

Of three orthogonal stacks of the phantom at half its size, one is ruined: seven of ten slices are nearly black. Three
more stacks are at hand, one of each direction.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from gsvr.evaluation import compare
from gsvr.evaluation.next_stack import next_stack
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.render.volume import render_volume
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import SimulationOptions, simulate
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import Result
from gsvr.workflows.pipeline import prepare_slices

_OPTIONS = SolverOptions(
    stages=(
        Stage("stacks", 4.0, 2, 3, 5, "stacks", 0.8),
        Stage("slices, 3 mm", 3.0, 2, 4, 5),
        Stage("slices, 2 mm", 2.0, 1, 4, 5),
        Stage("final", 1.3, 1, 3, 6, "none", 0.6, consensus_mask=True),
    )
)


def main() -> None:
    """One line for each ruined direction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    brain = _small_brain()
    shape = {"n_stacks": 6, "in_plane_spacing": 1.5, "thickness": 3.0}
    stacks = simulate(brain, SimulationOptions(**shape, motion="mild", seed=seed)).stacks
    rng = np.random.default_rng(5)
    normals = np.stack([stack.affine[:3, 2] / np.linalg.norm(stack.affine[:3, 2]) for stack in stacks[3:]])
    for ruined in range(3):
        first = [_ruined(stack, rng) if number == ruined else stack for number, stack in enumerate(stacks[:3])]
        advised = int(np.argmax(next_stack(_made(first), directions=normals).gains))
        quality = [compare(_volume(_made([*first, fourth])), brain).quality.psnr for fourth in stacks[3:]]
        print(
            f"stack {ruined} ruined: the advice is direction {advised}, PSNR {quality[advised]:.2f}; by the cycle "
            f"{quality[0]:.2f}; all {np.round(quality, 2).tolist()}",
            flush=True,
        )


def _small_brain() -> Volume:
    phantom = brain_phantom(spacing=1.6)
    affine = phantom.affine.copy()
    affine[:3] *= 0.5
    affine[:3, 3] += [12.0, -7.0, 20.0]
    return Volume(phantom.data, affine, phantom.mask)


def _ruined(stack: Stack, rng: np.random.Generator) -> Stack:
    lost = rng.permutation(stack.n_slices)[: int(0.7 * stack.n_slices)]
    kept = np.ones(stack.n_slices)
    kept[lost] = rng.uniform(0.05, 0.3, len(lost))
    noise = rng.normal(size=stack.data.shape).astype(np.float32) * 30
    return replace(stack, data=np.abs(stack.data * kept.astype(np.float32) + noise * (kept < 1)).astype(np.float32))


def _made(stacks: list[Stack]) -> Result:
    return reconstruct(prepare_slices(stacks, _OPTIONS), _OPTIONS)


def _volume(result: Result) -> Volume:
    return render_volume(result.field, 0.8, result.mask)


if __name__ == "__main__":
    main()
