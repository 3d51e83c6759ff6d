"""When the slices of a stack were acquired, as far as headers tell.

Siemens states the time of acquisition of every slice. GE repeats the time of the series, but keeps a timer in a
private element. Philips mostly states one time for all. Enhanced files of any vendor may have one for each frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gsvr.io.dicom.frame import Frame

_DAY = 86_400.0
# Share of the mean time between slices that is more than rounding in headers.
_RESOLUTION = 1e-3


def slice_times(frames: Sequence[Frame]) -> Float[np.ndarray, " n"] | None:
    """Seconds from the first slice on, or None if the headers do not tell all slices apart.

    Parameters
    ----------
    frames
        The slices of a stack.
    """
    for times in (
        [frame.time for frame in frames],
        [frame.timer for frame in frames],
        [frame.trigger for frame in frames],
    ):
        if any(time is None for time in times):
            continue
        seconds = np.array(times, dtype=np.float64)
        if seconds.max() - seconds.min() > _DAY / 2:  # past midnight without a date
            seconds = np.where(seconds < seconds.max() - _DAY / 2, seconds + _DAY, seconds)
        between = (seconds.max() - seconds.min()) / max(len(seconds) - 1, 1)
        if between > 0 and np.diff(np.sort(seconds)).min() > _RESOLUTION * between:
            return seconds - seconds.min()
    return None
