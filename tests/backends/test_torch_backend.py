"""Pixels, bonds, links and steps on tensors, against those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="this backend needs PyTorch")

from gsvr.backends import named  # noqa: E402
from gsvr.backends.planes import ParallelPlanes  # noqa: E402
from gsvr.backends.torch import rendering  # noqa: E402
from gsvr.errors import InputError  # noqa: E402
from gsvr.model.fields import GaussianField, Lattice, LatticeField  # noqa: E402
from gsvr.model.geometry import pose_about  # noqa: E402
from gsvr.model.neighbours import find_neighbours  # noqa: E402
from tests.acquisitions import random_amplitudes, small_lattice  # noqa: E402
from tests.backends.torch_backends import BOTH, CARD, backend_named, close, oblique_slices, random_gaussians  # noqa: E402

CPU = named("cpu")
SLICES, POSES = oblique_slices()
# float32 products and sums of a few dozen terms
TOLERANCE = 2e-6


def test_arrays_are_copies_in_float32():
    backend, values = backend_named("plain"), np.arange(4.0)
    array = backend.array(values)
    array += 1
    assert array.dtype == torch.float32
    np.testing.assert_array_equal(backend.host(array), values + 1)
    read_only = np.ones(3, np.float32)
    read_only.flags.writeable = False
    assert backend.array(read_only).sum() == 3


@BOTH
def test_pixels_are_those_of_the_cpu(name: str):
    backend = backend_named(name)
    got, want = backend.pixels(SLICES), CPU.pixels(SLICES)
    rng = np.random.default_rng(0)
    gains, flat = rng.uniform(0.5, 2, SLICES.n_slices), rng.normal(size=len(SLICES.values)).astype(np.float32)
    np.testing.assert_array_equal(backend.host(got.values), want.values)
    np.testing.assert_array_equal(backend.host(got.coverage), want.coverage)
    np.testing.assert_array_equal(backend.host(got.per_pixel(gains)), want.per_pixel(gains))
    # both add up in float64
    np.testing.assert_allclose(got.sum_per_slice(backend.array(flat)), want.sum_per_slice(flat), rtol=1e-12)
    planes = rng.normal(size=(7, len(flat))).astype(np.float32)
    weights = (rng.random(len(flat)) * want.coverage).astype(np.float32)
    pairs = zip(
        got.pose_equations(backend.array(planes), gains, got.values, backend.array(weights)),
        want.pose_equations(planes, gains, want.values, weights),
        strict=True,
    )
    for equations, expected in pairs:
        assert equations.dtype == np.float64
        close(equations, expected, TOLERANCE)


@BOTH
@pytest.mark.parametrize(
    "lattice",
    # in the box sites reach the faces, where flat neighbours are not neighbours
    [small_lattice(), Lattice(np.zeros(3), 2.0, 1.5, np.ones((5, 4, 6), bool))],
    ids=["ball", "box"],
)
def test_bonds_are_those_of_the_cpu(name: str, lattice: Lattice):
    backend = backend_named(name)
    amplitudes, values = random_amplitudes(lattice) * np.float32(0.03), random_amplitudes(lattice, seed=1)
    got = backend.lattice_bonds(lattice, backend.array(amplitudes), 0.01)
    want = CPU.lattice_bonds(lattice, amplitudes, 0.01)
    start = random_amplitudes(lattice, seed=2) * np.float32(1e4)
    close(got.weights(), want.weights(), TOLERANCE)
    close(backend.host(got.diagonal()), want.diagonal(), TOLERANCE)
    close(backend.host(got.apply(backend.array(values))), want.apply(values), TOLERANCE)
    given = backend.array(start)
    close(backend.host(got.apply(backend.array(values), 0.3, given)), want.apply(values, 0.3, start), TOLERANCE)
    np.testing.assert_array_equal(backend.host(given), start)


@pytest.mark.parametrize("normalised", [False, True])
def test_links_are_those_of_the_cpu(normalised: bool):
    field, backend, rng = random_gaussians(300), backend_named("plain"), np.random.default_rng(3)
    # some have no neighbours
    neighbours = find_neighbours(field, 6)
    values, start = (rng.normal(size=300).astype(np.float32) for _ in range(2))
    if normalised:
        got, want = backend.normalised_laplacian(neighbours), CPU.normalised_laplacian(neighbours)
    else:
        got = backend.neighbour_links(neighbours, backend.array(field.amplitudes), 3.0)
        want = CPU.neighbour_links(neighbours, field.amplitudes, 3.0)
    close(got.weights(), want.weights(), TOLERANCE)
    close(backend.host(got.diagonal()), want.diagonal(), TOLERANCE)
    close(backend.host(got.apply(backend.array(values))), want.apply(values), TOLERANCE)
    got_sum = got.apply(backend.array(values), 0.3, backend.array(start))
    close(backend.host(got_sum), want.apply(values, 0.3, start), TOLERANCE)


def test_links_of_other_neighbours_are_others():
    """The columns of the last neighbours are kept, and only of these."""
    backend, field = backend_named("plain"), random_gaussians(50)
    amplitudes = backend.array(field.amplitudes)
    for count in (2, 5, 2):
        neighbours = find_neighbours(field, count)
        got = backend.neighbour_links(neighbours, amplitudes, 1.0).weights()
        close(got, CPU.neighbour_links(neighbours, field.amplitudes, 1.0).weights(), TOLERANCE)


def test_a_step_changes_amplitudes_and_gradient_in_place():
    backend, rng = backend_named("plain"), np.random.default_rng(4)
    direction, curved, amplitudes, gradient = (backend.array(rng.normal(size=(3, 4, 5))) for _ in range(4))
    wanted = amplitudes + 0.7 * direction, gradient - 0.7 * curved
    backend.step(np.float64(0.7), direction, curved, amplitudes, gradient)
    torch.testing.assert_close((amplitudes, gradient), wanted)


@pytest.mark.skipif(CARD, reason="there is a card")
def test_a_missing_device_is_refused():
    for name in ("cuda", "cuda:1", "mps", "cuda:x"):
        with pytest.raises(InputError, match=f"`device` {name}"):
            named(name)


def planes_through(thickness: float) -> ParallelPlanes:
    to_planes = np.linalg.inv(
        pose_about(np.array([[0.4, -0.5, 0.8]]), np.array([[-7.0, -6.0, -3.0]]), np.zeros((1, 3)))
    )
    mixture = (np.array([0.3, 0.7]), thickness * np.array([-0.3, 0.2]), thickness**2 * np.array([0.02, 0.06]))
    weights, offsets, variances = mixture if thickness else (np.ones(1), np.zeros(1), np.zeros(1))
    return ParallelPlanes(to_planes[0, :3], (5, 20, 13), (1.3, 0.9, 0.8), weights, offsets, variances)


@BOTH
@pytest.mark.parametrize(("thickness", "normalisation"), [(0.0, None), (3.0, 0.3)])
def test_planes_are_rendered_as_on_the_cpu(
    name: str, thickness: float, normalisation: float | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rendering, "_AT_ONCE", 3)  # several blocks
    field, planes = random_gaussians(60, normalisation), planes_through(thickness)
    got = backend_named(name).sample_planes(field, planes, 5.5)
    assert got.dtype == np.float32
    # exp(-5.5^2 / 2) of the peaks that touch a tile, over a density of at least the normalisation
    close(got, CPU.sample_planes(field, planes, 5.5), 5e-6 / (normalisation or 1))
    away = GaussianField(field.means + np.float32(300), field.log_scales, field.quaternions, field.amplitudes)
    assert not backend_named(name).sample_planes(away, planes, 5.5).any()


def test_lattices_are_rendered_as_on_the_cpu():
    lattice = small_lattice()
    field = LatticeField(lattice, random_amplitudes(lattice))
    axes = (np.linspace(-6, 6, 7), np.linspace(-5, 4, 19), np.linspace(-4, 5, 18))
    close(backend_named("plain").sample_lattice(field, axes), CPU.sample_lattice(field, axes), TOLERANCE)
