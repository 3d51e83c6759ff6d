"""Image metrics of a reconstruction against a known truth.

They are taken inside a mask, after the reconstruction was brought onto the truth rigidly and its gain and
offset were fitted: all of these are free in slice-to-volume reconstruction and say nothing about its quality.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from gsvr.evaluation.registration import register_rigid
from gsvr.model.geometry import invert
from gsvr.model.morphology import bounding_box
from gsvr.model.volume import Volume

# Structural similarity as everyone computes it (Wang et al. 2004): window in voxels, constants of the ratio.
_SSIM_SIGMA = 1.5
_SSIM_TRUNCATE = 3.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


@dataclass(frozen=True)
class Quality:
    """Image metrics of a reconstruction inside a mask.

    Attributes
    ----------
    psnr
        Peak signal-to-noise ratio (dB), see `psnr`.
    ssim
        Mean structural similarity, see `ssim`.
    ncc
        Normalised cross-correlation (Pearson).
    nrmse
        Root mean square error over the range of the truth.
    n_voxels
        Number of voxels in the mask.
    """

    psnr: float
    ssim: float
    ncc: float
    nrmse: float
    n_voxels: int


@dataclass(frozen=True)
class Comparison:
    """A reconstruction brought onto the truth, and how it compares.

    Attributes
    ----------
    quality
        Metrics of `aligned` in the truth's mask.
    pose
        World of the reconstruction -> world of the truth (mm).
    gain, offset
        ``gain * reconstruction + offset`` is closest to the truth.
    aligned
        The reconstruction on the truth's grid, with gain and offset.
    mask
        Where the metrics were taken.
    coverage
        Share of the mask inside the reconstruction's grid; beyond it the reconstruction counts as zero.
    """

    quality: Quality
    pose: Float[np.ndarray, "4 4"]
    gain: float
    offset: float
    aligned: Float32[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    coverage: float


def psnr(
    image: Float[np.ndarray, "*n"],
    truth: Float[np.ndarray, "*n"],
    mask: Bool[np.ndarray, "*n"],
    peak: float | None = None,
) -> float:
    """Peak signal-to-noise ratio (dB) in the mask; the peak is the truth's maximum there unless given."""
    error = float(np.mean(np.square(image[mask].astype(np.float64) - truth[mask])))
    peak = float(truth[mask].max()) if peak is None else peak
    return 10.0 * float(np.log10(peak**2 / error)) if error > 0 else float("inf")


def nrmse(image: Float[np.ndarray, "*n"], truth: Float[np.ndarray, "*n"], mask: Bool[np.ndarray, "*n"]) -> float:
    """Root mean square error in the mask, over the truth's maximum minus minimum there."""
    rms = float(np.sqrt(np.mean(np.square(image[mask].astype(np.float64) - truth[mask]))))
    return rms / float(np.ptp(truth[mask]))


def ncc(image: Float[np.ndarray, "*n"], truth: Float[np.ndarray, "*n"], mask: Bool[np.ndarray, "*n"]) -> float:
    """Normalised cross-correlation (Pearson) in the mask; NaN where one of the two is constant."""
    first, second = (values[mask].astype(np.float64) for values in (image, truth))
    first, second = first - first.mean(), second - second.mean()
    power = float(first @ first) * float(second @ second)
    return float(first @ second) / float(np.sqrt(power)) if power > 0 else float("nan")


def ssim(
    image: Float[np.ndarray, "x y z"], truth: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]
) -> float:
    """Structural similarity (Wang et al. 2004) in three dimensions, averaged over the mask.

    The window is a Gaussian of 1.5 voxels, K1 = 0.01, K2 = 0.03; the data range is the truth's maximum minus
    its minimum in the mask. Both images are first set to zero outside the mask: nothing there counts.
    """
    box = bounding_box(mask, margin=int(np.ceil(_SSIM_TRUNCATE * _SSIM_SIGMA)) + 1)
    inside = mask[box]
    first, second = (np.where(inside, values[box], 0.0).astype(np.float64) for values in (image, truth))

    def window(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, _SSIM_SIGMA, truncate=_SSIM_TRUNCATE, mode="reflect")[inside]

    data_range = float(np.ptp(truth[mask]))
    constant_1, constant_2 = (_SSIM_K1 * data_range) ** 2, (_SSIM_K2 * data_range) ** 2
    mean_1, mean_2 = window(first), window(second)
    variance_1 = window(first**2) - mean_1**2
    variance_2 = window(second**2) - mean_2**2
    covariance = window(first * second) - mean_1 * mean_2
    similarity = (2 * mean_1 * mean_2 + constant_1) * (2 * covariance + constant_2)
    similarity /= (mean_1**2 + mean_2**2 + constant_1) * (variance_1 + variance_2 + constant_2)
    return float(similarity.mean())


def fit_gain_offset(
    volume: Float[np.ndarray, "*n"], truth: Float[np.ndarray, "*n"], mask: Bool[np.ndarray, "*n"]
) -> tuple[float, float]:
    """Gain and offset of the least-squares fit ``gain * volume + offset`` to `truth` in the mask."""
    source, target = (values[mask].astype(np.float64) for values in (volume, truth))
    centred = source - source.mean()
    power = float(centred @ centred)
    gain = float(centred @ target) / power if power > 0 else 0.0
    return gain, float(target.mean()) - gain * float(source.mean())


def measure(
    image: Float[np.ndarray, "x y z"], truth: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]
) -> Quality:
    """All metrics of an image against a truth on the same grid, as they are: nothing is aligned or fitted."""
    return Quality(
        psnr=psnr(image, truth, mask),
        ssim=ssim(image, truth, mask),
        ncc=ncc(image, truth, mask),
        nrmse=nrmse(image, truth, mask),
        n_voxels=int(mask.sum()),
    )


def compare(
    reconstruction: Volume,
    truth: Volume,
    mask: Bool[np.ndarray, "x y z"] | None = None,
    align: bool = True,
) -> Comparison:
    """Bring a reconstruction onto the truth and measure it there.

    It is aligned rigidly and interpolated once, by cubic splines; gain and offset are fitted in the mask.

    Parameters
    ----------
    mask
        Voxels of the truth that count; default: the truth's own mask, else where the truth is not zero.
    align
        False: the reconstruction is taken to lie in the truth's world already.

    Raises
    ------
    ValueError
        If the mask has another shape than the truth, or the truth has no contrast in it.
    """
    mask = voxels_that_count(truth) if mask is None else mask
    if mask.shape != truth.data.shape:
        raise ValueError(f"the mask has shape {mask.shape}, the truth {truth.data.shape}")
    if not mask.any() or np.ptp(truth.data[mask]) == 0:
        raise ValueError("the truth has no contrast in the mask")
    pose = register_rigid(reconstruction, truth, mask).pose if align else np.eye(4)
    to_index = np.linalg.inv(reconstruction.affine) @ invert(pose) @ truth.affine
    resampled = _resample(reconstruction.data, to_index, truth.data.shape)
    gain, offset = fit_gain_offset(resampled, truth.data, mask)
    aligned = (gain * resampled + offset).astype(np.float32)
    return Comparison(
        quality=measure(aligned, truth.data, mask),
        pose=pose,
        gain=gain,
        offset=offset,
        aligned=aligned,
        mask=mask,
        coverage=_coverage(reconstruction.data.shape, to_index, mask),
    )


def voxels_that_count(truth: Volume) -> Bool[np.ndarray, "x y z"]:
    """The mask of a truth, else where it is not zero."""
    return truth.data != 0 if truth.mask is None else truth.mask


def _resample(data: np.ndarray, to_index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if shape == data.shape and np.allclose(to_index, np.eye(4), rtol=0, atol=1e-6):
        return data
    return ndimage.affine_transform(data, to_index, output_shape=shape, order=3, output=np.float32)


def _coverage(shape: tuple[int, ...], to_index: np.ndarray, mask: np.ndarray) -> float:
    index = np.argwhere(mask) @ to_index[:3, :3].T + to_index[:3, 3]
    inside = np.all((index >= -0.5) & (index <= np.array(shape) - 0.5), axis=1)
    return float(inside.mean())
