"""Kernels of lattices in plain PyTorch and by Triton against the definition, and their lists against theirs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="these kernels need PyTorch")

from gsvr.backends.torch import lattice_tiles as lists_of  # noqa: E402
from gsvr.backends.torch.lattice import TorchLatticeKernel  # noqa: E402
from gsvr.backends.torch.tiles import tiles_of  # noqa: E402
from gsvr.backends.windows import SliceWindows, slice_windows  # noqa: E402
from gsvr.model.fields import LatticeField  # noqa: E402
from gsvr.model.point_spread import Profile, spread_of  # noqa: E402
from gsvr.operators.lattice import LatticeOperator  # noqa: E402
from tests.acquisitions import random_amplitudes, small_lattice  # noqa: E402
from tests.backends.torch_backends import (  # noqa: E402
    BOTH,
    WIDE,
    backend_named,
    close,
    matrix,
    oblique_slices,
    pose_derivatives,
    profile_of_three,
)

# float32 sums of some hundred terms, and places in a tile good to a millionth of a pixel
TOLERANCE = 4e-6
SLICES, POSES = oblique_slices()
LATTICE = small_lattice(2.2, 1.5, 9.0)
AMPLITUDES = random_amplitudes(LATTICE)
FIELD = LatticeField(LATTICE, AMPLITUDES).to_gaussians()
PIXELS = np.random.default_rng(1).normal(size=len(SLICES.values)).astype(np.float32)
PROFILES = pytest.mark.parametrize("profile", ["slab", profile_of_three])


@cache
def definition(profile: Profile) -> np.ndarray:
    geometry = torch.tensor(FIELD.means).double(), torch.tensor(FIELD.covariances)
    return matrix(*geometry, SLICES, POSES, spread_of(SLICES, profile)).numpy()


def operator(name: str, profile: Profile = "slab", cutoff: float = WIDE) -> LatticeOperator:
    return LatticeOperator(LATTICE, SLICES, POSES, None, profile, backend_named(name), cutoff)


def windows_at(poses: np.ndarray, cutoff: float = 3.0) -> SliceWindows:
    return slice_windows(LATTICE, SLICES, poses, spread_of(SLICES, "slab"), cutoff)


def kernel(name: str, windows: SliceWindows) -> TorchLatticeKernel:
    made = backend_named(name).lattice_kernel(LATTICE, windows)
    assert isinstance(made, TorchLatticeKernel)
    return made


@BOTH
@PROFILES
def test_products_and_derivatives_are_those_of_the_definition(name: str, profile: Profile):
    backend, tried, a = backend_named(name), operator(name, profile), definition(profile)
    assert isinstance(tried._kernel, TorchLatticeKernel)
    value, derivatives = tried.pose_derivatives(backend.array(AMPLITUDES))
    predicted = backend.host(tried.predict(backend.array(AMPLITUDES)))
    close(predicted, a @ FIELD.amplitudes, TOLERANCE)
    close(backend.host(value), predicted.astype(np.float64), TOLERANCE)
    for got, want in zip(derivatives, pose_derivatives(FIELD, SLICES, POSES, spread_of(SLICES, profile)), strict=True):
        # distances of several standard deviations times such numbers
        close(backend.host(got), want, 2 * TOLERANCE)
    for got, want in ((tried.adjoint, a.T @ PIXELS), (tried.diagonal, (a * a).T @ PIXELS)):
        grid = backend.host(got(backend.array(PIXELS)))
        close(grid[LATTICE.support], want, TOLERANCE)
        assert not grid[~LATTICE.support].any()


@BOTH
@pytest.mark.parametrize("cutoff", [2.0, 3.0])
def test_what_culling_leaves_out_stays_below_its_bound_and_the_adjoint_is_the_transpose(name: str, cutoff: float):
    backend, tried = backend_named(name), operator(name, cutoff=cutoff)
    predicted = backend.host(tried.predict(backend.array(AMPLITUDES))).astype(np.float64)
    error = np.abs(predicted - definition("slab") @ FIELD.amplitudes)
    peaks = windows_at(POSES).peaks.sum(axis=1).max()
    assert 1e-6 < error.max() <= np.exp(-(cutoff**2) / 2) * peaks * np.abs(AMPLITUDES).sum()
    backward = AMPLITUDES.ravel() @ backend.host(tried.adjoint(backend.array(PIXELS))).astype(np.float64).ravel()
    assert abs(predicted @ PIXELS - backward) < 1e-6 * np.linalg.norm(predicted) * np.linalg.norm(PIXELS)


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
