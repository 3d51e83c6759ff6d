"""The published settings: the objective and its gradient as defined, and a brain that gets better."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.backends.views import nearest_radii
from gsvr.model.fields import GaussianField
from gsvr.model.geometry import transform_points
from gsvr.model.point_spread import ProfileName, point_spread
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import moved_poses
from gsvr.operators.gaussians import GaussianOperator
from gsvr.solver.gains import intensity_scale
from gsvr.solver.published import LossGradient, PublishedOptions, absolute_error, reconstruct_as_published, scale_prior
from gsvr.solver.reconstruct import Progress
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import errors_before, errors_of_poses, moving_brain
from tests.solver.oblique import oblique_slices

# Far enough that nothing counts but the nearest neighbours, as in the definition.
NO_CUTOFF = 9.0
NEAREST = 12
SHORT = PublishedOptions(n_gaussians=3000, epochs=60, refreshed_every=20, halved_every=25)
SLICES, POSES = oblique_slices()


def some_field() -> GaussianField:
    rng = np.random.default_rng(3)
    n = 80
    return GaussianField(
        means=(rng.normal(size=(n, 3)) * 3).astype(np.float32),
        log_scales=rng.normal(np.log(1.6), 0.2, (n, 3)).astype(np.float32),
        quaternions=rng.normal(size=(n, 4)).astype(np.float32),
        amplitudes=rng.uniform(0, 1, n).astype(np.float32),
        normalisation=1e-6,
        nearest=NEAREST,
    )


def defined_loss(field: GaussianField, poses: np.ndarray, seen: np.ndarray, profile: ProfileName) -> float:
    """Mean absolute error in float64, by the equations of the paper; `seen`: the nearest Gaussians of each pixel."""
    spread, owner = (
        point_spread(SLICES.spacings, SLICES.thicknesses, profile),
        SLICES.per_pixel(np.arange(SLICES.n_slices)),
    )
    axes = (poses @ SLICES.frames)[owner, :3, :3]
    points = transform_points(poses[owner], SLICES.pixel_positions())
    covariances, above, below = (
        field.covariances[seen],
        np.zeros(len(points)),
        np.full(len(points), field.normalisation),
    )
    for weight, offsets, blur in zip(
        spread.weights, spread.offsets.swapaxes(0, 1), spread.covariances.swapaxes(0, 1), strict=True
    ):
        d = (points + np.einsum("pij,pj->pi", axes, offsets[owner]))[:, None] - field.means[seen].astype(np.float64)
        total = covariances + (axes @ blur[owner] @ axes.swapaxes(1, 2))[:, None]
        share = weight * np.exp(-0.5 * np.einsum("pki,pki->pk", d, np.linalg.solve(total, d[..., None])[..., 0]))
        above, below = above + (share * field.amplitudes[seen]).sum(axis=1), below + share.sum(axis=1)
    return float(np.abs(above / below - SLICES.values)[SLICES.mask].mean())


@pytest.mark.parametrize("profile", ["gaussian", "slab"])
def test_loss_and_gradient_are_those_of_the_definition(backend: Backend, profile: ProfileName):
    field = some_field()
    # radii of the nearest are found for the pixels as they stand, and kept while geometry and poses are differentiated
    radii = nearest_radii(field.means, SLICES, POSES, NEAREST)
    operator = GaussianOperator(field, SLICES, POSES, None, profile, backend, NO_CUTOFF, squared_radii=radii)
    found: LossGradient = absolute_error(operator, field)
    owner = SLICES.per_pixel(np.arange(SLICES.n_slices))
    points = transform_points(POSES[owner], SLICES.pixel_positions())
    seen = np.argsort(((points[:, None] - field.means) ** 2).sum(axis=-1), axis=1)[:, :NEAREST]
    assert found.loss == pytest.approx(defined_loss(field, POSES, seen, profile), rel=1e-5)
    rng, step = np.random.default_rng(4), 1e-6
    for name in ("means", "log_scales", "quaternions", "amplitudes", "poses"):
        gradient = getattr(found, name).astype(np.float64)
        for _ in range(3):
            direction = rng.normal(size=gradient.shape)
            ends = []
            for sign in (1, -1):
                moved, poses = field, POSES
                if name == "poses":
                    poses = moved_poses(SLICES, POSES, sign * step * direction)
                else:
                    moved = replace(field, **{name: getattr(field, name).astype(np.float64) + sign * step * direction})
                ends.append(defined_loss(moved, poses, seen, profile))
            # float32 kernels, and a sum over many entries of either sign
            size = float(np.linalg.norm(gradient))
            assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-3 * size), (
                name
            )


def test_pixels_outside_the_mask_take_no_part(backend: Backend):
    field = some_field()
    other = replace(SLICES, values=np.where(SLICES.mask, SLICES.values, 1000).astype(np.float32))
    losses = [absolute_error(GaussianOperator(field, s, POSES, backend=backend), field) for s in (SLICES, other)]
    assert losses[0].loss == losses[1].loss
    np.testing.assert_array_equal(losses[0].means, losses[1].means)
    assert not backend.host(losses[0].prediction)[~SLICES.mask].any()


def test_the_gradient_of_the_scale_prior():
    field = some_field()
    value, gradient = scale_prior(field, 1.6, 2.5e-3)
    assert value == pytest.approx(2.5e-3 * np.mean((np.exp(field.log_scales) - 1.6) ** 2), rel=1e-5)
    precise = replace(field, log_scales=field.log_scales.astype(np.float64))
    step = np.zeros((80, 3))
    step[5, 1] = 1e-5
    ahead, _ = scale_prior(replace(precise, log_scales=precise.log_scales + step), 1.6, 2.5e-3)
    behind, _ = scale_prior(replace(precise, log_scales=precise.log_scales - step), 1.6, 2.5e-3)
    assert gradient[5, 1] == pytest.approx((ahead - behind) / 2e-5, rel=1e-4)


@cache
def brain_slices() -> Slices:
    return prepare_slices(moving_brain().stacks, SolverOptions())


def test_loss_falls_and_poses_improve():
    slices, simulation = brain_slices(), moving_brain()
    losses: list[float] = []

    def watch(progress: Progress) -> None:
        losses.append(progress.state.weights.noise)

    result = reconstruct_as_published(slices, SHORT, watch)
    assert len(losses) == SHORT.epochs
    assert losses[-1] < 0.5 * losses[0]
    before, after = errors_before(slices, simulation), errors_of_poses(slices, result.poses, simulation)
    assert after.median < 0.8 * before.median
    assert isinstance(result.field, GaussianField)
    assert result.field.n_gaussians == SHORT.n_gaussians
    used = slices.sum_per_slice(slices.mask) > 0
    np.testing.assert_array_equal(result.poses[~used], np.tile(np.eye(4), ((~used).sum(), 1, 1)))
    np.testing.assert_array_equal(result.gains, 1)
    np.testing.assert_array_equal(result.slice_weights, used)


def test_the_seed_decides_everything():
    slices, options = brain_slices(), replace(SHORT, epochs=3)
    first, again = reconstruct_as_published(slices, options), reconstruct_as_published(slices, options)
    other = reconstruct_as_published(slices, replace(options, seed=1))
    np.testing.assert_array_equal(first.field.amplitudes, again.field.amplitudes)
    np.testing.assert_array_equal(first.poses, again.poses)
    assert not np.array_equal(first.field.amplitudes, other.field.amplitudes)


def test_intensities_keep_their_unit():
    slices, options = brain_slices(), replace(SHORT, epochs=20)
    result = reconstruct_as_published(slices, options)
    assert np.corrcoef(result.prediction[slices.mask], slices.values[slices.mask])[0, 1] > 0.5
    louder = reconstruct_as_published(replace(slices, values=slices.values * np.float32(64)), options)
    np.testing.assert_allclose(louder.field.amplitudes, 64 * result.field.amplitudes, rtol=1e-4, atol=1e-2)
    assert louder.noise == pytest.approx(64 * result.noise, rel=1e-3)
    assert result.noise < 0.5 * intensity_scale(slices)
