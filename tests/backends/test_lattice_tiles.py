"""Kernels of tiles, plain and by Triton, against the reference: elementwise, as a whole, and within culling's bound."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from gsvr.backends import lattice_kernel
from gsvr.model.fields import Lattice
from gsvr.operators import acquisition as forward
from tests.acquisitions import random_amplitudes, small_lattice, small_slices, spread_of

torch = pytest.importorskip("torch", reason="kernels of tiles need PyTorch")
from torch import Tensor  # noqa: E402

from gsvr.backends.torch.lattice import HostTiledKernel, TiledKernel  # noqa: E402
from gsvr.backends.torch.reference import ReferenceKernel  # noqa: E402
from gsvr.backends.windows import SliceWindows, slice_windows  # noqa: E402
from tests.backends.tiled_kernels import DEVICE, TRITON, kernels_named  # noqa: E402
from tests.laws import test_forward as laws  # noqa: E402

# float32 sums of a few hundred terms, and places in a tile good to 1e-6 pixels: relative to the largest value
TOLERANCE = 3e-6
BOTH = pytest.mark.parametrize("name", ["plain", TRITON])


def pair(name: str, profile: str = "slab", binning: int = 1, cutoff: float = 6.0, deterministic: bool = False):
    """Kernel of tiles and float64 reference; by default with a cut-off so wide that it costs nothing (1.5e-8)."""
    slices, poses = small_slices()
    slices = slices.binned(binning)
    lattice = small_lattice()
    windows = slice_windows(lattice, slices, poses, spread_of(slices, profile), cutoff)
    tiled = TiledKernel(lattice, windows, DEVICE, kernels_named(name), deterministic)
    return slices, lattice, tiled, ReferenceKernel(lattice, windows, torch.float64)


def tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).to(DEVICE)


def array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


@BOTH
@pytest.mark.parametrize(("profile", "binning"), [("slab", 1), ("gaussian", 2)])
def test_values_and_derivatives_agree(name: str, profile: str, binning: int):
    _, lattice, tiled, reference = pair(name, profile, binning)
    amplitudes = random_amplitudes(lattice)
    measured = array(tiled.derivatives(tensor(amplitudes)))
    expected = reference.derivatives(amplitudes)
    for plane, got, want in zip(("value", "du", "dv", "dw", "tu", "tv", "tw"), measured, expected, strict=True):
        scale = np.abs(expected[:4]).max() if plane == "tw" else np.abs(want).max()
        assert np.abs(got - want).max() <= TOLERANCE * scale, plane
        if np.linalg.norm(want) > 0.01 * np.linalg.norm(expected[1]):
            assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want), plane
            assert got @ want / (np.linalg.norm(got) * np.linalg.norm(want)) > 1 - 1e-11, plane
            assert abs((got - want).mean()) < 1e-7 * scale, plane
    predicted = array(tiled.predict(tensor(amplitudes)))
    assert np.abs(predicted - measured[0]).max() <= 1e-6 * np.abs(measured[0]).max()


@BOTH
@pytest.mark.parametrize("deterministic", [False, True])
def test_adjoints_agree(name: str, deterministic: bool):
    slices, _, tiled, reference = pair(name, deterministic=deterministic)
    pixels = np.random.default_rng(1).normal(size=len(slices.values)).astype(np.float32)
    for got, want in (
        (tiled.adjoint(tensor(pixels)), reference.adjoint(pixels)),
        (tiled.squared_adjoint(tensor(pixels)), reference.squared_adjoint(pixels)),
    ):
        assert np.abs(array(got) - want).max() <= TOLERANCE * np.abs(want).max()
        assert np.linalg.norm(array(got) - want) <= 1e-6 * np.linalg.norm(want)


@BOTH
def test_adjoint_is_the_transpose(name: str):
    slices, lattice, tiled, _ = pair(name, cutoff=3.0)
    amplitudes = random_amplitudes(lattice)
    pixels = np.random.default_rng(3).normal(size=len(slices.values))
    predicted = array(tiled.predict(tensor(amplitudes)))
    forward = predicted @ pixels
    backward = amplitudes.ravel() @ array(tiled.adjoint(tensor(pixels))).ravel()
    assert abs(forward - backward) < 1e-6 * np.linalg.norm(predicted) * np.linalg.norm(pixels)


@BOTH
@pytest.mark.parametrize("deterministic", [False, True])
def test_the_normal_product_is_prediction_then_adjoint(name: str, deterministic: bool):
    slices, lattice, tiled, reference = pair(name, deterministic=deterministic)
    amplitudes = random_amplitudes(lattice)
    weights = np.random.default_rng(4).random(len(slices.values)).astype(np.float32)
    along = torch.zeros(tiled.n_pixels, device=DEVICE)
    got = array(tiled.normal(tensor(amplitudes), tensor(weights), along))
    predicted = reference.predict(amplitudes)
    want = reference.adjoint(weights * predicted)
    assert np.abs(array(along) - predicted).max() <= TOLERANCE * np.abs(predicted).max()
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


@pytest.mark.parametrize(
    ("name", "cutoff"),
    [("plain", 2.0), ("plain", 3.0), ("plain", 3.5), pytest.param("triton", 3.0, marks=TRITON.marks)],
)
def test_what_culling_leaves_out_stays_below_its_bound(name: str, cutoff: float):
    _, lattice, tiled, _ = pair(name, cutoff=cutoff)
    _, _, _, exact = pair("plain")
    amplitudes = random_amplitudes(lattice)
    error = np.abs(array(tiled.predict(tensor(amplitudes))) - exact.predict(amplitudes))
    peaks = exact.windows.peaks.sum(axis=1).max()
    assert error.max() <= np.exp(-(cutoff**2) / 2) * peaks * np.abs(amplitudes).sum()
    assert error.max() > 0


@BOTH
def test_lists_hold_what_touches_a_tile_and_fit_their_room(name: str):
    """Counted from the definition: every site of a row's occupied part that is within the reach of the tile."""
    slices, lattice, tiled, _ = pair(name, cutoff=3.0)
    lists, windows = tiled.lists, pair(name, cutoff=3.0)[3].windows
    started, ended = (np.maximum.accumulate(part, axis=2) for part in (lattice.support, lattice.support[:, :, ::-1]))
    sites = np.argwhere(started & ended[:, :, ::-1])
    room = np.diff(lists.first.cpu().numpy())
    assert (lists.count.cpu().numpy() <= room).all()
    for tile in range(lists.n_tiles):
        s = int(lists.slice_of[tile])
        matrix, corner = windows.from_lattice[s], lists.corners[tile].cpu().numpy()
        place = sites @ matrix[:, :3].T + matrix[:, 3]
        extent = np.minimum(windows.shapes[s] - corner, 16) - 1
        low, high = corner - windows.reach[s], corner + extent + windows.reach[s]
        touching = (place[:, :2] >= low).all(1) & (place[:, :2] <= high).all(1)
        touching &= (place[:, 2] >= windows.depth[s, 0]) & (place[:, 2] <= windows.depth[s, 1])
        start, count = int(lists.first[tile]), int(lists.count[tile])
        packed = lists.sites[start : start + count].cpu().numpy()
        listed = set(zip(packed >> 20, packed >> 10 & 1023, packed & 1023, strict=True))
        assert len(listed) == count
        missing = {tuple(int(i) for i in site) for site in sites[touching]} - listed
        assert not missing
        # no more than those within a thousandth of a pixel of the reach
        assert count <= touching.sum() + 2
    assert len(slices.values) == tiled.n_pixels


@BOTH
def test_moving_equals_starting_there(name: str):
    slices, lattice, tiled, _ = pair(name, cutoff=3.0)
    _, other = small_slices(seed=5)
    windows = slice_windows(lattice, slices, other, spread_of(slices), 3.0)
    tiled.move(torch.as_tensor(windows.from_lattice).to(DEVICE))
    fresh = TiledKernel(lattice, windows, DEVICE, kernels_named(name))
    amplitudes = tensor(random_amplitudes(lattice))
    assert torch.equal(tiled.predict(amplitudes), fresh.predict(amplitudes))


@BOTH
def test_slices_that_see_nothing_of_the_lattice_are_dark(name: str):
    slices, lattice, tiled, _ = pair(name)
    _, poses = small_slices()
    poses[:, :3, 3] += 500.0
    windows = slice_windows(lattice, slices, poses, spread_of(slices))
    tiled.move(torch.as_tensor(windows.from_lattice).to(DEVICE))
    assert not tiled.predict(tensor(random_amplitudes(lattice))).any()
    assert int(tiled.lists.count.sum()) == 0


def test_tiles_without_needed_pixels_are_left_out():
    slices, lattice, tiled, _ = pair("plain")
    needed = np.zeros(len(slices.values), bool)
    needed[slices.pixels_of(2).start + 3] = True
    _, poses = small_slices()
    windows = slice_windows(lattice, slices, poses, spread_of(slices), 6.0)
    part = TiledKernel(lattice, windows, DEVICE, needed=needed)
    amplitudes = tensor(random_amplitudes(lattice))
    got, whole = part.predict(amplitudes), tiled.predict(amplitudes)
    assert part.lists.n_tiles == 1
    piece = slices.pixels_of(2)
    torch.testing.assert_close(got[piece], whole[piece])
    assert not got[: piece.start].any()


def test_slices_larger_than_a_tile():
    """37 x 21 pixels: six tiles, of which some are cut off."""
    slices, poses = small_slices()
    lattice = small_lattice(2.0, 1.5, 24.0)
    large = np.tile([37, 21], (slices.n_slices, 1))
    windows = slice_windows(lattice, slices, poses, spread_of(slices), 5.5)
    offsets = np.arange(slices.n_slices + 1) * 37 * 21
    windows = type(windows)(**{**vars(windows), "shapes": large, "first_pixel": offsets})
    tiled, reference = TiledKernel(lattice, windows, DEVICE), ReferenceKernel(lattice, windows, torch.float64)
    assert tiled.lists.n_tiles == 6 * slices.n_slices
    amplitudes = random_amplitudes(lattice)
    got, want = array(tiled.predict(tensor(amplitudes))), reference.predict(amplitudes)
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


def with_tiles_reversed(tiled: TiledKernel) -> None:
    """Tiles in another order stand for another run, in which programs finish in another order."""
    lists = tiled.lists
    order = torch.arange(lists.n_tiles - 1, -1, -1, device=DEVICE)
    room = lists.first.diff()
    for part in (
        lists.slice_of,
        lists.corners,
        lists.extents,
        lists.pixels,
        lists.constants,
        lists.frames,
        lists.boxes,
    ):
        part.copy_(part[order].clone())
    lists.first[1:] = room[order].cumsum(0)
    tiled.kernels.fill(lists)


@BOTH
def test_deterministic_sums_do_not_depend_on_the_order_of_tiles(name: str):
    slices, _, tiled, _ = pair(name, deterministic=True)
    pixels = tensor(np.random.default_rng(6).normal(size=len(slices.values)))
    before = tiled.adjoint(pixels)
    with_tiles_reversed(tiled)
    assert torch.equal(tiled.adjoint(pixels), before)


def test_other_sums_do_depend_on_it_a_little():
    slices, _, tiled, _ = pair("plain")
    pixels = tensor(np.random.default_rng(6).normal(size=len(slices.values)))
    before = tiled.adjoint(pixels)
    with_tiles_reversed(tiled)
    after = tiled.adjoint(pixels)
    assert not torch.equal(after, before)
    assert (after - before).abs().max() < TOLERANCE * before.abs().max()


def test_whole_numbers_never_overflow_nor_vanish():
    """Pixels of any scale, as if there were a million tiles: room is left for every sum, and bits for every part."""
    slices, _, tiled, reference = pair("plain", deterministic=True)
    pixels = np.random.default_rng(7).normal(size=len(slices.values))
    tiled._most_pixels = 256 * 2**20
    for scale in (1e-9, 1e9):
        for kernel, definition in (
            (tiled.adjoint, reference.adjoint),
            (tiled.squared_adjoint, reference.squared_adjoint),
        ):
            got, want = array(kernel(tensor(scale * pixels))) / scale, definition(pixels)
            assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()
    assert not tiled.adjoint(tensor(0 * pixels)).any()


LAWS = (
    laws.test_lattice_operator_equals_the_definition,
    partial(laws.test_adjoint_is_the_transpose, "cpu"),
    laws.test_diagonal_is_that_of_the_normal_matrix,
    partial(laws.test_pose_derivative_is_the_limit_of_differences, "cpu"),
)


@pytest.mark.parametrize("law", LAWS)
def test_laws_of_the_operator(law: Callable[[], None], monkeypatch: pytest.MonkeyPatch):
    """The same functions that try the CPU's kernels, with kernels of tiles in their place."""
    used = []

    def tiled(_: str, lattice: Lattice, windows: SliceWindows) -> HostTiledKernel:
        used.append(windows)
        return HostTiledKernel(lattice, windows, str(DEVICE))

    monkeypatch.setattr(forward, "lattice_kernel", tiled)
    law()
    assert used


@pytest.mark.parametrize("backend", ["cuda", "cuda:1", "mps"])
def test_a_device_is_not_touched_before_it_is_used(backend: str):
    slices, poses = small_slices()
    lattice = small_lattice()
    kernel = lattice_kernel(backend, lattice, slice_windows(lattice, slices, poses, spread_of(slices)))
    assert isinstance(kernel, HostTiledKernel)
    assert kernel.name == backend
