"""Ways to reconstruct a volume, under names: the default, what it is made of taken away, and what it is compared with.

A method is a function of the problem and a recorder, registered in `METHODS`: to add one, write both. It must not look
at the problem's truth or true poses, except for the limit that says so in its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from unittest import mock

import numpy as np

from benchmarks.limits import RESOLUTION, without_motion
from benchmarks.problem import Problem
from benchmarks.recorder import Recorder
from gsvr.masks.consensus import agreed_mask
from gsvr.model.fields import field_of
from gsvr.model.point_spread import PROFILES
from gsvr.model.volume import Volume
from gsvr.render.volume import render_volume
from gsvr.solver.published import PaperOptions, PaperProgress, reconstruct_as_published
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, default_stages

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
    """`gsvr.solver.reconstruct` with changed options, scored at the end of each stage."""
    slices, options = problem.slices, change(problem.options)

    def report(progress: Progress) -> None:
        if not progress.stage_done:
            return
        state = progress.state

        def render() -> Volume:
            field = field_of(state.operator.primitives, state.amplitudes * np.float32(progress.scale))
            return render_volume(field, RESOLUTION, agreed_mask(slices, slices.mask, state.poses, options.masks))

        recorder.record(progress.stage.name, render, state.poses)

    result = reconstruct(slices, options, report, problem.true_poses if known_poses else None)
    return render_volume(result.field, RESOLUTION, result.mask), result.poses


def run_without_point_spread(problem: Problem, recorder: Recorder, profile: bool) -> tuple[Volume, np.ndarray]:
    """The default with pixels that are points in the plane, and through it as well unless `profile`."""
    profiles = {name: value if profile else ((1.0,), (0.0,), (1e-2,)) for name, value in PROFILES.items()}
    with (
        mock.patch("gsvr.model.point_spread.IN_PLANE_FWHM_PER_SPACING", 1e-2),
        mock.patch.dict("gsvr.model.point_spread.PROFILES", profiles),
    ):
        return run_gsvr(problem, recorder)


def run_paper(problem: Problem, recorder: Recorder, options: PaperOptions) -> tuple[Volume, np.ndarray]:
    """The published settings, scored each time that neighbours are found anew."""
    slices = problem.slices

    def report(progress: PaperProgress) -> None:
        if progress.done % options.refreshed_every:
            return

        def render() -> Volume:
            return render_volume(progress.field, RESOLUTION, agreed_mask(slices, slices.mask, progress.poses))

        recorder.record(f"epoch {progress.done}", render, progress.poses)

    result = reconstruct_as_published(slices, options, report)
    return render_volume(result.field, RESOLUTION, result.mask), result.poses


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
    last = replace(last, spacing=factor * last.spacing, told_apart=factor * last.told_apart)
    return replace(options, stages=(*options.stages[:-1], last))


def _gsvr(change: Change, description: str, kind: str = "ablation", known_poses: bool = False) -> Method:
    return Method(partial(run_gsvr, change=change, known_poses=known_poses), description, kind)


def change_prior(options: SolverOptions, factor: float) -> SolverOptions:
    """Priors on the volume, of lattices and of free Gaussians, this many times as strong."""
    return replace(
        options,
        prior=replace(options.prior, strength=factor * options.prior.strength),
        neighbours=replace(options.neighbours, strength=factor * options.neighbours.strength),
    )


def _seeds(options: SolverOptions, **changes: float) -> SolverOptions:
    return replace(options, seeds=replace(options.seeds, **changes))


def few_gaussians(options: SolverOptions, most: int) -> SolverOptions:
    """At most so many free Gaussians, whose geometry is optimised, too."""
    return _seeds(_moving_geometry(options), most=most)


def _neighbours(options: SolverOptions, **changes: int) -> SolverOptions:
    return replace(options, neighbours=replace(options.neighbours, **changes))


def _moving_geometry(options: SolverOptions) -> SolverOptions:
    return replace(options, stages=(*options.stages[:-1], replace(options.stages[-1], geometry_steps=30)))


def on_lattice(options: SolverOptions) -> SolverOptions:
    """The schedule that ends on a lattice; without motion where the options are."""
    last = options.stages[-1]
    lattice = replace(default_stages(last.spacing, free=False)[-1], motion=last.motion)
    return replace(options, stages=(*options.stages[:-1], lattice))


METHODS: dict[str, Method] = {
    "default": Method(run_gsvr, "gsvr"),
    "inr": Method(run_implicit, "implicit network (hash grid)"),
    "inr-siren": Method(
        partial(
            run_implicit,
            network="siren",
            hidden=128,
            siren_layers=3,
            batch_pixels=1024,
            head_rate=5e-4,
            edge_weight=4.0,
        ),
        "implicit network (SIREN)",
    ),
    "fast": _gsvr(on_lattice, "gsvr, preset fast: Gaussians on a lattice", "method"),
    "paper": Method(partial(run_paper, options=PaperOptions()), "published settings, compiled kernels"),
    "paper-torch": Method(
        partial(run_paper, options=PaperOptions(backend="torch")), "published settings, plain PyTorch on the CPU"
    ),
    "uncorrected": _gsvr(without_motion, "no motion correction", "limit"),
    "known-poses": _gsvr(without_motion, "true poses given", "limit", known_poses=True),
    "profile-gaussian": _gsvr(lambda o: replace(o, profile="gaussian"), "Gaussian profile, FWHM = thickness"),
    "profile-slab-gaussian": _gsvr(lambda o: replace(o, profile="slab-gaussian"), "Gaussian with a slab's variance"),
    "in-plane-off": Method(partial(run_without_point_spread, profile=True), "no in-plane blur modelled", "ablation"),
    "psf-off": Method(partial(run_without_point_spread, profile=False), "no point spread function", "ablation"),
    "prior-off": _gsvr(partial(change_prior, factor=1e-4), "no prior on the volume"),
    "prior-strong": _gsvr(partial(change_prior, factor=4.0), "prior four times as strong"),
    "time-prior-off": _gsvr(
        lambda o: replace(o, motion=replace(o.motion, prior_share=0.0)), "no prior on motion over time"
    ),
    "robust-off": _gsvr(
        lambda o: replace(o, weights=replace(o.weights, pixel_cauchy=1e6, slice_welsch=1e6)), "all data weighed alike"
    ),
    "gains-off": _gsvr(lambda o: replace(o, weights=replace(o.weights, gain_limit=1.0)), "gains not estimated"),
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
