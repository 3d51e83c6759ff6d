"""Ways to reconstruct a volume, under names: the default, what it is made of taken away, and what it is compared with.

A method is a function of the problem and a recorder, registered in `METHODS`: to add one, write both. It must not look
at the problem's truth or true poses, except for the limit that says so in its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.command import RESOLUTION
from benchmarks.problem import Problem
from benchmarks.recorder import Recorder
from gsvr.masks.consensus import consensus_mask
from gsvr.model.point_spread import PointSpread, spread_of
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.render.volume import render_volume
from gsvr.solver.gains import SliceGains
from gsvr.solver.loss import RobustLoss
from gsvr.solver.motion import SliceMotion
from gsvr.solver.priors.lattice import LatticePrior
from gsvr.solver.priors.neighbours import NeighbourPrior
from gsvr.solver.published import PublishedOptions, published_code, reconstruct_as_published
from gsvr.solver.reconstruct import Callback, Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, default_stages
from gsvr.solver.state import Result

Run = Callable[[Problem, Recorder], tuple[Volume, np.ndarray]]
Change = Callable[[SolverOptions], SolverOptions]


@dataclass(frozen=True)
class Method:
    """One way to reconstruct.

    Attributes
    ----------
    run
        Returns the volume and the poses of all slices; tells the recorder how it gets on.
    description
        What it is, for tables and plots.
    kind
        ``"method"``, ``"limit"`` or ``"ablation"``.
    """

    run: Run
    description: str
    kind: str = "method"


def unchanged(options: SolverOptions) -> SolverOptions:
    """The options as they are."""
    return options


def run_gsvr(
    problem: Problem, recorder: Recorder, change: Change = unchanged, known_poses: bool = False
) -> tuple[Volume, np.ndarray]:
    """`gsvr.solver.reconstruct.reconstruct` with changed options, scored at the end of each stage."""
    options = change(problem.options)
    report = _reporting(problem, recorder, lambda progress: progress.stage.name if progress.stage_done else None)
    return _rendered(reconstruct(problem.slices, options, report, problem.true_poses if known_poses else None))


def run_published(problem: Problem, recorder: Recorder, options: PublishedOptions) -> tuple[Volume, np.ndarray]:
    """The published settings, scored each time that neighbours are found anew."""
    every = options.refreshed_every
    report = _reporting(problem, recorder, lambda at: None if at.done % every else f"epoch {at.done}")
    return _rendered(reconstruct_as_published(problem.slices, options, report))


def _reporting(problem: Problem, recorder: Recorder, label: Callable[[Progress], str | None]) -> Callback:
    """A callback that has the state scored wherever it finds a label for it."""
    slices = problem.slices

    def report(progress: Progress) -> None:
        name, state = label(progress), progress.state

        def render() -> Volume:
            return render_volume(
                state.field.scaled(progress.scale), RESOLUTION, consensus_mask(slices, slices.mask, state.poses)
            )

        if name is not None:
            recorder.record(name, render, state.poses)

    return report


def _rendered(result: Result) -> tuple[Volume, np.ndarray]:
    return render_volume(result.field, RESOLUTION, result.mask), result.poses


def pixels_without_width(slices: Slices, through_plane: bool) -> PointSpread:
    """A point spread function of no width in the plane, nor through it unless `through_plane`."""
    slab = spread_of(slices, "slab")
    averaged = slices.spacings**2 * (slices.binning**2 - 1) / 12
    in_plane = averaged + (0.004 * slices.spacings) ** 2
    if through_plane:
        return PointSpread.through_plane(in_plane, slab.weights, slab.offsets[:, :, 2], slab.covariances[:, :, 2, 2])
    thickness = slices.thicknesses[:, None]
    return PointSpread.through_plane(in_plane, np.ones(1), 0 * thickness, (0.01 * thickness) ** 2)


def run_implicit(problem: Problem, recorder: Recorder, **settings: object) -> tuple[Volume, np.ndarray]:
    """The implicit baseline of `benchmarks.inr`, from stacks that are aligned already; the time that takes counts.

    By itself a network hardly aligns stacks; NeSVoR, too, starts from slices placed by rigid registration or SVoRT.
    """
    from benchmarks.inr import InrOptions, InrProgress, train
    from benchmarks.inr.rendering import render_network

    def report(progress: InrProgress) -> None:
        label = f"{100 * progress.share:.0f} % of the steps"
        render = partial(render_network, progress.result, problem.slices, RESOLUTION)
        recorder.record(label, render, progress.result.poses)

    stacks_only = replace(problem.options, stages=problem.options.stages[:1])
    start = reconstruct(problem.slices, stacks_only).poses
    options = InrOptions(**settings)  # pyright: ignore[reportArgumentType]
    result = train(problem.slices, options, report, start)
    return render_network(result, problem.slices, RESOLUTION), result.poses


def with_final_spacing(factor: float, options: SolverOptions) -> SolverOptions:
    """The last stage with a spacing this many times as large."""
    last = options.stages[-1]
    other = last.alternative and replace(last.alternative, spacing=factor * last.alternative.spacing)
    last = replace(last, spacing=factor * last.spacing, told_apart=factor * last.told_apart, alternative=other)
    return replace(options, stages=(*options.stages[:-1], last))


def without_motion(options: SolverOptions) -> SolverOptions:
    """A coarse stage and the last two, with poses that stay as they are."""
    coarse = next(stage for stage in options.stages if stage.binning == 2)
    stages = (replace(coarse, outer_iterations=4), *options.stages[-2:])
    return replace(options, stages=tuple(replace(stage, motion="none") for stage in stages))


def _gsvr(change: Change, description: str, kind: str = "ablation", known_poses: bool = False) -> Method:
    return Method(partial(run_gsvr, change=change, known_poses=known_poses), description, kind)


def change_prior(options: SolverOptions, factor: float) -> SolverOptions:
    """Priors on the volume, of lattices and of free Gaussians, this many times as strong."""
    return replace(
        options,
        prior=LatticePrior(strength=factor * LatticePrior.strength),
        neighbours=NeighbourPrior(strength=factor * NeighbourPrior.strength),
    )


def _seeds(options: SolverOptions, **changes: float) -> SolverOptions:
    return replace(options, seeds=replace(options.seeds, **changes))


def few_gaussians(options: SolverOptions, most: int) -> SolverOptions:
    """At most so many free Gaussians, whose geometry is optimised, too."""
    return _seeds(_moving_geometry(options), most=most)


def _neighbours(options: SolverOptions, **changes: int) -> SolverOptions:
    return replace(options, neighbours=replace(NeighbourPrior(), **changes))


def _moving_geometry(options: SolverOptions) -> SolverOptions:
    last = replace(options.stages[-1], geometry_steps=30, alternative=None)
    return replace(options, stages=(*options.stages[:-1], last))


def on_lattice(options: SolverOptions) -> SolverOptions:
    """The schedule that ends on a lattice; without motion where the options are."""
    last = options.stages[-1]
    lattice = replace(default_stages(last.spacing, free=False)[-1], motion=last.motion)
    return replace(options, stages=(*options.stages[:-1], lattice))


METHODS: dict[str, Method] = {
    "default": Method(run_gsvr, "gsvr"),
    "inr": Method(run_implicit, "implicit network (grid of features)"),
    "fast": _gsvr(on_lattice, "gsvr, preset fast: Gaussians on a lattice", "method"),
    "paper": Method(partial(run_published, options=PublishedOptions()), "settings as printed"),
    "published-code": Method(
        partial(run_published, options=published_code(simulated=True)), "published code's settings"
    ),
    "uncorrected": _gsvr(without_motion, "no motion correction", "limit"),
    "known-poses": _gsvr(without_motion, "true poses given", "limit", known_poses=True),
    "profile-gaussian": _gsvr(lambda o: replace(o, profile="gaussian"), "Gaussian profile, FWHM = thickness"),
    "profile-slab-gaussian": _gsvr(lambda o: replace(o, profile="slab-gaussian"), "Gaussian with a slab's variance"),
    "in-plane-off": _gsvr(
        lambda o: replace(o, profile=partial(pixels_without_width, through_plane=True)), "no in-plane blur modelled"
    ),
    "psf-off": _gsvr(
        lambda o: replace(o, profile=partial(pixels_without_width, through_plane=False)), "no point spread function"
    ),
    "prior-off": _gsvr(partial(change_prior, factor=1e-4), "no prior on the volume"),
    "prior-strong": _gsvr(partial(change_prior, factor=4.0), "prior four times as strong"),
    "time-prior-off": _gsvr(lambda o: replace(o, motion=SliceMotion(prior_share=0.0)), "no prior on motion over time"),
    "robust-off": _gsvr(
        lambda o: replace(o, loss=RobustLoss(pixel_cauchy=1e6, slice_welsch=1e6)), "all data weighed alike"
    ),
    "gains-off": _gsvr(lambda o: replace(o, intensity=SliceGains(limit=1.0)), "gains not estimated"),
    "gaussians-quarter": _gsvr(partial(_seeds, contrast=16.0), "free Gaussians: about a quarter as many"),
    "gaussians-half": _gsvr(partial(_seeds, contrast=8.0), "free Gaussians: about half as many"),
    "gaussians-more": _gsvr(partial(_seeds, contrast=2.5), "free Gaussians: about half as many again"),
    "gaussians-100k": _gsvr(partial(few_gaussians, most=100_000), "100,000 free Gaussians that move"),
    "gaussians-60k": _gsvr(partial(few_gaussians, most=60_000), "60,000 free Gaussians that move"),
    "seeds-even": _gsvr(partial(_seeds, gradient_power=0.0, floor=1.0), "free Gaussians: evenly spread"),
    "seeds-round": _gsvr(partial(_seeds, stretch=1.0), "free Gaussians: round"),
    "neighbours-4": _gsvr(partial(_neighbours, count=4), "free Gaussians: four neighbours each"),
    "neighbours-16": _gsvr(partial(_neighbours, count=16), "free Gaussians: sixteen neighbours each"),
    "sharpening-off": _gsvr(partial(_neighbours, sharpenings=0), "free Gaussians: plain preconditioner"),
    "geometry-moves": _gsvr(_moving_geometry, "free Gaussians: thirty steps of their geometry"),
    "lattice-coarser": _gsvr(partial(with_final_spacing, 1.3), "final spacing 1.3 times as large"),
    "lattice-finer": _gsvr(partial(with_final_spacing, 0.8), "final spacing 0.8 times as large"),
}
