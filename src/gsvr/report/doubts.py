"""Why a slice counts less than others, in words, from what was measured and what is predicted of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from gsvr.io.transforms import SlicePose
from gsvr.report.examination import is_doubted, is_used, weight_of

# A pixel is dark, or bright, when it differs from its prediction by this share of bright tissue; a slice is when this
# share of its pixels is.
_DIFFERENT, _MUCH = 0.3, 0.12
# Gains beyond these are no scatter of the receiver.
_DARK_GAIN, _BRIGHT_GAIN = 0.75, 1.33
# Below this correlation what a slice shows is not what lies where it was put.
_UNLIKE = 0.6
# Pixels below which a slice shows little; deviation of its place (mm) from which on it is anybody's guess.
_FEW_PIXELS, _UNSURE = 150, 2.0


@dataclass(frozen=True)
class Comparison:
    """A slice beside its prediction.

    Attributes
    ----------
    correlation
        Of used pixels; NaN without contrast.
    dark, bright
        Share of used pixels that are much darker or brighter than predicted.
    """

    correlation: float
    dark: float
    bright: float


def compare(
    measured: Float[np.ndarray, "u v"],
    predicted: Float[np.ndarray, "u v"],
    used: Bool[np.ndarray, "u v"],
    bright_tissue: float,
) -> Comparison:
    """Compare the used pixels of a slice with their prediction.

    Parameters
    ----------
    bright_tissue
        Intensity of bright tissue, to which differences are related.
    """
    a, b = measured[used].astype(np.float64), predicted[used].astype(np.float64)
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return Comparison(float("nan"), 0.0, 0.0)
    difference = (a - b) / bright_tissue
    return Comparison(
        float(np.corrcoef(a, b)[0, 1]),
        float((difference < -_DIFFERENT).mean()),
        float((difference > _DIFFERENT).mean()),
    )


def reasons(pose: SlicePose, comparison: Comparison | None, typical_residual: float) -> list[str]:
    """What speaks against a slice, the most telling first; nothing for one that counts.

    Parameters
    ----------
    comparison
        None: the slice itself is not at hand.
    typical_residual
        Median residual of used slices (intensity).
    """
    if not is_used(pose):
        return ["shows none of the brain"]
    if not is_doubted(pose):
        return []
    details, found = pose.details, []
    gain = float(details.get("gain", 1.0))
    if comparison is not None and comparison.dark > _MUCH and comparison.dark > comparison.bright:
        found.append(f"signal loss: {comparison.dark:.0%} of it is much darker than predicted")
    elif gain < _DARK_GAIN:
        found.append(f"signal loss: its brightness is {gain:.0%} of that of the others")
    if comparison is not None and comparison.bright > _MUCH and comparison.bright >= comparison.dark:
        found.append(f"{comparison.bright:.0%} of it is much brighter than predicted")
    elif gain > _BRIGHT_GAIN:
        found.append(f"its brightness is {gain:.0%} of that of the others")
    if comparison is not None and comparison.correlation < _UNLIKE:
        found.append(
            f"does not show what the others show there (correlation {comparison.correlation:.2f}): "
            "moved while it was acquired, or is in the wrong place"
        )
    deviation = float(details.get("deviation_mm", np.nan))
    if deviation > _UNSURE:
        found.append(f"its place is uncertain by {deviation:.1f} mm")
    if int(details.get("pixels", _FEW_PIXELS)) < _FEW_PIXELS:
        found.append(f"shows little of the brain ({details['pixels']} pixels)")
    if not found:
        ratio = float(details.get("residual", np.nan)) / typical_residual if typical_residual > 0 else float("nan")
        found.append(
            f"fits badly: its residual is {ratio:.1f} times that of a typical slice"
            if np.isfinite(ratio)
            else f"fits badly (weight {weight_of(pose):.2f})"
        )
    return found
