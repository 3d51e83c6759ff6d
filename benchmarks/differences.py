"""What each difference between the paper and this package is worth: ``python -m benchmarks.differences``.

One thing is changed at a time, in the published code's settings (the first 120 of its 500 epochs) or in the default;
and the amplitudes of the default's free Gaussians are solved for once more, by conjugate gradients and by AdamW, from
nothing. Six stacks, moderate motion. Results go to benchmarks/results/differences.json; rows that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.acquisitions import acquire
from benchmarks.command import RESOLUTION
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.problem import Problem, read_problem
from benchmarks.subjects import SUBJECTS, SubjectMissingError, find_subject
from benchmarks.tables import table
from gsvr.backends.protocol import Array
from gsvr.io.record import write_record
from gsvr.masks.consensus import consensus_mask
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.render.volume import render_volume
from gsvr.solver.adamw import AdamW, CosineAnnealing, LearningRate
from gsvr.solver.amplitudes import solve_amplitudes
from gsvr.solver.loss import RobustLoss, Weights
from gsvr.solver.published import PublishedOptions, ScalePrior, published_code, reconstruct_as_published
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.state import Result, State

RESULTS = REPOSITORY / "benchmarks" / "results" / "differences.json"
BRAINS = ("ch2bet", "atlas-27")
_EPOCHS = 120
_STEPS = (18, 60, 200)
_RATES = (0.01, 0.05)
Row = dict[str, float]


@dataclass(frozen=True)
class AbsoluteLoss:
    """A `gsvr.solver.loss.Loss`: the mean absolute error, by reweighting; slices count alike."""

    def weights(self, operator: AcquisitionOperator, prediction: Array) -> Weights:
        """Noise / |residual|, at most ten."""
        robust, pixels = RobustLoss().weights(operator, prediction), operator.pixels
        size = abs(pixels.values - prediction).clip(min=0.1 * robust.noise)
        return replace(robust, pixels=pixels.coverage * robust.noise / size, slices=np.ones(operator.slices.n_slices))


_CODE = replace(published_code(simulated=True), epochs=_EPOCHS)
PUBLISHED: Mapping[str, PublishedOptions] = {
    "published code": _CODE,
    "exact convolution, not renormalised": replace(_CODE, normalisation=None),
    "evenly drawn seeds": replace(_CODE, uniform_share=1.0),
    "no prior on scales": replace(_CODE, scale_prior=replace(_CODE.scale_prior, weight=0.0)),
    "two-sided prior at 1.65 mm, ten times as strong": replace(_CODE, scale_prior=ScalePrior(1.65, 0.5)),
    "all within three standard deviations": replace(_CODE, nearest=None),
}


def _free(options: SolverOptions) -> SolverOptions:
    """Free Gaussians in the end, whatever predicts better."""
    return replace(options, stages=(*options.stages[:-1], replace(options.stages[-1], alternative=None)))


DEFAULT: Mapping[str, Callable[[SolverOptions], SolverOptions]] = {
    "default, free Gaussians": _free,
    "mean absolute error": lambda options: replace(_free(options), loss=AbsoluteLoss()),
}


def measure_published(problem: Problem, options: PublishedOptions) -> Row:
    """Scores and CPU seconds of a reconstruction as published."""
    return _timed(problem, lambda: reconstruct_as_published(problem.slices, options))


def measure_default(problem: Problem, options: SolverOptions, callback: Callable[[Progress], None] | None) -> Row:
    """Scores and CPU seconds of a reconstruction."""
    return _timed(problem, lambda: reconstruct(problem.slices, options, callback))


def _timed(problem: Problem, method: Callable[[], Result]) -> Row:
    started = time.process_time()
    result = method()
    seconds = time.process_time() - started
    volume = render_volume(result.field, RESOLUTION, result.mask)
    return {**problem.score(volume, result.poses), "cpu_seconds": seconds}


def measure_optimisers(problem: Problem, state: State) -> dict[str, Row]:
    """The amplitudes of a finished state, from nothing, in so many steps of both; the better rate of AdamW."""
    rows: dict[str, Row] = {}
    for steps in _STEPS:
        rows[f"conjugate gradients, {steps} steps"] = _amplitudes(
            problem, state, lambda n=steps: by_gradients(state, n)
        )
        tried = [_amplitudes(problem, state, lambda n=steps, r=rate: by_adamw(state, n, r)) for rate in _RATES]
        rows[f"AdamW, {steps} steps"] = max(tried, key=lambda row: row["psnr"])
    return rows


def by_gradients(state: State, steps: int) -> Array:
    """Amplitudes by conjugate gradients."""
    assert state.prior is not None
    operator, weights = state.operator, state.weights
    prior, strength = state.prior.at(state.amplitudes), state.prior.strength * weights.white_noise**2
    start = 0 * state.amplitudes
    return solve_amplitudes(
        operator, operator.pixels.values, weights.pixels, prior, strength, start, iterations=steps
    ).values


def by_adamw(state: State, steps: int, rate: float) -> Array:
    """Amplitudes by AdamW, whose rate falls to a twentieth."""
    assert state.prior is not None
    operator, weights = state.operator, state.weights
    prior, strength = state.prior.at(state.amplitudes), state.prior.strength * weights.white_noise**2
    optimiser = AdamW({"amplitudes": LearningRate(rate)}, CosineAnnealing(steps, rate / 20))
    values = 0 * state.amplitudes
    for _ in range(steps):
        residual = weights.pixels * (operator.predict(values) - operator.pixels.values)
        gradient = prior.apply(values, strength, operator.adjoint(residual))
        values = optimiser.step({"amplitudes": values}, {"amplitudes": gradient})["amplitudes"]
    return values


def _amplitudes(problem: Problem, state: State, method: Callable[[], Array]) -> Row:
    started = time.process_time()
    field = state.operator.field(method())
    seconds = time.process_time() - started
    slices = problem.slices
    volume = render_volume(field, RESOLUTION, consensus_mask(slices, slices.mask, state.poses))
    return {**problem.score(volume, state.poses), "cpu_seconds": seconds}


def measure(problem: Problem, known: Mapping[str, Row], keep: Callable[[str, Row], None]) -> None:
    """Every row that is not known yet."""
    for name, options in PUBLISHED.items():
        if name not in known:
            keep(name, measure_published(problem, options))
    states: list[State] = []

    def watch(progress: Progress) -> None:
        if progress.done == progress.total:
            states.append(progress.state)

    for name, change in DEFAULT.items():
        optimisers = name == next(iter(DEFAULT)) and f"AdamW, {_STEPS[-1]} steps" not in known
        if name not in known or optimisers:
            keep(name, measure_default(problem, change(problem.options), watch if optimisers else None))
    for state in states:
        for name, row in measure_optimisers(problem, state).items():
            keep(name, row)


def difference_table(rows: Mapping[str, Mapping[str, Row]]) -> str:
    """PSNR / SSIM, pose error and CPU seconds of every variant, a column for each brain."""
    cell = "{{{0}[psnr]:.2f}} / {{{0}[ssim]:.3f}}, {{{0}[pose_p90]:.2f}} mm, {{{0}[cpu_seconds]:.0f}} s"
    names = dict.fromkeys(name for found in rows.values() for name in found)
    lines = [(name, {subject: found.get(name) for subject, found in rows.items()}) for name in names]
    return table("", {subject: cell.format(subject) for subject in rows}, lines)


def main() -> None:
    """Measure what is missing, then show it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(BRAINS))
    parser.add_argument("--fresh", action="store_true", help="make rows again that are there already")
    asked = parser.parse_args()
    record: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": {}}
    for subject in asked.subjects:
        try:
            problem = read_problem(acquire(find_subject(subject)))
        except SubjectMissingError as missing:
            print(f"{subject}: skipped, {missing}", file=sys.stderr)
            continue
        found: dict[str, Row] = {} if asked.fresh else dict(record["rows"].get(subject, {}))

        def keep(name: str, row: Row, subject: str = subject, found: dict[str, Row] = found) -> None:
            print(f"{subject}, {name}: {row['psnr']:.2f} dB, {row['ssim']:.4f}, {row['cpu_seconds']:.0f} s", flush=True)
            found[name] = row
            record["rows"][subject] = found
            write_record(RESULTS, {**record, "measured": provenance()})

        measure(problem, dict(found), keep)
    print(difference_table(record["rows"]))


if __name__ == "__main__":
    main()
