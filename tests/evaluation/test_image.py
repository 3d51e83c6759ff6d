"""Image metrics: what noise of a known size gives, what must not matter, and scikit-image's word on SSIM."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from gsvr.evaluation import compare, fit_gain_offset, measure, ncc, nrmse, psnr, ssim
from gsvr.model.geometry import pose_about, transform_points
from gsvr.model.volume import Volume

SHAPE = (40, 44, 48)


def texture(seed: int, smoothing: float = 1.5) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), smoothing)
    return (100 + 50 * noise / noise.std()).astype(np.float32)


def ball(radius: float = 16.0) -> np.ndarray:
    index = np.moveaxis(np.indices(SHAPE), 0, -1) - (np.array(SHAPE) - 1) / 2
    return np.linalg.norm(index, axis=-1) < radius


def test_a_volume_is_perfect_against_itself():
    truth, mask = texture(0), ball()
    quality = measure(truth, truth, mask)
    assert quality.psnr == np.inf
    assert quality.ssim == pytest.approx(1.0, abs=1e-12)
    assert quality.ncc == pytest.approx(1.0, abs=1e-12)
    assert quality.nrmse == 0.0
    assert quality.n_voxels == mask.sum()


@pytest.mark.parametrize("sigma", [1.0, 8.0])
def test_noise_of_known_size(sigma: float):
    truth, mask = texture(1), ball()
    noisy = (truth + sigma * np.random.default_rng(2).standard_normal(SHAPE)).astype(np.float32)
    expected = 20 * np.log10(truth[mask].max() / sigma)
    # Relative error of a variance estimated from n values: sqrt(2 / n), here 1 %.
    assert psnr(noisy, truth, mask) == pytest.approx(expected, abs=0.15)
    assert nrmse(noisy, truth, mask) == pytest.approx(sigma / np.ptp(truth[mask]), rel=0.02)
    signal = truth[mask].std()
    assert ncc(noisy, truth, mask) == pytest.approx(signal / np.hypot(signal, sigma), abs=2e-3)


def test_nothing_outside_the_mask_counts():
    truth, mask = texture(3), ball(12)
    image = truth + texture(4) / 20
    elsewhere = np.where(mask, image, -1000).astype(np.float32)
    assert measure(elsewhere, np.where(mask, truth, 7).astype(np.float32), mask) == measure(image, truth, mask)


def scikit_image_similarity(image: np.ndarray, truth: np.ndarray, data_range: float) -> np.ndarray:
    result = structural_similarity(
        truth.astype(np.float64),
        image.astype(np.float64),
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return np.asarray(result[1])


@pytest.mark.parametrize("radius", [14.0, 100.0])
def test_ssim_agrees_with_scikit_image(radius: float):
    truth, mask = texture(5), ball(radius)
    image = ndimage.gaussian_filter(truth, 1) + 3 * texture(6, 0.5)
    zeroed = [np.where(mask, values, 0) for values in (image, truth)]
    similarity = scikit_image_similarity(*zeroed, data_range=float(np.ptp(truth[mask])))
    assert ssim(image, truth, mask) == pytest.approx(float(similarity[mask].mean()), abs=1e-9)


def test_gain_and_offset_are_found():
    truth, mask = texture(7), ball()
    gain, offset = fit_gain_offset((truth - 30) / 4, truth, mask)
    assert gain == pytest.approx(4, rel=1e-5)
    assert offset == pytest.approx(30, rel=1e-3)


def test_a_constant_image_has_no_correlation_and_no_gain():
    truth, mask = texture(8), ball()
    assert np.isnan(ncc(np.zeros_like(truth), truth, mask))
    assert fit_gain_offset(np.zeros_like(truth), truth, mask) == pytest.approx((0, truth[mask].mean()))


def masked_truth(seed: int = 9) -> Volume:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -20
    mask = ball()
    return Volume(np.where(mask, texture(seed, 2.5), 0).astype(np.float32), affine, mask)


def test_comparison_with_itself():
    truth = masked_truth()
    unaligned = compare(truth, truth, align=False)
    assert unaligned.quality.psnr > 120
    assert unaligned.gain == pytest.approx(1, abs=1e-6)
    assert unaligned.coverage == 1
    np.testing.assert_array_equal(unaligned.pose, np.eye(4))
    aligned = compare(truth, truth)
    assert aligned.quality.psnr > 60
    np.testing.assert_allclose(aligned.pose, np.eye(4), atol=2e-3)


def test_comparison_is_blind_to_gain_and_offset():
    truth = masked_truth()
    assert truth.mask is not None
    noise = np.random.default_rng(1).standard_normal(SHAPE)
    image = (truth.data + 10 * noise * truth.mask).astype(np.float32)
    first = compare(Volume(image, truth.affine), truth, align=False)
    second = compare(Volume(0.02 * image + 3, truth.affine), truth, align=False)
    assert second.quality.psnr == pytest.approx(first.quality.psnr, abs=1e-3)
    assert second.quality.ssim == pytest.approx(first.quality.ssim, abs=1e-4)
    np.testing.assert_allclose(second.aligned, first.aligned, atol=1e-2)


def test_comparison_is_blind_to_a_rigid_motion_of_the_affine():
    truth = masked_truth()
    assert truth.mask is not None
    blurred = ndimage.gaussian_filter(truth.data, 1)
    motion = pose_about(np.radians([6.0, -9.0, 5.0]), np.array([7.0, -8.0, 5.0]), np.zeros(3))
    still = compare(Volume(blurred, truth.affine), truth)
    moved = compare(Volume(blurred, motion @ truth.affine), truth)
    assert moved.quality.psnr == pytest.approx(still.quality.psnr, abs=0.02)
    assert moved.quality.ssim == pytest.approx(still.quality.ssim, abs=1e-3)
    points = truth.voxel_positions(truth.mask)
    back = transform_points(moved.pose @ motion, points) - transform_points(still.pose, points)
    assert np.abs(back).max() < 0.01
    unaligned = compare(Volume(blurred, motion @ truth.affine), truth, align=False)
    assert unaligned.quality.ncc < 0.6


def test_coverage_tells_what_the_reconstruction_leaves_out():
    truth = masked_truth()
    assert truth.mask is not None
    cropped = Volume(truth.data[:20], truth.affine)
    comparison = compare(cropped, truth, align=False)
    assert comparison.coverage == pytest.approx(truth.mask[:20].sum() / truth.mask.sum())
    assert comparison.quality.ncc < 0.9


def test_a_mask_can_be_given_or_comes_from_the_truth():
    truth = masked_truth()
    assert truth.mask is not None
    smaller = ball(8)
    assert compare(truth, truth, smaller, align=False).quality.n_voxels == smaller.sum()
    unmasked = Volume(truth.data, truth.affine)
    assert compare(unmasked, unmasked, align=False).quality.n_voxels == np.count_nonzero(truth.data)


def test_useless_masks_are_refused():
    truth = masked_truth()
    with pytest.raises(ValueError, match="shape"):
        compare(truth, truth, np.ones((2, 2, 2), dtype=bool))
    with pytest.raises(ValueError, match="contrast"):
        compare(truth, truth, np.zeros(SHAPE, dtype=bool))
    with pytest.raises(ValueError, match="contrast"):
        compare(truth, Volume(np.ones(SHAPE, dtype=np.float32), truth.affine))
