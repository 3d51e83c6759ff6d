"""``gsvr reconstruct``: stacks in, volume out."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from gsvr.outputs import OutputPaths
    from gsvr.pipeline import Reconstruction, StackInputs
    from gsvr.solver.schedule import SolverOptions

logger = logging.getLogger(__name__)

# Loading kernels from the cache takes less; compiling them takes longer and deserves a word.
_SECONDS_BEFORE_COMPILING = 1.5


def reconstruct_command(
    context: typer.Context,
    input_stacks: Annotated[list[Path], typer.Option(help="Two or more stacks of slices (NIfTI).")],
    output_volume: Annotated[
        Path, typer.Option(help="Where the volume goes (.nii.gz); other outputs follow its name.")
    ],
    stack_masks: Annotated[
        list[Path] | None,
        typer.Option(
            help="Brain masks, in the order of the stacks; or fewer, each on its stack's grid. Default: foreground."
        ),
    ] = None,
    thicknesses: Annotated[
        list[float] | None,
        typer.Option(
            help="Slice thickness (mm), one for all or one a stack. Default: JSON sidecar, else slice spacing."
        ),
    ] = None,
    output_resolution: Annotated[float, typer.Option(help="Voxel size of the volume (mm).")] = 0.8,
    slice_order: Annotated[
        str,
        typer.Option(
            help="auto (sidecar, else interleaved), interleaved, interleaved-even-first, ascending, descending."
        ),
    ] = "auto",
    profile: Annotated[str, typer.Option(help="Slice profile: slab, slab-gaussian or gaussian.")] = "slab",
    output_mask: Annotated[Path | None, typer.Option(help="Brain mask (.nii.gz).")] = None,
    output_poses: Annotated[Path | None, typer.Option(help="Pose of every slice (JSON).")] = None,
    output_transforms: Annotated[Path | None, typer.Option(help="Folder of ITK transforms.")] = None,
    output_model: Annotated[Path | None, typer.Option(help="The Gaussians, for gsvr render (.safetensors).")] = None,
    output_json: Annotated[Path | None, typer.Option(help="Record of the run.")] = None,
    output_picture: Annotated[Path | None, typer.Option(help="Mid-slices (PNG).")] = None,
    output_slices: Annotated[Path | None, typer.Option(help="Folder for the motion-corrected slices.")] = None,
    simulated_slices: Annotated[
        Path | None, typer.Option(help="Folder for the slices as the model predicts them.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, or reference (plain PyTorch on the CPU, slow).")] = "auto",
    seed: Annotated[int, typer.Option(help="Source of all chance; recorded.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is decided and why.")] = False,
) -> None:
    """Reconstruct one sharp volume from stacks of slices of a moving subject."""
    from rich.console import Console

    from gsvr.outputs import OutputPaths, write_outputs
    from gsvr.pipeline import StackInputs

    console = Console(stderr=True)
    _log_to(console, verbose)
    started = time.perf_counter()
    paths = OutputPaths.beside(
        output_volume,
        mask=output_mask,
        poses=output_poses,
        transforms=output_transforms,
        model=output_model,
        record=output_json,
        picture=output_picture,
        slices=output_slices,
        simulated_slices=simulated_slices,
    )
    inputs = StackInputs(input_stacks, stack_masks or [], thicknesses or [], slice_order)
    options = _solver_options(profile, device, seed)
    paths.check()
    reconstruction = _run_with_progress(console, inputs, output_resolution, options)
    write_outputs(reconstruction, paths, dict(context.params))
    _summarise(reconstruction, paths, time.perf_counter() - started)


def _log_to(console: Console, verbose: bool) -> None:
    from rich.logging import RichHandler

    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], format="%(message)s")


def _solver_options(profile: str, device: str, seed: int) -> SolverOptions:
    from gsvr.errors import InputError
    from gsvr.psf import PROFILES
    from gsvr.solver.schedule import SolverOptions

    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: choose one of {', '.join(PROFILES)}")
    backends = {"auto": "cpu", "cpu": "cpu", "reference": "reference"}
    if device not in backends:
        raise InputError(f"--device {device}: choose one of {', '.join(backends)}")
    logger.info("running on the CPU%s", " (the only device of this version)" if device == "auto" else "")
    return SolverOptions(profile=profile, backend=backends[device], seed=seed)  # pyright: ignore[reportArgumentType]


def _run_with_progress(
    console: Console, inputs: StackInputs, resolution: float, options: SolverOptions
) -> Reconstruction:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from gsvr.pipeline import run
    from gsvr.solver.reconstruct import Progress as Round

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.completed:>3.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[residual]}"),
        TimeElapsedColumn(),
    )
    _load_kernels(console)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("reading", total=1, residual="")

        def show(done: Round) -> None:
            residual = 100 * done.state.weights.noise
            progress.update(
                task,
                completed=done.done,
                total=done.total,
                description=done.stage.name,
                residual=f"residual {residual:.1f} %",
            )

        return run(inputs, resolution, options, show)


def _load_kernels(console: Console) -> None:
    """Compile or load the kernels, saying so when it takes long."""
    from threading import Timer

    from gsvr.solver.warmup import warm_up

    with console.status("loading kernels") as status:
        message = "compiling kernels for this machine: only the first run does this, about 15 s"
        timer = Timer(_SECONDS_BEFORE_COMPILING, lambda: status.update(message))
        timer.start()
        try:
            warm_up()
        finally:
            timer.cancel()


def _summarise(reconstruction: Reconstruction, paths: OutputPaths, seconds: float) -> None:
    """The last lines on the screen: what was made, of what, and what looks wrong."""
    result = reconstruction.result
    pixels = result.slices.sum_per_slice(result.slices.mask)
    used = pixels > 0
    doubted = int(((result.slice_weights < 0.5) & used).sum())
    shape = " x ".join(str(n) for n in reconstruction.volume.data.shape)
    typer.echo(f"{paths.volume}: {shape} voxels of {reconstruction.volume.spacing[0]:g} mm in {seconds:.1f} s")
    typer.echo(
        f"  {int(used.sum())} slices of {len(reconstruction.stacks)} stacks, {result.slices.n_pixels:,} pixels; "
        f"{doubted} slices weighed down (weight below 0.5)"
    )
    for number, name in enumerate(result.slices.stack_names):
        members = used & (result.slices.stack_index == number)
        if members.any() and (result.slice_weights[members] < 0.5).mean() > 0.5:
            typer.echo(
                f"  most slices of {name} disagree with the volume: look at it, consider repeating or leaving it out"
            )
    for label, path in (
        ("mask", paths.mask),
        ("poses", paths.poses),
        ("field", paths.model),
        ("record", paths.record),
        ("picture", paths.picture),
    ):
        typer.echo(f"  {label}: {path}")
