"""The published settings: one objective in two backends, and a brain that gets better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.model.fields import GaussianField
from gsvr.model.slices import Slices
from gsvr.solver.published import PaperOptions, PaperProgress, reconstruct_as_published, scale_prior
from gsvr.solver.paper_loss import LossGradient, PaperLoss, SplatLoss, TorchLoss
from gsvr.solver.reconstruct import intensity_scale
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import prepare_slices
from tests.acquisitions import small_slices
from tests.moving_brain import errors_before, errors_of_poses, moving_brain

# Far enough that nothing counts but the nearest neighbours, as in plain PyTorch.
NO_CUTOFF = 9.0
SHORT = PaperOptions(n_gaussians=3000, epochs=60, refreshed_every=20, halved_every=25)


def some_field(nearest: int = 12) -> GaussianField:
    rng = np.random.default_rng(3)
    n = 80
    return GaussianField(
        means=(rng.normal(size=(n, 3)) * 3).astype(np.float32),
        log_scales=rng.normal(np.log(1.6), 0.2, (n, 3)).astype(np.float32),
        quaternions=rng.normal(size=(n, 4)).astype(np.float32),
        amplitudes=rng.uniform(0, 1, n).astype(np.float32),
        normalisation=1e-6,
        nearest=nearest,
    )


def evaluated(loss: PaperLoss, field: GaussianField, poses: np.ndarray) -> LossGradient:
    loss.refresh(field, poses)
    return loss.evaluate(field, poses)


@pytest.mark.parametrize("profile", ["gaussian", "slab"])
def test_both_backends_agree_on_loss_and_gradient(profile: str):
    pytest.importorskip("torch")
    slices, poses = small_slices()
    field = some_field()
    fast = evaluated(SplatLoss(slices, profile, NO_CUTOFF), field, poses)  # pyright: ignore[reportArgumentType]
    plain = evaluated(TorchLoss(slices, profile, "cpu"), field, poses)  # pyright: ignore[reportArgumentType]
    assert fast.loss == pytest.approx(plain.loss, rel=1e-5)
    np.testing.assert_allclose(fast.prediction, plain.prediction, rtol=0, atol=1e-5)
    for name in ("means", "log_scales", "quaternions", "amplitudes", "poses"):
        ours, theirs = getattr(fast, name), getattr(plain, name)
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max(), name


def test_plain_pytorch_in_parts_is_plain_pytorch_at_once():
    torch = pytest.importorskip("torch")
    from gsvr.backends.torch.gaussian_torch import NearestGaussians
    from tests.acquisitions import spread_of

    slices, poses = small_slices()
    field = some_field()
    results = []
    for at_once in (7, 10_000):
        pixels = NearestGaussians(slices, spread_of(slices, "gaussian"), "cpu", torch.float64, at_once)
        pixels.find_neighbours(field.means, poses, 12)
        results.append(pixels.l1_gradient(field, poses))
    (loss, prediction, gradient), (whole_loss, whole_prediction, whole_gradient) = results
    assert loss == pytest.approx(whole_loss, rel=1e-12)
    np.testing.assert_allclose(prediction, whole_prediction, rtol=1e-6)
    for name, values in gradient.items():
        np.testing.assert_allclose(values, whole_gradient[name], rtol=1e-9, atol=1e-13)


def test_the_gradient_of_the_scale_prior():
    field = some_field()
    _, gradient = scale_prior(field, 1.6, 2.5e-3)
    precise = replace(field, log_scales=field.log_scales.astype(np.float64))
    step = np.zeros((80, 3))
    step[5, 1] = 1e-5
    ahead, _ = scale_prior(replace(precise, log_scales=precise.log_scales + step), 1.6, 2.5e-3)
    behind, _ = scale_prior(replace(precise, log_scales=precise.log_scales - step), 1.6, 2.5e-3)
    assert gradient[5, 1] == pytest.approx((ahead - behind) / 2e-5, rel=1e-4)


def brain_slices() -> Slices:
    return prepare_slices(moving_brain().stacks, SolverOptions())[0]


def test_loss_falls_and_poses_improve():
    slices, simulation = brain_slices(), moving_brain()
    losses: list[float] = []

    def watch(progress: PaperProgress) -> None:
        losses.append(progress.loss)

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
    louder = reconstruct_as_published(replace(slices, values=slices.values * np.float32(64)), options)
    np.testing.assert_allclose(louder.field.amplitudes, 64 * result.field.amplitudes, rtol=1e-4, atol=1e-2)
    assert louder.noise == pytest.approx(64 * result.noise, rel=1e-3)
    assert result.noise < 0.5 * intensity_scale(slices)


def test_a_missing_gpu_is_an_error():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(InputError, match="finds no device"):
        reconstruct_as_published(brain_slices(), replace(SHORT, backend="torch", device="cuda"))
