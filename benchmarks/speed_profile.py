"""Where the time of one reconstruction goes: ``python -m benchmarks.speed_profile OUTPUT.json STACK-FOLDER``.

CPU seconds of the process, all threads included, by stage and by function. A function's seconds are its own: those of
timed functions that it calls are counted there.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from gsvr.backends.cpu.gaussians import CpuGaussianKernel
from gsvr.backends.cpu.lattice import CpuKernel
from gsvr.model.fields import sample_lattice
from gsvr.model.slices import Slices
from gsvr.solver.priors.lattice import QuadraticPrior
from gsvr.solver.priors.neighbours import NeighbourPrior, sharpening
from gsvr.solver.reconstruct import Progress
from gsvr.workflows import pipeline
from gsvr.workflows.pipeline import StackInputs

# Functions that are timed, by the name under which they are shown; those that do not exist (any more) are left out.
_FUNCTIONS = {
    "reading files": ["gsvr.workflows.pipeline.read_stacks"],
    "masks": [
        "gsvr.workflows.pipeline.prepare_slices",
        "gsvr.masks.consensus.agreed_mask",
        "gsvr.masks.consensus.project_mask",
    ],
    "weights and gains": [
        *("gsvr.solver.weights.robust_weights", "gsvr.solver.weights.fit_gains"),
        "gsvr.solver.rounds.first_gains",
    ],
    "prior": ["gsvr.solver.priors.lattice.quadratic_prior"],
    "pose equations and steps": [
        *("gsvr.solver.pose_equations.pose_equations", "gsvr.solver.motion.solve_steps"),
        *("gsvr.solver.motion.solve_stack_steps", "gsvr.solver.motion.displacements"),
    ],
    "new lattice": ["gsvr.solver.rounds.stage_lattice", "gsvr.solver.rounds.refined_amplitudes"],
    "search for lost stacks": ["gsvr.solver.initialise.find_lost_stacks"],
    "conjugate gradients themselves": ["gsvr.solver.amplitudes.solve_amplitudes"],
    "seeding of free Gaussians": ["gsvr.solver.seeding.seed_from_lattice"],
    "neighbours of free Gaussians": ["gsvr.solver.priors.neighbours.find_neighbours"],
    "rendering": ["gsvr.render.volume.render_volume"],
}
_METHODS: dict[str, list[tuple[type, str]]] = {
    "predict, free Gaussians": [(CpuGaussianKernel, "predict")],
    "adjoint, free Gaussians": [(CpuGaussianKernel, "_adjoint")],
    "prior, free Gaussians": [(NeighbourPrior, "__init__"), (NeighbourPrior, "apply")],
    "predict": [(CpuKernel, "predict")],
    "adjoint": [(CpuKernel, "_adjoint")],
    "derivatives": [(CpuKernel, "derivatives")],
    "prior": [(QuadraticPrior, "apply"), (QuadraticPrior, "diagonal")],
    "binning": [(Slices, "binned")],
}
_PLANS = {
    "plan": [(CpuKernel, "_touched"), (CpuKernel, "_splats")],
    "plan, free Gaussians": [(CpuGaussianKernel, "_pieces")],
}


class Clock:
    """CPU seconds by name; the seconds of nested names are taken off the outer ones."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time kept."""

        @wraps(function)
        def measured(*arguments: Any, **named: Any) -> Any:
            self._inside.append(0.0)
            started = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                spent = time.process_time() - started
                self.seconds[name] += spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        return measured

    def install(self) -> None:
        """Put timed functions in the place of the package's own, wherever they were imported to."""
        for name, paths in _FUNCTIONS.items():
            for path in paths:
                home, _, attribute = path.rpartition(".")
                function = getattr(sys.modules.get(home), attribute, None)
                if function is not None:
                    _replace_everywhere(function, self.timed(name, function))
        _replace_everywhere(sample_lattice, self.timed("new lattice", sample_lattice))
        for name, places in _METHODS.items():
            for owner, attribute in places:
                if hasattr(owner, attribute):
                    setattr(owner, attribute, self.timed(name, getattr(owner, attribute)))
        for name, places in _PLANS.items():
            for owner, attribute in places:
                prepared = owner.__dict__.get(attribute)
                if prepared is not None:
                    prepared.func = self.timed(name, prepared.func)
        _replace_everywhere(sharpening, self._timed_preconditioner)

    def _timed_preconditioner(self, *arguments: Any) -> Callable[..., Any]:
        return self.timed("preconditioner, free Gaussians", sharpening(*arguments))


def _replace_everywhere(old: Callable[..., Any], new: Callable[..., Any]) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("gsvr"):
            for attribute, value in list(vars(module).items()):
                if value is old:
                    setattr(module, attribute, new)


def profile(stacks: list[Path], masks: list[Path]) -> dict[str, Any]:
    """Reconstruct once and tell CPU seconds by stage and by function."""
    clock = Clock()
    clock.install()
    stages: dict[str, dict[str, float]] = {}
    last = time.process_time()

    def watch(progress: Progress) -> None:
        nonlocal last
        now = time.process_time()
        stage = stages.setdefault(progress.stage.name, {"cpu_seconds": 0.0, "rounds": 0})
        stage["cpu_seconds"] += now - last
        stage["rounds"] += 1
        stage["gaussians"] = progress.state.field.n_gaussians
        stage["pixels"] = progress.state.operator.slices.n_pixels
        last = now

    started = time.process_time()
    job = pipeline.prepare(StackInputs(stacks, masks, []))
    prepared = last = time.process_time()
    done = pipeline.run(job, callback=watch)
    rendered = time.process_time()
    total = rendered - started
    return {
        "cpu_seconds": total,
        "before_reconstruction": prepared - started,
        "after_last_round": rendered - last,
        "stages": stages,
        "functions": {**clock.seconds, "everything else": total - sum(clock.seconds.values())},
        "pixels": done.result.slices.n_pixels,
    }


def main() -> None:
    """Reconstruct, write the numbers."""
    output, folder = Path(sys.argv[1]), Path(sys.argv[2])
    masks = sorted(folder.glob("stack-*_mask.nii.gz"))
    paths = [mask.with_name(mask.name.replace("_mask", "")) for mask in masks]
    output.write_text(json.dumps(profile(paths, masks)), encoding="utf-8")


if __name__ == "__main__":
    main()
