"""The implicit baseline: its point spread function, poses and grid against what is known exactly."""

import numpy as np
import pytest

from gsvr.model.fields import Lattice
from gsvr.model.geometry import pose_about, transform_points
from gsvr.operators.lattice import LatticeOperator
from tests.acquisitions import small_slices

torch = pytest.importorskip("torch", reason="the implicit baseline needs PyTorch")

from benchmarks.inr.encoding import FeatureGrid  # noqa: E402
from benchmarks.inr.poses import SlicePoses  # noqa: E402
from benchmarks.inr.sampling import PixelSampler, near_pairs  # noqa: E402
from benchmarks.inr.training import edge_penalty  # noqa: E402
from gsvr.solver.motion import LEVER  # noqa: E402


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
def test_sampled_pixels_of_a_gaussian_agree_with_the_closed_form(profile):
    """A volume that is one Gaussian: the mean over drawn points must be the exact pixel."""
    slices, poses = small_slices()
    sigma, mean = 1.8, np.array([0.7, -0.4, 1.1])
    lattice = Lattice(mean, 1.0, sigma, np.ones((1, 1, 1), dtype=bool))
    exact = LatticeOperator(lattice, slices, poses, profile=profile, cutoff=8.0).predict(
        np.ones((1, 1, 1), dtype=np.float32)
    )[slices.mask]
    sampler = PixelSampler(slices, profile, 256, torch.Generator().manual_seed(3))
    batch = sampler.at(torch.arange(sampler.n_pixels))
    points = SlicePoses(slices, poses).place(batch.slices, batch.local).detach()
    drawn = torch.exp(-0.5 * ((points - torch.tensor(mean)) ** 2).sum(-1) / sigma**2).mean(dim=1).numpy()
    assert exact.max() > 0.3
    # independent draws would scatter by about 0.25 / sqrt(256) = 0.016; evenly spread ones by less
    assert np.abs(drawn - exact).max() < 0.008
    assert abs((drawn - exact).mean()) < 2e-4


@pytest.mark.parametrize("count", [16, 64])
def test_points_are_paired_with_near_ones(count):
    points = torch.quasirandom.SobolEngine(3, scramble=True, seed=0).draw(count)
    paired = near_pairs(points)
    assert sorted(map(tuple, paired.tolist())) == sorted(map(tuple, points.tolist()))

    def mean_distance(ordered):
        apart = (ordered[: count // 2] - ordered[count // 2 :]).abs()
        return float(torch.minimum(apart, 1 - apart).norm(dim=1).mean())

    # independent points in the unit torus are 0.48 apart on average
    assert mean_distance(paired) < min(0.4, mean_distance(points))


@pytest.mark.parametrize("slope", [0.01, 0.2, 5.0])
def test_edge_penalty_of_an_even_slope(slope):
    """Small slopes cost their square, large ones their size, however far apart the points of a pair are."""
    along = torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    points = along[..., None] * torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64) / 3
    found = float(edge_penalty(slope * along, points, scale=0.2))
    assert found == pytest.approx(0.2 * (np.sqrt(1 + (slope / 0.2) ** 2) - 1), rel=1e-3)


def test_learned_poses_are_those_of_the_geometry():
    slices, start = small_slices()
    poses = SlicePoses(slices, start)
    steps = np.random.default_rng(1).normal(size=(slices.n_slices, 6)) * 3
    with torch.no_grad():
        poses.parameters_mm[:] = torch.tensor(steps)
    centres = transform_points(start, slices.centres)
    expected = pose_about(steps[:, :3] / LEVER, steps[:, 3:], centres) @ start
    assert poses.matrices() == pytest.approx(expected, abs=1e-5)
    local = torch.tensor([[[3.0, 1.0, -0.5]]])
    for number in range(slices.n_slices):
        placed = poses.place(torch.tensor([number]), local).detach().numpy()[0]
        assert placed == pytest.approx(
            transform_points(expected[number] @ slices.frames[number], local.numpy()[0]), abs=1e-4
        )


def test_grid_interpolates_linear_functions_exactly():
    low, high = np.array([-3.0, 1.0, 2.0]), np.array([7.0, 9.0, 14.0])
    grid = FeatureGrid(low, high, [2.0], 1)
    nodes = torch.tensor(np.moveaxis(np.indices((6, 5, 7)), 0, -1) * 2.0 + low)
    slope = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
    with torch.no_grad():
        next(grid.levels.parameters())[0, 0] = nodes @ slope
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = points * torch.tensor(high - low) + torch.tensor(low)
    assert grid(points.float())[0].detach().numpy() == pytest.approx((points @ slope).numpy(), abs=1e-4)
