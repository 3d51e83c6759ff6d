"""Simulated acquisitions with known truth: moving slices of a volume as a scanner would record them.

The forward physics is numerical integration (`gsvr.simulation.slice_sampling`), not the reconstruction's closed form.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.model.geometry import rotation_from_vector
from gsvr.model.slices import Stack, interleaved_times
from gsvr.model.volume import Volume
from gsvr.simulation.artefacts import coil_field, draw_gains, draw_signal_losses, magnitude
from gsvr.simulation.motion import MOTION_LEVELS, MotionLevel, draw_poses, mean_displacement
from gsvr.simulation.slice_sampling import SLICE_PROFILES, SliceSampler, sample_mask

logger = logging.getLogger(__name__)

# In-plane axes and slice normal of axial, coronal and sagittal stacks, as converters write them: columns run
# to the left or the back, and the handedness of the three differs.
_ORIENTATIONS = (
    np.array([[-1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]).T,
    np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]]).T,
    np.array([[0, -1.0, 0], [0, 0, 1.0], [1.0, 0, 0]]).T,
)
_TILT = (10.0, 20.0)
# Field of view beyond the brain (mm), and what is added for each mm of mean displacement.
_MARGIN, _MARGIN_PER_DISPLACEMENT = 4.0, 1.5
_MASK_DILATION = 2
# What is drawn independently; a new one goes last, so that old seeds keep their meaning.
_CHANCE = ("geometry", "motion", "gain", "bias", "loss", "noise")
# What an option may be: nothing that exists lies outside.
_RANGES = {
    "n_stacks": (1, 1000),
    "in_plane_spacing": (0.1, 100.0),
    "thickness": (0.1, 100.0),
    "slice_spacing": (0.1, 100.0),
    "noise": (0.0, 100.0),
    "gain": (0.0, 5.0),
    "bias": (0.0, 5.0),
    "signal_loss": (0.0, 1.0),
    "seed": (0, 2**63 - 1),
}
# Digits of a number that cannot be meant that are told.
_LONGEST_NUMBER = 20
# Without a mask the anatomy is where the volume exceeds this share of its maximum.
_MASK_THRESHOLD = 0.05


@dataclass(frozen=True)
class SimulationOptions:
    """What to acquire and what goes wrong.

    Attributes
    ----------
    n_stacks
        Axial, coronal, sagittal, then the same three tilted by 10 to 20 degrees and shifted by half a slice.
    in_plane_spacing, thickness, slice_spacing
        Pixel spacing, slice thickness and distance between slices (mm); None: slices touch.
    profile
        ``"slab"`` or ``"gaussian"``, see `gsvr.simulation.slice_sampling.through_plane_profile`.
    motion
        Level of motion, a key of `gsvr.simulation.motion.MOTION_LEVELS`.
    noise
        Standard deviation of the noise of the real and imaginary channel, as a share of the 99th percentile
        of the intensity inside the mask.
    gain
        Standard deviation of the logarithm of the slices' gains; None: by the level of motion.
    bias
        Standard deviation of the logarithm of each stack's receive-coil field, which stays with the scanner.
    signal_loss
        Share of slices that keep only 20 to 60 % of their signal; None: by the level of motion.
    seed
        Source of all chance. Motion, gains, coil fields, losses and noise are drawn independently: changing
        the noise leaves the motion as it was.
    """

    n_stacks: int = 6
    in_plane_spacing: float = 1.1
    thickness: float = 3.0
    slice_spacing: float | None = None
    profile: str = "slab"
    motion: str = "moderate"
    noise: float = 0.03
    gain: float | None = None
    bias: float = 0.0
    signal_loss: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                given = str(value)
                given = given if len(given) <= _LONGEST_NUMBER else f"{given[:_LONGEST_NUMBER]}..."
                raise InputError(f"`{name}` must be between {least:g} and {most:g}, not {given}")
        if self.motion not in MOTION_LEVELS:
            raise InputError(f"unknown motion {self.motion!r}: choose one of {', '.join(MOTION_LEVELS)}")
        if self.profile not in SLICE_PROFILES:
            known = ", ".join(SLICE_PROFILES)
            raise InputError(f"unknown slice profile {self.profile!r}: choose one of {known}")

    @property
    def level(self) -> MotionLevel:
        """The level of motion."""
        return MOTION_LEVELS[self.motion]


@dataclass(frozen=True)
class Simulation:
    """An acquisition and its truth; lists have one entry a stack, arrays one a slice.

    Attributes
    ----------
    stacks
        What was recorded. A stack's mask is the anatomy seen by its moved slices, two pixels wider.
    poses
        True poses: acquired world -> volume world.
    volume
        What was imaged, with the mask that was used.
    gains
        True gains, their mean over all slices is one; without signal loss.
    signal_losses
        Share of the signal that a slice kept: one, or 0.2 to 0.6.
    noise_sigma
        Standard deviation of the noise of the real and imaginary channel, in units of intensity.
    mean_displacement
        How far brain voxels are from where they belong, over all slices (mm).
    options
        How it was made.
    """

    stacks: list[Stack]
    poses: list[Float[np.ndarray, "_ 4 4"]]
    volume: Volume
    gains: list[Float[np.ndarray, " _"]]
    signal_losses: list[Float[np.ndarray, " _"]]
    noise_sigma: float
    mean_displacement: float
    options: SimulationOptions


def simulate(
    volume: Volume,
    options: SimulationOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Acquire stacks of slices of a moving `volume`.

    Parameters
    ----------
    volume
        Zero outside the anatomy. Without a mask, the anatomy is where it exceeds 5 % of its maximum.
    options
        Geometry, motion and artefacts.
    progress
        Called with the number of slices done and their total.

    Raises
    ------
    InputError
        If the mask is empty or no intensity inside it is positive.
    """
    options = SimulationOptions() if options is None else options
    volume, brightest = _with_mask(volume)
    seeds = np.random.SeedSequence(options.seed).spawn(len(_CHANCE))
    chance = {name: np.random.default_rng(seed) for name, seed in zip(_CHANCE, seeds, strict=True)}
    brain = volume.voxel_positions(volume.mask)
    grids = [_stack_grid(number, brain, options, chance["geometry"]) for number in range(options.n_stacks)]
    times = [interleaved_times(shape[2]) for _, shape in grids]
    poses = draw_poses(options.motion, times, brain, chance["motion"])
    spread = options.level.gain if options.gain is None else options.gain
    gains = draw_gains([len(time) for time in times], spread, chance["gain"])
    share = options.level.signal_loss if options.signal_loss is None else options.signal_loss
    losses = draw_signal_losses(times, poses, brain.mean(axis=0), share, chance["loss"])
    clean = _sample_all(volume, grids, poses, options, progress)
    sigma = options.noise * brightest
    stacks = []
    for number, (affine, shape) in enumerate(grids):
        signal = clean[number] * gains[number] * losses[number]
        signal *= coil_field(affine, shape, brain, options.bias, chance["bias"])
        stacks.append(
            Stack(
                name=f"stack-{number}",
                data=magnitude(signal, sigma, chance["noise"]),
                affine=affine,
                thickness=options.thickness,
                mask=_stack_mask(volume, affine, shape, poses[number], options.thickness),
                slice_times=times[number],
            )
        )
    displacement = mean_displacement(poses, brain)
    logger.info("simulated %d stacks, mean displacement %.2f mm", len(stacks), displacement)
    return Simulation(stacks, poses, volume, gains, losses, sigma, displacement, options)


def _with_mask(volume: Volume) -> tuple[Volume, float]:
    """Return the volume with a mask, and the 99th percentile of its intensity inside."""
    mask = volume.data > _MASK_THRESHOLD * volume.data.max() if volume.mask is None else volume.mask
    brightest = float(np.percentile(volume.data[mask], 99)) if mask.any() else 0.0
    if not brightest > 0:
        raise InputError("the volume holds no signal inside its mask: give another volume or mask")
    return Volume(volume.data, volume.affine, mask), brightest


def _stack_grid(
    number: int, brain: Float[np.ndarray, "p 3"], options: SimulationOptions, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "4 4"], tuple[int, int, int]]:
    """Affine and shape of a stack that covers the brain and its motion."""
    axes = _ORIENTATIONS[number % 3]
    again = number // 3
    if again:
        direction, angle = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(*_TILT))
        axis = np.cos(direction) * axes[:, 0] + np.sin(direction) * axes[:, 1]
        axes = rotation_from_vector(angle * axis) @ axes
    between = options.thickness if options.slice_spacing is None else options.slice_spacing
    spacing = np.array([options.in_plane_spacing, options.in_plane_spacing, between])
    along = brain @ axes
    lower, upper = along.min(axis=0), along.max(axis=0)
    margin = _MARGIN + _MARGIN_PER_DISPLACEMENT * options.level.mean_displacement
    counts = np.ceil((upper - lower + 2 * margin) / spacing).astype(int) + 1
    first = (lower + upper) / 2 - (counts - 1) / 2 * spacing
    first[2] += (again % 2) * between / 2
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ first
    return affine, (int(counts[0]), int(counts[1]), int(counts[2]))


def _sample_all(
    volume: Volume,
    grids: list[tuple[np.ndarray, tuple[int, int, int]]],
    poses: list[np.ndarray],
    options: SimulationOptions,
    progress: Callable[[int, int], None] | None,
) -> list[Float32[np.ndarray, "_ _ _"]]:
    """Noise-free slices of all stacks."""
    sampler = SliceSampler(volume, options.in_plane_spacing, options.thickness, options.profile)
    clean = [np.empty(shape, dtype=np.float32) for _, shape in grids]
    jobs = [(number, k) for number, (_, shape) in enumerate(grids) for k in range(shape[2])]

    done, one_at_a_time = 0, threading.Lock()

    def sample(job: tuple[int, int]) -> None:
        nonlocal done
        number, k = job
        affine, shape = grids[number]
        clean[number][:, :, k] = sampler.sample(affine, shape[:2], k, poses[number][k])
        with one_at_a_time:
            done += 1
            if progress is not None:
                progress(done, len(jobs))

    parallel_map(sample, jobs)
    return clean


def _stack_mask(
    volume: Volume, affine: np.ndarray, shape: tuple[int, int, int], poses: np.ndarray, thickness: float
) -> Bool[np.ndarray, "columns rows slices"]:
    """Anatomy seen by the moved slices, somewhere in their thickness, and two pixels around it."""
    assert volume.mask is not None
    planes = np.array([-0.5, 0.0, 0.5]) * thickness / np.linalg.norm(affine[:3, 2])
    mask = np.zeros(shape, dtype=bool)
    for k, pose in enumerate(poses):
        to_index = np.linalg.inv(volume.affine) @ pose @ affine
        seen = sample_mask(volume.mask, to_index, shape[:2], k + planes)
        if seen.any():
            mask[:, :, k] = ndimage.binary_dilation(seen, iterations=_MASK_DILATION)
    return mask
