"""Small acquisitions, good and bad, with their truth: what ``make bench-robustness`` reconstructs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from scipy import ndimage

from benchmarks.subjects import OUTPUT, data_folder
from gsvr.io.nifti import read_volume
from gsvr.model.geometry import invert, pose_about
from gsvr.model.morphology import bounding_box
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.simulation.artefacts import coil_field, draw_gains, draw_signal_losses, magnitude
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import SimulationOptions, simulate

Wrong = Literal["", "noise", "one noise", "brains", "one brain", "copies", "one copy", "parallel", "nearly parallel"]

# All brains are shrunk to the same size, so that they could be mistaken for each other, and a run takes seconds.
_VOLUME = 60_000.0
_SPACING, _THICKNESS = 1.6, 3.2
_MOST_STACKS = 6

BRAINS = (
    *("phantom", "fidon-GA22_notoperated", "fidon-GA24_notoperated", "fidon-GA27_operated"),
    *("fidon-GA30_operated", "fidon-GA33_operated", "crl-27", "crl-33"),
)


@dataclass(frozen=True)
class Case:
    """What is acquired, and what goes wrong.

    Attributes
    ----------
    brain
        One of `BRAINS`.
    motion, n_stacks, noise, gain, bias, signal_loss, seed
        As in `gsvr.simulation.simulate.SimulationOptions`.
    spots
        Share of slices that keep only 10 to 40 % of their signal in a part of the brain.
    stripes
        Share of its signal that every other slice lacks, as where slices excite their neighbours.
    turn, shift
        By how much (degrees, mm) the subject turned and moved between any two stacks.
    coverage
        Share of its slices that each stack has, cut at alternating ends.
    wrong
        Which stacks do not show what they should.
    """

    brain: str
    motion: str = "moderate"
    n_stacks: int = 4
    noise: float = 0.03
    gain: float = 0.03
    bias: float = 0.0
    signal_loss: float = 0.01
    spots: float = 0.0
    stripes: float = 0.0
    turn: float = 0.0
    shift: float = 0.0
    coverage: float = 1.0
    wrong: Wrong = ""
    seed: int = 0


@dataclass(frozen=True)
class Acquired:
    """Stacks and what is true of them; `poses` are those of all slices of each stack."""

    stacks: list[Stack]
    poses: list[np.ndarray]
    truth: Volume


@lru_cache(maxsize=8)
def brain(name: str) -> Volume:
    """A brain of 60 ml around the world's origin, in voxels of about 1 mm."""
    kind, _, which = name.partition("-")
    if kind == "phantom":
        volume = brain_phantom(1.6, seed=int(which or 0))
    elif kind == "fidon":
        folder = data_folder() / "atlas-fidon-cc0"
        volume = read_volume(folder / f"{which}_srr.nii.gz", folder / f"{which}_mask.nii.gz")
    else:
        folder = data_folder() / "atlas-crl"
        volume = read_volume(folder / f"STA{which}.nii.gz", folder / f"STA{which}_mask_dil.nii.gz")
    assert volume.mask is not None
    scale = (_VOLUME / (volume.mask.sum() * float(np.prod(volume.spacing)))) ** (1 / 3)
    box = bounding_box(volume.mask, 2)
    # voxels as wide as pixels: sampling finer ones would take longer than reconstructing
    ratios = scale * volume.spacing / _SPACING
    smooth = ndimage.gaussian_filter((volume.data * volume.mask)[box], 0.4 / ratios)
    data, inside = (
        np.asarray(ndimage.zoom(part, ratios, order=1, grid_mode=True, mode="grid-constant"))
        for part in (smooth, volume.mask[box].astype(np.float32))
    )
    mask = np.greater(inside, 0.5)
    axes = volume.affine[:3, :3] / volume.spacing * _SPACING
    placed = Volume((data * mask).astype(np.float32), np.block([[axes, np.zeros((3, 1))], [0, 0, 0, 1.0]]), mask)
    affine = placed.affine.copy()
    affine[:3, 3] -= placed.centre(mask)
    return Volume(placed.data, affine, mask)


def clean(name: str, motion: str, seed: int) -> tuple[list[Stack], list[np.ndarray]]:
    """Stacks without artefacts, and true poses; kept, since sampling takes longer than a reconstruction."""
    path = OUTPUT / "robustness" / f"{name}_{motion}_{seed}.npz"
    if not path.exists():
        options = SimulationOptions(
            n_stacks=_MOST_STACKS, in_plane_spacing=_SPACING, thickness=_THICKNESS, motion=motion, noise=0.0, gain=0.0,
            signal_loss=0.0, seed=seed,
        )  # fmt: skip
        made = simulate(brain(name), options)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for k, (stack, poses) in enumerate(zip(made.stacks, made.poses, strict=True)):
            parts = {"data": stack.data, "mask": stack.mask, "affine": stack.affine, "poses": poses}
            arrays |= {f"{part}{k}": value for part, value in parts.items()}
        np.savez_compressed(path, **arrays)
    with np.load(path) as arrays:
        stacks = [
            Stack(f"stack-{k}", arrays[f"data{k}"], arrays[f"affine{k}"], _THICKNESS, arrays[f"mask{k}"])
            for k in range(_MOST_STACKS)
        ]
        return stacks, [arrays[f"poses{k}"] for k in range(_MOST_STACKS)]


def acquire_case(case: Case) -> Acquired:
    """The stacks of a case."""
    truth = brain(case.brain)
    rng = np.random.default_rng([case.seed, 1])
    stacks, poses = _chosen(case)
    points = truth.voxel_positions(truth.mask)
    brightest = float(np.percentile(truth.data[truth.mask], 99))
    counts = [stack.n_slices for stack in stacks]
    gains = draw_gains(counts, case.gain, rng)
    losses = draw_signal_losses([s.slice_times for s in stacks], poses, np.zeros(3), case.signal_loss, rng)
    recorded = []
    for number, stack in enumerate(stacks):
        signal = stack.data * gains[number] * losses[number]
        signal = signal * coil_field(stack.affine, stack.data.shape, points, case.bias, rng)
        if case.wrong == "noise" or (case.wrong == "one noise" and number == 1):
            signal = 0 * signal
        if case.spots or case.stripes:
            signal = signal * _unevenness(stack, case, number)
        data = magnitude(signal, case.noise * brightest, rng)
        recorded.append(replace(stack, name=f"stack-{number}", data=data))
    stacks = recorded
    if case.wrong == "copies":
        stacks, poses = [stacks[0]] * 3, [poses[0]] * 3
    elif case.wrong == "one copy":
        stacks, poses = [*stacks[:3], stacks[1]], [*poses[:3], poses[1]]
    stacks = [replace(stack, name=f"stack-{number}") for number, stack in enumerate(stacks)]
    for number in range(len(stacks)):
        stacks[number], poses[number] = _partial(stacks[number], poses[number], case.coverage, number)
        if number and (case.turn or case.shift):
            stacks[number], poses[number] = _turned(stacks[number], poses[number], case.turn, case.shift, rng)
    return Acquired(stacks, poses, truth)


def _unevenness(stack: Stack, case: Case, number: int) -> np.ndarray:
    """Factor on every pixel: spots where signal is lost, and every other slice darker."""
    assert stack.mask is not None
    rng, factor = np.random.default_rng([case.seed, 2, number]), np.ones(stack.data.shape)
    factor[:, :, 1::2] -= case.stripes
    grid = np.moveaxis(np.indices(stack.data.shape[:2]), 0, -1)
    for k in np.flatnonzero(stack.mask.any(axis=(0, 1))):
        if rng.random() >= case.spots:
            continue
        shown = np.argwhere(stack.mask[:, :, k])
        centre, radius, kept = rng.choice(shown), rng.uniform(0.2, 0.45) * np.sqrt(len(shown)), rng.uniform(0.1, 0.4)
        outside = 1 / (1 + np.exp(radius - np.linalg.norm(grid - centre, axis=-1)))
        factor[:, :, k] *= kept + (1 - kept) * outside
    return factor


def _chosen(case: Case) -> tuple[list[Stack], list[np.ndarray]]:
    """Clean stacks, by what is wrong with them."""
    stacks, poses = clean(case.brain, case.motion, case.seed)
    if case.wrong in ("brains", "one brain"):
        first = BRAINS.index(case.brain)
        for k in range(1 if case.wrong == "brains" else 2, case.n_stacks if case.wrong == "brains" else 3):
            others = clean(BRAINS[(first + k) % len(BRAINS)], case.motion, case.seed)
            own, other = (float(np.percentile(s[k].data[s[k].mask], 99)) for s in (stacks, others[0]))
            stacks[k] = replace(others[0][k], data=others[0][k].data * np.float32(own / other))
            poses[k] = others[1][k]
    if case.wrong == "parallel":
        again = clean(case.brain, case.motion, case.seed + 1)
        return [stacks[0], again[0][0]], [poses[0], again[1][0]]
    if case.wrong == "nearly parallel":
        return [stacks[0], stacks[3]], [poses[0], poses[3]]
    return stacks[: case.n_stacks], poses[: case.n_stacks]


def _partial(stack: Stack, poses: np.ndarray, share: float, number: int) -> tuple[Stack, np.ndarray]:
    """The first or the last part of the slices that show the brain, in turn from stack to stack."""
    if share >= 1:
        return stack, poses
    assert stack.mask is not None
    shown = np.flatnonzero(stack.mask.any(axis=(0, 1)))
    kept = round(share * len(shown))
    first = 0 if number % 2 == 0 else int(shown[-kept])
    last = int(shown[kept - 1]) + 1 if number % 2 == 0 else stack.n_slices
    affine = stack.affine.copy()
    affine[:3, 3] += affine[:3, 2] * first
    part = slice(first, last)
    times = np.argsort(np.argsort(stack.slice_times[part])).astype(np.float64)
    return (
        Stack(stack.name, stack.data[:, :, part], affine, stack.thickness, stack.mask[:, :, part], times),
        poses[part],
    )


def _turned(
    stack: Stack, poses: np.ndarray, turn: float, shift: float, rng: np.random.Generator
) -> tuple[Stack, np.ndarray]:
    """The stack as if the subject, and the slices with it, had turned before: the same pixels in another place."""
    axis, direction = rng.standard_normal((2, 3))
    moved = pose_about(
        np.deg2rad(turn) * axis / np.linalg.norm(axis), shift * direction / np.linalg.norm(direction), np.zeros(3)
    )
    return replace(stack, affine=moved @ stack.affine), poses @ invert(moved)


def all_cases() -> list[Case]:
    """Every case, brain by brain in turn, so that what there is after a while is of all brains."""
    lines: list[dict[str, Any]] = [
        *({"motion": motion} for motion in ("none", "mild", "moderate", "severe")),
        *({"motion": m, "n_stacks": n} for m in ("moderate", "severe") for n in (2, 3, 6)),
        *({"signal_loss": share} for share in (0.1, 0.2, 0.3)),
        *({"spots": share} for share in (0.1, 0.3)),
        *({"gain": spread} for spread in (0.1, 0.3)),
        *({"stripes": share} for share in (0.2, 0.4)),
        *({"bias": spread} for spread in (0.2, 0.4)),
        *({"noise": spread} for spread in (0.1, 0.2, 0.4)),
        *({"turn": degrees, "shift": shift} for degrees, shift in ((30, 10), (60, 20), (90, 30), (180, 20))),
        *({"coverage": share} for share in (0.7, 0.5)),
        *({"wrong": wrong} for wrong in get_args(Wrong) if wrong),
        {"motion": "severe", "n_stacks": 6, "signal_loss": 0.05, "gain": 0.1, "bias": 0.2},
        {"motion": "severe", "signal_loss": 0.2, "gain": 0.3, "bias": 0.4, "noise": 0.1},
    ]
    return [Case(brain, **line) for line in lines for brain in BRAINS]
