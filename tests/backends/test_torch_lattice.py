"""Kernels of lattices in PyTorch and by Triton, on slices of several tiles; their laws are in tests/laws."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="these kernels need PyTorch")

from gsvr.backends import named  # noqa: E402
from gsvr.backends.torch import lattice_tiles as lists_of  # noqa: E402
from gsvr.backends.torch.lattice import TorchLatticeKernel  # noqa: E402
from gsvr.backends.torch.tiles import tiles_of  # noqa: E402
from gsvr.backends.windows import SliceWindows, slice_windows  # noqa: E402
from gsvr.model.point_spread import Profile, spread_of  # noqa: E402
from gsvr.operators.lattice import LatticeOperator  # noqa: E402
from tests.acquisitions import random_amplitudes, small_lattice  # noqa: E402
from tests.backends.torch_backends import (  # noqa: E402
    BOTH,
    WIDE,
    backend_named,
    close,
    oblique_slices,
    profile_of_three,
    results_of,
)

# Sums of some hundred products of three exponentials, those of the CPU good to 5e-6; distances of several standard
# deviations times such numbers
TOLERANCE = 3e-5
SLICES, POSES = oblique_slices()
LATTICE = small_lattice(2.2, 1.5, 9.0)
AMPLITUDES = random_amplitudes(LATTICE)
PIXELS = np.random.default_rng(1).normal(size=len(SLICES.values)).astype(np.float32)


def windows_at(poses: np.ndarray, cutoff: float = 3.0) -> SliceWindows:
    return slice_windows(LATTICE, SLICES, poses, spread_of(SLICES, "slab"), cutoff)


def kernel(name: str, windows: SliceWindows) -> TorchLatticeKernel:
    made = backend_named(name).lattice_kernel(LATTICE, windows)
    assert isinstance(made, TorchLatticeKernel)
    return made


@BOTH
@pytest.mark.parametrize("profile", ["slab", profile_of_three])
def test_all_results_are_those_of_the_cpu(name: str, profile: Profile):
    operators = [
        LatticeOperator(LATTICE, SLICES, POSES, None, profile, backend, WIDE)
        for backend in (backend_named(name), named("cpu"))
    ]
    assert isinstance(operators[0]._kernel, TorchLatticeKernel)
    got, want = (results_of(operator, AMPLITUDES, PIXELS) for operator in operators)
    for part in want:
        close(got[part], want[part], TOLERANCE)


@BOTH
def test_lists_hold_what_touches_a_tile_and_fit_their_room(name: str):
    """Counted from the definition: every site of a row's occupied part that is within the reach of the tile."""
    windows = windows_at(POSES)
    lists, tiles = kernel(name, windows).tiles, tiles_of(windows.shapes, windows.first_pixel)
    started, ended = (np.maximum.accumulate(part, axis=2) for part in (LATTICE.support, LATTICE.support[:, :, ::-1]))
    sites = np.argwhere(started & ended[:, :, ::-1])
    assert lists.n_tiles == len(tiles.slices) > SLICES.n_slices
    assert (lists.count.cpu().numpy() <= np.diff(lists.first.cpu().numpy())).all()
    for tile, (s, corner) in enumerate(zip(tiles.slices, tiles.corners, strict=True)):
        matrix_of_slice = windows.from_lattice[s]
        place = sites @ matrix_of_slice[:, :3].T + matrix_of_slice[:, 3]
        extent = np.minimum(windows.shapes[s] - corner, 16) - 1
        low, high = corner - windows.reach[s], corner + extent + windows.reach[s]
        touching = (place[:, :2] >= low).all(1) & (place[:, :2] <= high).all(1)
        touching &= (place[:, 2] >= windows.depth[s, 0]) & (place[:, 2] <= windows.depth[s, 1])
        start, count = int(lists.first[tile]), int(lists.count[tile])
        packed = lists.sites[start : start + count].cpu().numpy()
        listed = set(zip(packed >> 20, packed >> 10 & 1023, packed & 1023, strict=True))
        assert len(listed) == count
        assert not {tuple(int(i) for i in site) for site in sites[touching]} - listed
        # no more than those within a thousandth of a pixel of the reach
        assert count <= touching.sum() + 2


@BOTH
def test_slices_that_see_nothing_of_the_lattice_are_dark(name: str):
    away = POSES.copy()
    away[:, :3, 3] += 500.0
    made = kernel(name, windows_at(away))
    assert not made.predict(backend_named(name).array(AMPLITUDES)).any()
    assert int(made.tiles.count.sum()) == 0


@BOTH
def test_adjoints_do_not_depend_on_the_order_of_tiles_and_are_good_at_any_scale(name: str, monkeypatch):
    """Tiles in another order stand for another run, in which programs finish in another order."""
    pixels = backend_named(name).array(PIXELS)
    want = kernel(name, windows_at(POSES)).adjoint(pixels)

    def reversed_tiles(*given: np.ndarray) -> object:
        tiles = tiles_of(*given)
        return type(tiles)(tiles.slices[::-1].copy(), tiles.corners[::-1].copy(), tiles.pixels[::-1].copy())

    monkeypatch.setattr(lists_of, "tiles_of", reversed_tiles)
    made = kernel(name, windows_at(POSES))
    assert torch.equal(made.adjoint(pixels), want)
    for scale in (1e-9, 1e9):
        close((made.adjoint(scale * pixels) / scale).cpu().numpy(), want.cpu().numpy(), TOLERANCE)
    assert not made.adjoint(0 * pixels).any()


def test_lattices_too_long_for_a_list_are_refused():
    long = small_lattice(2.0, 1.5, 4.0)
    long = type(long)(long.origin, long.spacing, long.sigma, np.ones((1025, 2, 2), bool))
    windows = slice_windows(long, SLICES, POSES, spread_of(SLICES, "slab"))
    with pytest.raises(ValueError, match="1024 sites"):
        backend_named("plain").lattice_kernel(long, windows)
