"""Agreement of predicted slices with measured ones that the reconstruction did not see: needs no truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gsvr.evaluation.image import ncc, psnr


@dataclass(frozen=True)
class SliceAgreement:
    """How well predicted slices of one stack agree with the measured ones.

    Attributes
    ----------
    gain
        ``gain * predicted`` is closest to the measured pixels of the whole stack.
    ncc, psnr
        Normalised cross-correlation and peak signal-to-noise ratio (dB) over all pixels in the mask.
    slice_ncc, slice_psnr
        The same slice by slice, with the gain and the peak of the stack; NaN for a slice without pixels in
        the mask, and the correlation also where one of the two has no contrast.
    n_pixels
        Pixels in the mask of each slice.
    """

    gain: float
    ncc: float
    psnr: float
    slice_ncc: Float[np.ndarray, " n"]
    slice_psnr: Float[np.ndarray, " n"]
    n_pixels: Int[np.ndarray, " n"]


def slice_agreement(
    predicted: Float[np.ndarray, " p"],
    measured: Float[np.ndarray, " p"],
    mask: Bool[np.ndarray, " p"],
    slice_of: Int[np.ndarray, " p"] | None = None,
) -> SliceAgreement:
    """Compare predicted with measured pixels of one stack, after one gain for the whole stack.

    There is no truth here: a stack that was left out of the reconstruction is the measure.

    Parameters
    ----------
    predicted, measured, mask
        The pixels of the stack, slice after slice; the peak of the PSNR is the measured maximum in the mask.
    slice_of
        Which slice, from 0, each pixel belongs to; default: all are of one slice.

    Raises
    ------
    ValueError
        If no pixel is inside the mask.
    """
    if not mask.any():
        raise ValueError("no pixel of the stack is inside the mask: nothing to compare")
    slice_of = np.zeros(len(mask), dtype=np.int64) if slice_of is None else slice_of
    first, second, number = (
        predicted[mask].astype(np.float64),
        measured[mask].astype(np.float64),
        slice_of[mask],
    )
    power = float(first @ first)
    gain = float(first @ second) / power if power > 0 else 0.0
    first *= gain
    peak = float(second.max())
    n_slices = int(slice_of.max()) + 1
    slice_ncc, slice_psnr = np.full(n_slices, np.nan), np.full(n_slices, np.nan)
    for index in np.unique(number):
        of_slice = number == index
        slice_ncc[index] = ncc(first, second, of_slice)
        slice_psnr[index] = psnr(first, second, of_slice, peak)
    everything = np.ones(len(first), dtype=bool)
    return SliceAgreement(
        gain=gain,
        ncc=ncc(first, second, everything),
        psnr=psnr(first, second, everything),
        slice_ncc=slice_ncc,
        slice_psnr=slice_psnr,
        n_pixels=np.bincount(number, minlength=n_slices),
    )
