"""What to acquire next: how much another stack of each direction would lower the uncertainty in the brain.

The posterior of the volume is taken as diagonal in local frequencies: around a place x, the part of the volume with
frequency k has the precision

    1 / S(k) + sum_i m_i(x) |H_i(k)|^2 / noise^2,

with S the power spectrum that brains have, m_i(x) how many believed pixels of slice i lie there (in a mm^3), and H_i
the transfer function of its point spread function, which is what the acquisition operator does to that frequency. The
variance of a voxel is the integral of the inverse over all frequencies. A stack that does not exist yet adds its own
term, whatever it will show; so its gain can be told beforehand. Places and frequencies are independent in this
approximation, which is exact where slices are many and alike; aliasing between far slices is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from gsvr.model.point_spread import Profile, spread_of
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.solver.state import Result


@dataclass(frozen=True)
class NextStackOptions:
    """What is compared, and what counts as enough.

    Attributes
    ----------
    cell
        Width (mm) of the cells that the brain is divided into.
    finest
        Wavelength (mm) of the finest detail that counts.
    decay
        Power of the wave number that the spectrum of brains falls with, in three dimensions.
    n_directions
        How many directions, spread evenly, a next stack may have.
    enough
        Another stack is not worth it if it would lower the standard deviation by a smaller share than this.
    """

    cell: float = 8.0
    finest: float = 2.5
    decay: float = 3.5
    n_directions: int = 60
    enough: float = 0.05


@dataclass(frozen=True, repr=False)
class NextStack:
    """What another stack would bring.

    Attributes
    ----------
    uncertainty
        Standard deviation of a voxel of the brain, as a share of what is white.
    map
        The same place by place (volume world, a voxel for each cell); its mask is where there is brain, and around it
        is what is nearest.
    directions
        Normals of possible stacks (volume world).
    gains
        Share that each would lower the standard deviation by.
    of_stacks
        The same for every stack that there is, if it were acquired once more.
    best
        Direction of the largest gain.
    gain
        Its gain.
    enough
        Whether that is too little to go on.
    """

    uncertainty: float
    map: Volume
    directions: Float[np.ndarray, "d 3"]
    gains: Float[np.ndarray, " d"]
    of_stacks: dict[str, float]
    best: Float[np.ndarray, " 3"]
    gain: float
    enough: bool


def next_stack(
    result: Result,
    directions: Float[np.ndarray, "d 3"] | None = None,
    options: NextStackOptions | None = None,
) -> NextStack:
    """Compare directions for the next stack.

    Parameters
    ----------
    result
        The reconstruction so far.
    directions
        Normals to choose from (volume world); default: evenly from everywhere.
    """
    options = options or NextStackOptions()
    directions = even_directions(options.n_directions) if directions is None else directions
    slices, used = result.slices, result.slices.sum_per_slice(result.slices.mask) > 0
    frequencies, measure = _frequencies(options)
    bright, variance = _contrast(result)
    spectrum = np.linalg.norm(frequencies, axis=1) ** -options.decay
    spectrum *= variance / float(np.sum(spectrum * measure))
    cells, density, brain = _pixels_per_mm3(result, options.cell)
    axes = (result.poses @ slices.frames)[:, :3, :3]
    heard = _transfer(slices, axes, frequencies, result.profile)
    precision = 1 / spectrum + density @ heard / result.noise**2
    now = _deviation(precision, measure, brain)
    # a stack as those that there are: their typical pixels and slices, believed as much
    typical = int(np.flatnonzero(used)[np.argsort(slices.thicknesses[used])[used.sum() // 2]])
    one = slices.subset(np.array([typical]))
    spacing = _slice_spacing(slices)
    amount = float(np.mean(result.slice_weights[used])) / (float(np.prod(one.spacings[0])) * spacing)

    def gain_of(normal: np.ndarray) -> float:
        added = _transfer(one, _axes_of(normal)[None], frequencies, result.profile)
        return 1 - _deviation(precision + amount * added / result.noise**2, measure, brain) / now

    gains = np.array([gain_of(normal) for normal in directions])
    normals = {
        slices.stack_names[stack]: axes[used & (slices.stack_index == stack), :, 2].mean(axis=0)
        for stack in np.unique(slices.stack_index[used])
    }
    best = int(np.argmax(gains))
    return NextStack(
        uncertainty=now / bright,
        map=_map(cells, np.sqrt((1 / precision) @ measure) / bright, options.cell),
        directions=directions,
        gains=gains,
        of_stacks={name: gain_of(normal) for name, normal in normals.items()},
        best=directions[best],
        gain=float(gains[best]),
        enough=bool(gains[best] < options.enough),
    )


def even_directions(count: int) -> Float[np.ndarray, "n 3"]:
    """Directions spread evenly over half of the sphere (a Fibonacci spiral)."""
    height = (np.arange(count) + 0.5) / count
    angle = np.pi * (1 + 5**0.5) * np.arange(count)
    around = np.sqrt(1 - height**2)
    return np.stack([around * np.cos(angle), around * np.sin(angle), height], axis=1)


def _frequencies(options: NextStackOptions) -> tuple[Float[np.ndarray, "f 3"], Float[np.ndarray, " f"]]:
    """Wave vectors (rad/mm) of half of the frequencies, and how much of all frequencies each stands for."""
    radii = 2 * np.pi / np.geomspace(40.0, options.finest, 12)
    edges = np.concatenate([radii[:1], (radii[1:] + radii[:-1]) / 2, radii[-1:]])
    shells = 4 / 3 * np.pi * np.diff(edges**3) / (2 * np.pi) ** 3
    directions = even_directions(100)
    vectors = (radii[:, None, None] * directions).reshape(-1, 3)
    return vectors, np.repeat(shells / len(directions), len(directions))


def _contrast(result: Result) -> tuple[float, float]:
    """Bright tissue, and the variance of the pixels (without noise)."""
    inside = result.prediction[result.slices.mask]
    return float(np.percentile(inside, 99)), max(float(inside.var()), 1e-12)


def _map(cells: Int[np.ndarray, "c 3"], deviations: Float[np.ndarray, " c"], cell: float) -> Volume:
    """Numbers of cells as a volume."""
    first = cells.min(axis=0) - 1
    shape = tuple(cells.max(axis=0) - first + 2)
    data, brain = np.zeros(shape, np.float32), np.zeros(shape, bool)
    places = tuple((cells - first).T)
    data[places], brain[places] = deviations, True
    nearest = ndimage.distance_transform_edt(~brain, return_distances=False, return_indices=True)
    affine = np.diag([cell, cell, cell, 1.0])
    affine[:3, 3] = (first + 0.5) * cell
    return Volume(data[tuple(np.asarray(nearest))], affine, brain)


def _pixels_per_mm3(
    result: Result, cell: float
) -> tuple[Int[np.ndarray, "c 3"], Float[np.ndarray, "c n"], Float[np.ndarray, " c"]]:
    """Cells of the brain, and of each how many pixels of each slice lie there, weighted, and how much brain."""
    mask, slices = result.mask, result.slices
    assert mask.mask is not None
    voxels = np.floor(mask.voxel_positions(mask.mask) / cell).astype(np.int64)
    cells, brain = np.unique(voxels, axis=0, return_counts=True)
    coarse = slices.binned(max(1, int(cell / 2 / float(np.median(slices.spacings)))))
    places = np.floor(coarse.pixel_positions(result.poses, coarse.mask) / cell).astype(np.int64)
    numbers = {tuple(place): number for number, place in enumerate(cells.tolist())}
    at = np.array([numbers.get(tuple(place), -1) for place in places.tolist()])
    of_slice = coarse.per_pixel(np.arange(slices.n_slices))[coarse.mask]
    weight = result.slice_weights[of_slice] * coarse.binning**2
    count = np.zeros((len(cells), slices.n_slices))
    np.add.at(count, (at[at >= 0], of_slice[at >= 0]), weight[at >= 0])
    return cells, count / cell**3, brain / brain.sum()


def _transfer(
    slices: Slices, axes: Float[np.ndarray, "n 3 3"], frequencies: Float[np.ndarray, "f 3"], profile: Profile
) -> Float[np.ndarray, "n f"]:
    """Squared transfer function of each slice: that of a mixture of Gaussians."""
    spread = spread_of(slices, profile)
    local = np.einsum("nij,fi->nfj", axes, frequencies)
    damped = np.exp(-0.5 * np.einsum("nfi,nmij,nfj->nfm", local, spread.covariances, local))
    phase = np.exp(-1j * np.einsum("nfi,nmi->nfm", local, spread.offsets))
    return np.abs((damped * phase) @ spread.weights) ** 2


def _deviation(
    precision: Float[np.ndarray, "c f"], measure: Float[np.ndarray, " f"], brain: Float[np.ndarray, " c"]
) -> float:
    """Root of the mean variance in the brain."""
    return float(np.sqrt(brain @ ((1 / precision) @ measure)))


def _axes_of(normal: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    normal = normal / np.linalg.norm(normal)
    other = np.eye(3)[int(np.argmin(np.abs(normal)))]
    first = np.cross(other, normal)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first), normal], axis=1)


def _slice_spacing(slices: Slices) -> float:
    """Typical distance (mm) of neighbouring slices."""
    distances = []
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        along = np.sort(slices.centres[members] @ slices.frames[members][0, :3, 2])
        distances += np.diff(along).tolist()
    return max(float(np.median(distances)), 0.1) if distances else float(np.median(slices.thicknesses))


def words_of(normal: Float[np.ndarray, " 3"], tolerance: float = 15.0) -> str:
    """A direction as radiographers say it: axial, coronal or sagittal, and how far from that (in scanner axes)."""
    names = ("sagittal", "coronal", "axial")
    size = np.abs(normal) / np.linalg.norm(normal)
    order = np.argsort(-size)
    tilt = float(np.degrees(np.arccos(min(size[order[0]], 1.0))))
    if tilt < tolerance:
        return names[order[0]]
    return f"{names[order[0]]}, tilted by {tilt:.0f} degrees towards {names[order[1]]}"
