"""Every slice as it was acquired, as it is predicted, and what is left, worst first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsvr.io.transforms import SlicePose
from gsvr.model.slices import Slices
from gsvr.report.colours import diverging, grey, outlined, window
from gsvr.report.doubts import Comparison, compare, reasons
from gsvr.report.examination import Acquisition, Examination, is_doubted, is_used, weight_of
from gsvr.report.inline_images import InlineImage, inline_image

# Residual at which the colour is full, as a share of the intensity window; pixels around the brain that are shown, and
# between the three pictures of a slice.
_RESIDUAL_RANGE, _MARGIN, _GAP = 0.35, 4, 3
# Percentile of predicted pixels that stands for bright tissue.
_BRIGHT = 90.0


@dataclass(frozen=True)
class SliceCard:
    """One slice.

    Attributes
    ----------
    stack, index
        Which (from 0, along the through-plane axis).
    order
        Of acquisition, from 1; None: not known.
    used, doubted
        Whether it shows the brain, and counts less than half.
    weight, gain
        As in the record.
    reasons
        Why it counts less.
    correlation
        With its prediction; NaN where that is not known.
    image
        Acquired, predicted and residual side by side; None: not at hand.
    """

    stack: str
    index: int
    order: int | None
    used: bool
    doubted: bool
    weight: float
    gain: float
    reasons: list[str]
    correlation: float
    image: InlineImage | None


def slice_cards(examination: Examination) -> list[SliceCard]:
    """Of all slices, those that count least first; those that show nothing of the brain last."""
    used = [pose for pose in examination.slices if is_used(pose)]
    residuals = [float(pose.details.get("residual", np.nan)) for pose in used]
    typical = float(np.nanmedian(residuals)) if np.isfinite(residuals).any() else 0.0
    orders = {name: _orders(examination.of_stack(name)) for name in examination.stack_names}
    painter = None if examination.acquisition is None else _Painter(examination.acquisition, examination.turn)
    cards = []
    for pose in examination.slices:
        image, comparison = (None, None) if painter is None or not is_used(pose) else painter.paint(pose)
        card = SliceCard(
            pose.stack,
            pose.slice_index,
            orders[pose.stack].get(pose.slice_index),
            is_used(pose),
            is_doubted(pose),
            weight_of(pose),
            float(pose.details.get("gain", 1.0)),
            reasons(pose, comparison, typical),
            float("nan") if comparison is None else comparison.correlation,
            image,
        )
        cards.append(card)
    return sorted(cards, key=lambda card: (not card.used, card.weight))


def _orders(slices: list[SlicePose]) -> dict[int, int]:
    times = [(float(pose.details["time"]), pose.slice_index) for pose in slices if "time" in pose.details]
    return {index: number for number, (_, index) in enumerate(sorted(times), 1)}


class _Painter:
    """Draws slices, all in the window of the predictions."""

    def __init__(self, acquisition: Acquisition, turn: np.ndarray) -> None:
        self._acquisition, slices = acquisition, acquisition.slices
        shown = acquisition.prediction[slices.mask]
        self._low, self._high = window(shown)
        self._bright = max(float(np.percentile(shown, _BRIGHT)), 1e-12)
        self._turns = [_turn(turn[:3, :3] @ slices.frames[number][:3, :3]) for number in range(slices.n_slices)]

    def paint(self, pose: SlicePose) -> tuple[InlineImage | None, Comparison | None]:
        """The pictures of a slice, and how it compares with its prediction."""
        acquisition = self._acquisition
        number = acquisition.place.get((pose.stack, pose.slice_index))
        if number is None:
            return None, None
        slices, width = acquisition.slices, self._high - self._low
        used = slices.image(number, slices.mask)
        measured, predicted = slices.image(number), slices.image(number, acquisition.prediction)
        box = _box(used)
        turn = self._turns[number]
        level = [turn((part[box] - self._low) / width) for part in (measured, predicted)]
        inside = turn(used[box])
        panels = [outlined(grey(level[0]), inside, 1), grey(level[1])]
        panels += [diverging((level[0] - level[1]) * inside / _RESIDUAL_RANGE)]
        gap = np.zeros((len(inside), _GAP, 3), np.uint8)
        strip = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
        return inline_image(strip), compare(measured, predicted, used, self._bright)


def _box(used: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that show the brain, and a margin."""
    ends = []
    for axis in (0, 1):
        found = np.flatnonzero(used.any(axis=1 - axis))
        first, last = (0, used.shape[axis] - 1) if len(found) == 0 else (found[0], found[-1])
        ends.append(slice(max(int(first) - _MARGIN, 0), int(last) + 1 + _MARGIN))
    return ends[0], ends[1]


def slice_plane(slices: Slices, number: int, turn: np.ndarray) -> str:
    """Axial, coronal or sagittal, whichever is closest to the slice as it was acquired, in the world of the volume."""
    normal = np.abs(turn[:3, :3] @ slices.frames[number][:3, 2])
    return ("sagittal", "coronal", "axial")[int(normal.argmax())]


def _turn(rotation: np.ndarray):
    """How to turn a slice (u, v) into a picture that is radiological as far as 90-degree turns and flips can."""
    plane = int(np.abs(rotation[:, 2]).argmax())
    # world directions to the right and upwards, as in a radiological view
    right = (np.array([0, -1, 0]), np.array([-1, 0, 0]), np.array([-1, 0, 0]))[plane]
    up = (np.array([0, 0, 1]), np.array([0, 0, 1]), np.array([0, 1, 0]))[plane]
    along_u, along_v = rotation[:, 0], rotation[:, 1]
    swap = abs(along_u @ right) < abs(along_v @ right)
    horizontal, vertical = (along_v, along_u) if swap else (along_u, along_v)

    def turned(image: np.ndarray) -> np.ndarray:
        image = image if swap else image.T  # rows: vertical axis, columns: horizontal
        if vertical @ up > 0:
            image = image[::-1]
        return image if horizontal @ right > 0 else image[:, ::-1]

    return turned
