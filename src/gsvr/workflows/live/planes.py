"""Pictures of planes, straight from the newest field of an examination."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gsvr.render.plane import plane_frame, render_plane
from gsvr.report.colours import window
from gsvr.workflows.live.examination import Latest

# Of a picture: pixels, and mm between them.
_SIZES, _SPACINGS = (16, 640), (0.1, 5.0)
# mm from the origin of the world, beyond which nobody looks.
_FARTHEST = 1e4


@dataclass(frozen=True)
class PlaneView:
    """What to look at.

    Attributes
    ----------
    centre
        Of the picture (mm, volume world).
    normal
        Towards the viewer, see `gsvr.render.plane.plane_frame`.
    size
        Pixels along both sides.
    spacing
        mm between them.

    Raises
    ------
    ValueError
        If a number makes no sense.
    """

    centre: tuple[float, float, float]
    normal: tuple[float, float, float]
    size: int = 256
    spacing: float = 0.5

    def __post_init__(self) -> None:
        if not (_SIZES[0] <= self.size <= _SIZES[1] and _SPACINGS[0] <= self.spacing <= _SPACINGS[1]):
            raise ValueError("a picture of this size or spacing is not made")
        if not np.all(np.abs([*self.centre, *self.normal]) < _FARTHEST):  # NaN is not, either
            raise ValueError("a plane needs finite numbers")


def middle_of(latest: Latest) -> tuple[list[float], float]:
    """Middle and largest extent of the brain (mm)."""
    volume = latest.volume
    assert volume.mask is not None
    places = volume.voxel_positions(volume.mask)
    low, high = places.min(axis=0), places.max(axis=0)
    return ((low + high) / 2).tolist(), float((high - low).max())


def window_of(latest: Latest) -> tuple[float, float]:
    """What is black and what is white."""
    volume = latest.volume
    assert volume.mask is not None
    return window(volume.data[volume.mask])


def picture(latest: Latest, view: PlaneView, levels: tuple[float, float], backend: str) -> bytes:
    """The plane as PNG."""
    shape, spacing = (view.size, view.size), (view.spacing, view.spacing)
    frame = plane_frame(np.array(view.centre), np.array(view.normal), shape, spacing)
    pixels = render_plane(latest.result.field, frame, shape, spacing, backend=backend)
    low, high = levels
    grey = np.round(255 * np.clip((pixels - low) / (high - low), 0, 1)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey.T[::-1])).save(file, format="PNG", compress_level=1)
    return file.getvalue()
