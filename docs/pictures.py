"""Draw the pictures of the documentation, all of them from the phantom: ``python -m docs.pictures``.

Needs the development tools (Matplotlib); takes a minute or two.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
from matplotlib import pyplot
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.special import ndtr

import gsvr
from examples import super_resolution
from examples.demo import Score, motion_error, on_black
from gsvr.evaluation import compare
from gsvr.io.atomic import atomic_path
from gsvr.model.fields import Field
from gsvr.model.point_spread import PROFILES
from gsvr.report.picture import PictureOptions, mid_slices_picture, panel_box
from gsvr.simulation.simulate import Simulation, SimulationOptions, simulate
from gsvr.simulation.slice_sampling import SLAB_EDGE
from gsvr.solver.motion import LEVER, pose_parameters, time_links
from gsvr.solver.reconstruct import Progress
from gsvr.workflows.pipeline import Job, prepare_masks, run, slices_of

IMAGES = Path(__file__).parent / "images"
PANEL, GAP, LABEL = 225, 6, 30
COLOURS = ("#0072b2", "#d55e00", "#009e73")


def main() -> None:
    """Simulate and reconstruct once, then draw everything."""
    matplotlib.use("agg")
    draw_profiles(IMAGES / "profiles.png")
    draw_super_resolution(IMAGES / "super_resolution.png")
    simulation = simulate(gsvr.brain_phantom(), SimulationOptions())
    options = gsvr.fitting_options(simulation.stacks, gsvr.SolverOptions())
    masks = prepare_masks(simulation.stacks, options)
    slices = slices_of(simulation.stacks, masks)
    fields: dict[str, Field] = {}

    def keep(progress: Progress) -> None:
        fields[progress.stage.name] = progress.state.field

    final = gsvr.default_stages(options.stages[-1].spacing, free=False)[-1:]
    without = run(Job(simulation.stacks, masks, slices, replace(options, stages=final), {}))
    done = run(Job(simulation.stacks, masks, slices, options, {}), callback=keep)
    before, after = (
        Score(compare(one.volume, simulation.volume), motion_error(one.result, simulation), 0.0)
        for one in (without, done)
    )
    draw_comparison(IMAGES / "phantom.png", simulation, before, after)
    draw_motion(IMAGES / "motion.png", simulation, done.result, after)
    draw_stages(IMAGES / "stages.png", fields, done.result)


def draw_comparison(path: Path, simulation: Simulation, before: Score, after: Score) -> None:
    """Axial and sagittal mid-slices, side by side: as acquired, uncorrected, reconstructed, truth."""
    truth, stack = simulation.volume, simulation.stacks[0]
    columns = {
        "a stack as acquired": gsvr.Volume(stack.data, stack.affine),
        "without motion correction": gsvr.Volume(on_black(before.comparison), truth.affine),
        "reconstructed": gsvr.Volume(on_black(after.comparison), truth.affine),
        "truth": truth,
    }
    _draw_columns(path, truth, columns, planes=(0, 2))


def draw_super_resolution(path: Path) -> None:
    """Axial and coronal mid-slices of a phantom at rest: a thick volume, the average of three, reconstructed, truth."""
    truth = gsvr.brain_phantom()
    stack = simulate(truth, super_resolution.AT_REST).stacks[0]
    columns = {"one of three volumes": gsvr.Volume(stack.data, stack.affine)}
    with TemporaryDirectory() as folder:
        for name, comparison in super_resolution.main(Path(folder)).items():
            columns[name] = gsvr.Volume(on_black(comparison), truth.affine)
    _draw_columns(path, truth, {**columns, "truth": truth}, planes=(0, 1))


def _draw_columns(path: Path, truth: gsvr.Volume, columns: dict[str, gsvr.Volume], planes: tuple[int, int]) -> None:
    """Two planes (0 axial, 1 coronal, 2 sagittal) of every volume."""
    options = PictureOptions(panel_size=PANEL)
    # the first volume decides where to cut and how bright to show; with some background, black is zero
    assert truth.mask is not None
    first = replace(truth, mask=ndimage.binary_dilation(truth.mask, iterations=4))
    drawn = mid_slices_picture([("", first), *columns.items()], options)
    picture = Image.new("RGB", (len(columns) * (PANEL + GAP) + GAP, 2 * (PANEL + GAP) + LABEL), (22, 22, 24))
    font = ImageFont.load_default(16)
    for column, name in enumerate(columns):
        left = GAP + column * (PANEL + GAP)
        ImageDraw.Draw(picture).text((left + PANEL / 2, LABEL / 2), name, (235, 235, 235), font, anchor="mm")
        for row, plane in enumerate(planes):
            picture.paste(drawn.crop(panel_box(column + 1, plane, options)), (left, LABEL + row * (PANEL + GAP)))
    with atomic_path(path) as temporary:
        picture.save(temporary, optimize=True)


def draw_motion(path: Path, simulation: Simulation, result: gsvr.Result, score: Score) -> None:
    """True and estimated motion of every slice in the order of acquisition."""
    slices = result.slices
    true = np.stack(
        [simulation.poses[stack][k] for stack, k in zip(slices.stack_index, slices.slice_index, strict=True)]
    )
    known, found = (pose_parameters(slices, poses) for poses in (true, score.poses.global_rigid @ result.poses))
    shown = slices.sum_per_slice(slices.mask) > 0
    _, axes = pyplot.subplots(2, 1, figsize=(9, 4.6), sharex=True, layout="constrained")
    start = 0
    for order in time_links(slices):
        order = order[shown[order]]
        x = start + np.arange(len(order))
        for part, colour in enumerate(COLOURS):
            axes[0].plot(x, known[order, 3 + part], color=colour, linewidth=1)
            axes[0].plot(x, found[order, 3 + part], ".", color=colour, markersize=4)
            axes[1].plot(x, np.rad2deg(known[order, part] / LEVER), color=colour, linewidth=1)
            axes[1].plot(x, np.rad2deg(found[order, part] / LEVER), ".", color=colour, markersize=4)
        start += len(order)
        for axis in axes:
            axis.axvline(start - 0.5, color="0.8", linewidth=1, zorder=0)
    axes[0].set_ylabel("translation (mm)")
    axes[1].set_ylabel("rotation (degrees)")
    axes[1].set_xlabel("slices in the order of acquisition; vertical lines separate the stacks")
    axes[0].set_title("lines: true motion, dots: estimated; blue, orange, green: along and about x, y, z", fontsize=10)
    axes[1].set_xlim(-1, start)
    _save(path)


def draw_stages(path: Path, fields: dict[str, Field], result: gsvr.Result) -> None:
    """An axial slice of the volume at the end of every stage."""
    volumes = {name: gsvr.render_volume(field, 0.8, result.mask) for name, field in fields.items()}
    _, axes = pyplot.subplots(1, len(volumes), figsize=(2.0 * len(volumes), 3.0), layout="constrained")
    for axis, (name, volume) in zip(axes, volumes.items(), strict=True):
        height = round(float(-volume.affine[2, 3] / volume.spacing[2]))
        axis.imshow(volume.data[:, :, height].T[::-1, ::-1], cmap="gray", vmin=0, vmax=1.05)
        n_gaussians = fields[name].n_gaussians
        axis.set_title(f"{name}\n{n_gaussians:,} Gaussians", fontsize=9)
        axis.axis("off")
    _save(path)


def draw_profiles(path: Path) -> None:
    """The slice profiles beside the slab of the simulator, as they are and as the finest Gaussians see them."""
    _, axes = pyplot.subplots(1, 2, figsize=(9, 3.3), sharey=True, layout="constrained")
    w = np.linspace(-1.2, 1.2, 481)
    edges = {"the profile itself": 0.0, "seen by Gaussians of sigma 0.6 mm, 3 mm thick": 0.2}
    for axis, (title, blur) in zip(axes, edges.items(), strict=True):
        edge = np.hypot(SLAB_EDGE, blur)
        slab = ndtr((w + 0.5) / edge) - ndtr((w - 0.5) / edge)
        axis.fill_between(w, slab, color="0.87", label="slab with soft edges, as simulated")
        for (name, mixture), colour in zip(PROFILES.items(), COLOURS, strict=True):
            axis.plot(w, _density(w, mixture, blur), color=colour, label=f'"{name}"')
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("distance from the middle plane / thickness")
        axis.set_xlim(-1.2, 1.2)
        axis.set_ylim(0, 1.55)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("sensitivity x thickness")
    axes[1].legend(frameon=False, fontsize=9, loc="upper left")
    _save(path)


def _density(w: np.ndarray, mixture: tuple[tuple[float, ...], ...], blur: float) -> np.ndarray:
    """A mixture of `gsvr.model.point_spread.PROFILES`, convolved with a Gaussian of standard deviation `blur`."""
    total = np.zeros_like(w)
    for weight, offset, sigma in zip(*mixture, strict=True):
        wide = np.hypot(sigma, blur)
        total += weight / (wide * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((w - offset) / wide) ** 2)
    return total


def _save(path: Path) -> None:
    with atomic_path(path) as temporary:
        pyplot.savefig(temporary, dpi=110)
    pyplot.close()


if __name__ == "__main__":
    main()
