"""A phantom brain moves while it is imaged; its reconstruction is compared with the truth.

Run it with ``make demo``, or ``python examples/demo.py`` where gsvr is installed. Everything lands in demo-output/.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

import gsvr
from gsvr.evaluation import Comparison, PoseErrors, compare, pose_errors
from gsvr.io.record import write_record
from gsvr.model.geometry import transform_points
from gsvr.report.picture import PictureOptions, save_mid_slices
from gsvr.simulation.simulate import Simulation, SimulationOptions, simulate
from gsvr.workflows.outputs import OutputPaths, write_outputs
from gsvr.workflows.pipeline import Job, Reconstruction, prepare_masks, run, slices_of

OUTPUT = Path("demo-output")
VOXEL = 0.8
console = Console(highlight=False)


@dataclass(frozen=True)
class Score:
    """How close a volume and the poses of its slices come to the truth, and how long they took (wall seconds)."""

    comparison: Comparison
    poses: PoseErrors
    seconds: float


def main(folder: Path = OUTPUT, quick: bool = False) -> dict[str, Score]:
    """Simulate, reconstruct without and with motion correction, compare; the two scores.

    Parameters
    ----------
    folder
        Where files go.
    quick
        Fewer, coarser stacks: a look at the machinery, not at what it can do.
    """
    with step("painting a phantom brain"):
        truth = gsvr.brain_phantom(spacing=2.0 if quick else 0.8)
    acquisition = SimulationOptions(motion="moderate")  # six stacks of 1.1 x 1.1 x 3 mm
    if quick:
        acquisition = replace(acquisition, n_stacks=3, in_plane_spacing=2.5, thickness=5.0)
    with step("imaging it while it moves") as show:
        simulation = simulate(truth, acquisition, show)
        write_stacks(simulation, folder / "stacks")

    options = gsvr.fitting_options(simulation.stacks, gsvr.SolverOptions())
    if quick:
        options = replace(options, stages=gsvr.default_stages(finest=2.5))
    masks = prepare_masks(simulation.stacks, options)
    slices = slices_of(simulation.stacks, masks)
    console.print(f"  {len(simulation.stacks)} stacks, {slices.n_slices} slices, {slices.n_pixels:,} pixels;")
    console.print(f"  in an average slice the brain is {simulation.mean_displacement:.1f} mm from where it belongs")

    def job(with_options: gsvr.SolverOptions) -> Job:
        return Job(simulation.stacks, masks, slices, with_options, {})

    # the last stage alone, on its lattice, with every slice where the scanner believed it was
    no_motion = replace(options, stages=gsvr.default_stages(options.stages[-1].spacing, free=False)[-1:])
    uncorrected, before = score("without correction", job(no_motion), simulation)
    reconstruction, after = score("with motion correction", job(options), simulation)

    with step("writing files"):
        paths = OutputPaths.beside(folder / "reconstruction.nii.gz")
        write_outputs(reconstruction, paths, {"example": "demo", "quick": quick})
        gsvr.write_volume(folder / "uncorrected.nii.gz", uncorrected.volume.data, uncorrected.volume.affine)
        gsvr.write_volume(folder / "truth.nii.gz", truth.data, truth.affine)
        save_comparison(folder / "comparison.png", simulation, before, after)
    scores = {"uncorrected": before, "reconstructed": after}
    console.print(table(scores))
    tell_what_is_where(folder)
    return scores


def tell_what_is_where(folder: Path) -> None:
    """Name the files, and the command that does the same."""
    stacks = folder / "stacks"
    for line in (
        "pose error: how far a slice is from its true place, median over all slices",
        "",
        f"Look at {folder / 'comparison.png'}.",
        f"Volume, mask, poses, field and record: {folder}/reconstruction*",
        "The same by command (after make demo it is .venv/bin/gsvr):",
        f"  gsvr reconstruct --input-stacks {stacks}/stack-?.nii.gz \\",
        f"    --stack-masks {stacks}/stack-?_mask.nii.gz --output-volume {folder}/again.nii.gz",
    ):
        console.print(line, soft_wrap=True)


@contextmanager
def step(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the block runs; it yields what the block may call with (done, total)."""
    columns = (TextColumn("  {task.description:<52}"), BarColumn(bar_width=16), TimeElapsedColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(name, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show
        bar.update(task, completed=1, total=1)


def score(name: str, job: Job, simulation: Simulation) -> tuple[Reconstruction, Score]:
    """Reconstruct and compare with the truth."""
    start = time.perf_counter()
    with step(f"reconstructing {name}") as show:
        done = run(job, VOXEL, lambda progress: show(progress.done, progress.total))
    seconds = time.perf_counter() - start
    with step("comparing with the truth"):
        comparison = compare(done.volume, simulation.volume)
        return done, Score(comparison, motion_error(done.result, simulation), seconds)


def motion_error(result: gsvr.Result, simulation: Simulation) -> PoseErrors:
    """How far the pixels of every slice that shows the brain are from their true place."""
    slices = result.slices
    true = np.stack(
        [simulation.poses[stack][k] for stack, k in zip(slices.stack_index, slices.slice_index, strict=True)]
    )
    positions, inside = slices.pixel_positions(), slices.mask & in_brain(slices.pixel_positions(true), simulation)
    points = [positions[pixels][inside[pixels]] for pixels in map(slices.pixels_of, range(slices.n_slices))]
    shown = [s for s in range(slices.n_slices) if len(points[s])]
    return pose_errors(result.poses[shown], true[shown], [points[s] for s in shown])


def in_brain(points: np.ndarray, simulation: Simulation) -> np.ndarray:
    """Which points (volume world, mm) are inside the brain."""
    volume = simulation.volume
    assert volume.mask is not None
    index = np.rint(transform_points(np.linalg.inv(volume.affine), points)).astype(int)
    on_grid = np.all((index >= 0) & (index < np.array(volume.mask.shape)), axis=1)
    index[~on_grid] = 0
    return volume.mask[tuple(index.T)] & on_grid


def write_stacks(simulation: Simulation, folder: Path) -> None:
    """Stacks, masks and sidecars, as one would get them from a scanner, for the command line and for a viewer."""
    for stack in simulation.stacks:
        assert stack.mask is not None
        gsvr.write_volume(folder / f"{stack.name}.nii.gz", stack.data, stack.affine)
        gsvr.write_volume(folder / f"{stack.name}_mask.nii.gz", stack.mask, stack.affine)
        write_record(
            folder / f"{stack.name}.json", {"SliceThickness": stack.thickness, "SliceTiming": stack.slice_times}
        )


def save_comparison(path: Path, simulation: Simulation, before: Score, after: Score) -> None:
    """Mid-slices of a stack as acquired, the uncorrected volume, the reconstruction and the truth."""
    truth, stack = simulation.volume, simulation.stacks[0]
    rows = [
        ("one of the stacks as acquired", gsvr.Volume(stack.data, stack.affine, stack.mask)),
        ("uncorrected", gsvr.Volume(on_black(before.comparison), truth.affine)),
        ("reconstructed", gsvr.Volume(on_black(after.comparison), truth.affine)),
        ("truth", truth),
    ]
    save_mid_slices(path, rows, PictureOptions(panel_size=300))


def on_black(comparison: Comparison) -> np.ndarray:
    """The aligned volume, whose fitted offset also lifts the empty background, with that background at zero."""
    empty = np.abs(comparison.aligned - comparison.offset) < 1e-3 * np.ptp(comparison.aligned)
    return np.where(empty, np.float32(0), comparison.aligned)


def table(scores: dict[str, Score]) -> Table:
    """The scores, one row each."""
    result = Table(box=box.SIMPLE_HEAD, title="\ncompared with the truth", title_justify="left")
    for name in ("", "PSNR", "SSIM", "pose error", "90th percentile", "time"):
        result.add_column(name, justify="right" if result.columns else "left")
    for name, score in scores.items():
        quality, poses = score.comparison.quality, score.poses
        result.add_row(
            name,
            f"{quality.psnr:.1f} dB",
            f"{quality.ssim:.3f}",
            f"{poses.median:.2f} mm",
            f"{poses.p90:.2f} mm",
            f"{score.seconds:.0f} s",
        )
    return result


if __name__ == "__main__":
    main()
