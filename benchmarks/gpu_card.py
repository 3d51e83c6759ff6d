"""What ``make bench-gpu`` measures on a card, always against the CPU's backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import torch

from benchmarks.machine import provenance
from benchmarks.speed_acquisitions import USUAL, SpeedAcquisition, make_stacks, phantom_field
from gsvr.backends import named
from gsvr.backends.planes import ParallelPlanes
from gsvr.backends.protocol import Backend
from gsvr.backends.torch.backend import TorchBackend
from gsvr.evaluation import compare
from gsvr.masks.first import first_masks
from gsvr.model.fields import GaussianField, Lattice, lattice_covering
from gsvr.model.geometry import identity_poses, pose_about, rotation_from_vector
from gsvr.model.neighbours import find_neighbours
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices, Stack, interleaved_times, slices_from_stacks
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator
from gsvr.render.volume import render_volume
from gsvr.solver.motion import displacements
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions, default_stages

# Of the largest value, with a cut-off that costs nothing: the exponential of the CPU's kernels is good to 5e-6, and
# derivatives are products with it.
TOLERANCE = 5e-5
_WIDE, _EDGE, _GAUSSIANS, _NEIGHBOURS = 6.0, 0.01, 40, 6
# Of the finest lattice of the usual acquisition (mm), and of the volume.
_SPACING, _SIGMA_RATIO, VOXEL = 1.0, 0.6, 0.8


def describe_card(device: torch.device) -> dict[str, Any]:
    """Name, compute capability and memory of a card, and the versions around it."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "gigabytes": properties.total_memory / 1e9,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": metadata.version("triton"),
        **provenance(),
    }


def small_problem(pixels: int) -> tuple[Slices, np.ndarray]:
    """Two oblique stacks of two slices, about `pixels` wide, of unequal size and spacing, and their poses."""
    rng = np.random.default_rng(0)
    stacks, masks = [], []
    for number in range(2):
        shape, spacing = (pixels - 3 * number, pixels - 2, 2), np.array([1.1, 1.0 + 0.3 * number, 3.0])
        affine = np.eye(4)
        affine[:3, :3] = rotation_from_vector(rng.normal(size=3)) * spacing
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        masks.append(np.ones(shape, bool))
        data = rng.random(shape, dtype=np.float32)
        stacks.append(Stack(str(number), data, affine, 3.0 - number / 2, masks[-1], interleaved_times(2)))
    slices = slices_from_stacks(stacks, masks)
    n = slices.n_slices
    return slices, pose_about(0.15 * rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), slices.centres)


def full_mixture(slices: Slices) -> PointSpread:
    """Three components with full covariances and offsets in all directions."""
    rng = np.random.default_rng(5)
    roots = rng.normal(scale=0.6, size=(slices.n_slices, 3, 3, 3))
    covariances = roots @ np.swapaxes(roots, 2, 3) + 0.05 * np.eye(3)
    return PointSpread(np.array([0.5, 0.2, 0.3]), rng.normal(scale=0.7, size=(slices.n_slices, 3, 3)), covariances)


def random_gaussians(lattice: Lattice) -> GaussianField:
    """Stretched and turned Gaussians within the bounds of a lattice."""
    rng = np.random.default_rng(1)
    low, high = lattice.origin, lattice.origin + lattice.spacing * (np.array(lattice.shape) - 1)
    return GaussianField(
        rng.uniform(low, high, (_GAUSSIANS, 3)).astype(np.float32),
        np.log(rng.uniform(0.6, 2.0, (_GAUSSIANS, 3))).astype(np.float32),
        rng.normal(size=(_GAUSSIANS, 4)).astype(np.float32),
        rng.uniform(-0.5, 1, _GAUSSIANS).astype(np.float32),
    )


def check_kernels(card: TorchBackend, pixels: int = 60) -> dict[str, Any]:
    """Largest errors against the CPU, as shares of the largest value, and whether all are in order."""
    slices, poses = small_problem(pixels)
    lattice = lattice_covering(slices.pixel_positions(), 2.5, 1.6, 2.5)
    field = random_gaussians(lattice)
    rng = np.random.default_rng(2)
    amplitudes = (rng.uniform(-0.5, 1, lattice.shape) * lattice.support).astype(np.float32)

    def on_lattice(backend: Backend) -> AcquisitionOperator:
        return LatticeOperator(lattice, slices, poses, None, "slab", backend, _WIDE)

    def slab(backend: Backend) -> GaussianOperator:
        return GaussianOperator(field, slices, poses, None, "slab", backend, _WIDE)

    def mixture(backend: Backend) -> GaussianOperator:
        return GaussianOperator(field, slices, poses, None, full_mixture, backend, _WIDE)

    errors = _operator_errors("lattice", on_lattice, amplitudes, card)
    errors |= _operator_errors("free", slab, field.amplitudes, card)
    errors |= _operator_errors("free, full mixture", mixture, field.amplitudes, card)
    errors |= _other_errors(lattice, amplitudes, field, card)
    return {"errors": errors, "tolerance": TOLERANCE, "passed": max(errors.values()) <= TOLERANCE}


def _operator_errors(
    name: str, make: Callable[[Backend], AcquisitionOperator], amplitudes: np.ndarray, card: TorchBackend
) -> dict[str, float]:
    """Of an operator's products, of its derivatives, and of the sums that make pose equations."""
    both: list[dict[str, np.ndarray]] = []
    for backend in (card, named("cpu")):
        operator, c = make(backend), backend.array(amplitudes)
        r = operator.pixels.values
        value, by_pose = operator.pose_derivatives(c)
        equations = operator.pose_equations(c, 0.9 * r, operator.pixels.coverage)
        found = {
            "predict": operator.predict(c),
            "adjoint": operator.adjoint(r),
            "squared adjoint": operator.diagonal(r),
        }
        found |= {"derivatives, pixels": value} | {f"derivatives {n}": part for n, part in enumerate(by_pose)}
        on_host = {key: backend.host(part) for key, part in found.items()}
        on_host |= {"pose equations": equations.curvature, "pose equations, gradient": equations.gradient}
        if isinstance(operator, GaussianOperator):
            gradient = operator.geometry_gradient(c, r)
            on_host |= {f"gradient by {key}": part for key, part in vars(gradient).items()}
        both.append(on_host)
    return {f"{name}: {key}": largest_error(both[0][key], both[1][key]) for key in both[0]}


def _other_errors(
    lattice: Lattice, amplitudes: np.ndarray, field: GaussianField, card: TorchBackend
) -> dict[str, float]:
    """Of bonds, links and rendering."""
    neighbours = find_neighbours(field, _NEIGHBOURS)
    to_planes = np.column_stack([rotation_from_vector(np.array([0.4, -0.5, 0.8])), [6.0, 5.0, 4.0]])
    planes = ParallelPlanes(to_planes, (3, 18, 12), (1.2, 0.9, 0.8), np.ones(1), np.zeros(1), np.zeros(1))
    both: list[dict[str, np.ndarray]] = []
    for backend in (card, named("cpu")):
        c, free = backend.array(amplitudes), backend.array(field.amplitudes)
        bonds, links = backend.lattice_bonds(lattice, 0.01 * c, _EDGE), backend.neighbour_links(neighbours, free, 2.0)
        found = {"bonds": bonds.apply(c, 0.7, c), "bonds, diagonal": bonds.diagonal()}
        found |= {"links": links.apply(free, 0.7, free), "links, diagonal": links.diagonal()}
        on_host = {key: backend.host(part) for key, part in found.items()}
        both.append(on_host | {"rendering": backend.sample_planes(field, planes, _WIDE)})
    return {key: largest_error(both[0][key], both[1][key]) for key in both[0]}


def largest_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference, as a share of the largest value."""
    return float(np.abs(got - want).max() / np.abs(want).max())


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Median time of `work` on the card, after three calls that are not counted (the first compiles)."""
    times = []
    for number in range(repeats + 3):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if number >= 3:
            times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


def slices_of(acquisition: SpeedAcquisition) -> Slices:
    """The pixels in memory, with room for the mask to grow, as `gsvr reconstruct` has them."""
    stacks = make_stacks(acquisition)
    masks = first_masks(stacks)
    return slices_from_stacks(stacks, masks.masks, masks.fields_of_view, masks.drawn)


def time_kernels(
    card: TorchBackend, acquisition: SpeedAcquisition = USUAL, spacing: float = _SPACING
) -> dict[str, Any]:
    """Milliseconds of every kernel at the size of the last stage, and nanoseconds a splat.

    A splat is a pair of a Gaussian and a slice that touch, as the CPU's kernels count them.
    """
    slices = slices_of(acquisition)
    poses = identity_poses(slices.n_slices)
    lattice = lattice_covering(slices.pixel_positions(pixels=slices.mask), spacing, _SIGMA_RATIO * spacing, spacing)
    ones = np.ones(lattice.shape, np.float32) * lattice.support
    field = LatticeOperator(lattice, slices, poses).field(ones).to_gaussians()
    return {
        "lattice": _times(lambda backend: LatticeOperator(lattice, slices, poses, backend=backend), ones, card),
        "free": _times(lambda backend: GaussianOperator(field, slices, poses, backend=backend), field.amplitudes, card),
    }


def _times(
    make: Callable[[Backend], AcquisitionOperator], amplitudes: np.ndarray, card: TorchBackend
) -> dict[str, Any]:
    operator, c = make(card), card.array(amplitudes)
    r, n_splats = operator.pixels.values, int(getattr(make(named("cpu"))._kernel, "n_splats"))  # noqa: B009
    works: dict[str, Callable[[], object]] = {
        "plan": lambda: make(card),
        "predict": lambda: operator.predict(c),
        "adjoint": lambda: operator.adjoint(r),
        "squared adjoint": lambda: operator.diagonal(r),
        "pose equations": lambda: operator.pose_equations(c, r, operator.pixels.coverage),
    }
    if isinstance(operator, GaussianOperator):
        works["gradient"] = lambda: operator.geometry_gradient(c, r)
    times = {name: milliseconds(work) for name, work in works.items()}
    return {
        "splats": n_splats,
        "milliseconds": times,
        "nanoseconds_a_splat": {name: 1e6 * value / n_splats for name, value in times.items()},
    }


def measure_reconstructions(
    card: TorchBackend, acquisition: SpeedAcquisition = USUAL, finest: float = _SPACING
) -> dict[str, Any]:
    """Both presets on the card and on the CPU: seconds from pixels in memory to a volume, PSNR, poses, equal bits."""
    slices, truth = slices_of(acquisition), phantom_field()[1]
    found: dict[str, Any] = {"pixels": slices.n_pixels}
    for preset, free in (("default", True), ("fast", False)):
        runs = {}
        for run, backend in (("compiles", card.name), ("card", card.name), ("cpu", "cpu")):
            started = time.perf_counter()
            result = reconstruct(slices, SolverOptions(stages=default_stages(finest, free), backend=backend))
            volume = render_volume(result.field, VOXEL, result.mask, backend=backend)
            runs[run] = result, volume, time.perf_counter() - started
        apart = displacements(slices, runs["cpu"][0].poses, runs["card"][0].poses)
        found[preset] = {
            "seconds": {run: seconds for run, (_, _, seconds) in runs.items()},
            "psnr": {run: compare(runs[run][1], truth).quality.psnr for run in ("card", "cpu")},
            "median_pose_difference_mm": float(np.median(apart)),
            "percentile_90_pose_difference_mm": float(np.percentile(apart, 90)),
            "equal_bits": bool(np.array_equal(runs["compiles"][1].data, runs["card"][1].data)),
            "gigabytes": torch.cuda.max_memory_allocated() / 1e9,
        }
    return found
