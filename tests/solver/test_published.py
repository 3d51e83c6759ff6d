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
from gsvr.solver.adamw import CosineAnnealing, Halving
from gsvr.solver.gains import intensity_scale
from gsvr.solver.published import PublishedOptions, ScalePrior, published_code, reconstruct_as_published
from gsvr.solver.published.objective import LossGradient, absolute_error, motion_penalty, scale_penalty, slice_weights
from gsvr.solver.reconstruct import Progress
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import errors_before, errors_of_poses, moving_brain
from tests.solver.oblique import oblique_slices

# Far enough that nothing counts but the nearest neighbours, as in the definition.
NO_CUTOFF = 9.0
NEAREST = 12
SHORT = PublishedOptions(n_gaussians=3000, epochs=60, refreshed_every=20, schedule=Halving(25))
SHORT_CODE = replace(
    published_code(), n_gaussians=3000, epochs=60, refreshed_every=20, schedule=CosineAnnealing(60, 0.1)
)
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


GAINS = np.random.default_rng(5).uniform(0.8, 1.2, SLICES.n_slices)
WEIGHTS = np.random.default_rng(6).uniform(0.2, 1, SLICES.n_slices)


def defined_loss(
    field: GaussianField, poses: np.ndarray, gains: np.ndarray, seen: np.ndarray, profile: ProfileName
) -> float:
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
    errors = WEIGHTS[owner] * np.abs(gains[owner] * above / below - SLICES.values)
    return float(errors[SLICES.mask].mean())


@pytest.mark.parametrize("profile", ["gaussian", "slab"])
def test_loss_and_gradient_are_those_of_the_definition(backend: Backend, profile: ProfileName):
    field = some_field()
    # radii of the nearest are found for the pixels as they stand, and kept while geometry and poses are differentiated
    radii = nearest_radii(field.means, SLICES, POSES, NEAREST)
    operator = GaussianOperator(field, SLICES, POSES, GAINS, profile, backend, NO_CUTOFF, squared_radii=radii)
    found: LossGradient = absolute_error(operator, field, WEIGHTS)
    owner = SLICES.per_pixel(np.arange(SLICES.n_slices))
    points = transform_points(POSES[owner], SLICES.pixel_positions())
    seen = np.argsort(((points[:, None] - field.means) ** 2).sum(axis=-1), axis=1)[:, :NEAREST]
    assert found.loss == pytest.approx(defined_loss(field, POSES, GAINS, seen, profile), rel=1e-5)
    rng, step = np.random.default_rng(4), 1e-6
    for name in ("means", "log_scales", "quaternions", "amplitudes", "gains", "poses"):
        gradient = getattr(found, name).astype(np.float64)
        for _ in range(3):
            direction = rng.normal(size=gradient.shape)
            ends = []
            for sign in (1, -1):
                moved, poses, gains = field, POSES, GAINS
                if name == "gains":
                    gains = GAINS + sign * step * direction
                elif name == "poses":
                    poses = moved_poses(SLICES, POSES, sign * step * direction)
                else:
                    moved = replace(field, **{name: getattr(field, name).astype(np.float64) + sign * step * direction})
                ends.append(defined_loss(moved, poses, gains, seen, profile))
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


@pytest.mark.parametrize("one_sided", [False, True])
def test_the_gradient_of_the_scale_penalty(one_sided: bool):
    field, prior = some_field(), ScalePrior(1.6, 2.5e-3, one_sided)
    value, gradient = scale_penalty(field, prior)
    away = field.log_scales - np.log(1.6)
    away = away[away < 0] if one_sided else away
    assert value == pytest.approx(2.5e-3 * np.sum(away**2) / field.log_scales.size, rel=1e-4)
    precise = replace(field, log_scales=field.log_scales.astype(np.float64))
    for row in (5, 6, 7):
        step = np.zeros((80, 3))
        step[row, 1] = 1e-5
        ahead, _ = scale_penalty(replace(precise, log_scales=precise.log_scales + step), prior)
        behind, _ = scale_penalty(replace(precise, log_scales=precise.log_scales - step), prior)
        assert gradient[row, 1] == pytest.approx((ahead - behind) / 2e-5, rel=1e-4, abs=1e-12)


def test_the_gradient_of_the_motion_penalty():
    options, rng = PublishedOptions(rotation_penalty=0.01, translation_penalty=2e-4), np.random.default_rng(7)
    assert motion_penalty(SLICES, POSES, POSES, options)[0] == pytest.approx(0, abs=1e-12)
    moved = moved_poses(SLICES, POSES, rng.normal(0, 0.3, (SLICES.n_slices, 6)))
    _, gradient = motion_penalty(SLICES, POSES, moved, options)
    for _ in range(3):
        step = 1e-5 * rng.normal(size=gradient.shape)
        ahead, behind = (
            motion_penalty(SLICES, POSES, moved_poses(SLICES, moved, s), options)[0] for s in (step, -step)
        )
        assert (gradient * step).sum() == pytest.approx((ahead - behind) / 2, rel=1e-5)
    turned = moved_poses(SLICES, POSES, np.tile([0, 0, np.deg2rad(30), 0, 0, 0], (SLICES.n_slices, 1)))
    assert motion_penalty(SLICES, POSES, turned, options)[0] == pytest.approx(0.01 * np.sin(np.deg2rad(15)) ** 2 / 3)


def test_a_slice_that_fits_badly_counts_less():
    errors = np.full(SLICES.n_slices, 0.05)
    errors[1] = 0.5
    weights = slice_weights(SLICES, errors)
    assert weights[1] < 1e-3
    np.testing.assert_array_equal(np.delete(weights, 1), 1)


@cache
def brain_slices() -> Slices:
    return prepare_slices(moving_brain().stacks, SolverOptions())


@pytest.mark.parametrize("options", [SHORT, SHORT_CODE], ids=["printed", "code"])
def test_loss_falls_and_poses_improve(options: PublishedOptions):
    slices, simulation = brain_slices(), moving_brain()
    losses: list[float] = []

    def watch(progress: Progress) -> None:
        losses.append(progress.state.weights.noise)

    result = reconstruct_as_published(slices, options, watch)
    assert len(losses) == options.epochs
    assert losses[-1] < 0.5 * losses[0]
    before, after = errors_before(slices, simulation), errors_of_poses(slices, result.poses, simulation)
    assert after.median < 0.8 * before.median
    assert isinstance(result.field, GaussianField)
    assert result.field.n_gaussians == options.n_gaussians
    used = slices.sum_per_slice(slices.mask) > 0
    np.testing.assert_array_equal(result.poses[~used], np.tile(np.eye(4), ((~used).sum(), 1, 1)))
    if options is SHORT:
        np.testing.assert_allclose(result.gains, 1, rtol=1e-12)
        np.testing.assert_array_equal(result.slice_weights, used)
    else:
        assert 0.001 < np.std(result.gains) < 0.1
        assert result.gains.mean() == pytest.approx(1)


def test_an_exact_sum_of_all_gaussians_starts_at_the_level_of_the_slices():
    slices, losses = brain_slices(), []
    options = replace(SHORT, normalisation=None, nearest=None, epochs=15)
    result = reconstruct_as_published(slices, options, lambda progress: losses.append(progress.state.weights.noise))
    assert isinstance(result.field, GaussianField)
    assert (result.field.normalisation, result.field.nearest) == (None, None)
    bright = float(slices.values[slices.mask].mean()) / intensity_scale(slices)
    assert losses[-1] < 0.7 * losses[0] < 0.7 * bright


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
