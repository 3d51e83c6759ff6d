"""Pictures of planes, straight from the newest field of an examination."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage

from gsvr.model.volume import Volume
from gsvr.render.plane import plane_frame, render_plane
from gsvr.report.colours import sequential, window
from gsvr.workflows.live.examination import Latest

# Of a picture: pixels, and mm between them.
_SIZES, _SPACINGS = (16, 640), (0.1, 5.0)
# mm from the origin of the world, beyond which nobody looks.
_FARTHEST = 1e4
# Of the colours of uncertainty over the volume.
_OPACITY = 0.55


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


def _with_uncertainty(
    plane: UInt8[np.ndarray, "size size"],
    latest: Latest,
    uncertainty: Volume,
    frame: Float[np.ndarray, "4 4"],
    view: PlaneView,
) -> UInt8[np.ndarray, "size size 3"]:
    """Colours over the brain, on `uncertainty_scale`."""
    along = np.arange(view.size) * view.spacing
    right, up = np.meshgrid(along, along, indexing="ij")
    places = frame @ np.stack([right.ravel(), up.ravel(), np.zeros(right.size), np.ones(right.size)])

    def sampled(volume: Volume, values: np.ndarray, order: int) -> np.ndarray:
        index = (np.linalg.inv(volume.affine) @ places)[:3]
        return ndimage.map_coordinates(values, index, order=order, mode="constant").reshape(plane.shape)

    inside = latest.mask
    assert inside.mask is not None
    brain = sampled(inside, inside.mask.astype(np.float32), 1)[..., None] > 0.5
    low, high = uncertainty_scale(uncertainty)
    colours = sequential((sampled(uncertainty, uncertainty.data, 1) - low) / (high - low))
    grey = np.repeat(plane[..., None], 3, axis=-1)
    mixed = np.round((1 - _OPACITY) * grey + _OPACITY * colours).astype(np.uint8)
    return np.where(brain, mixed, grey)


def uncertainty_scale(uncertainty: Volume) -> tuple[float, float]:
    """The standard deviations that are dark blue and yellow, as shares of white: nearly the range in the brain."""
    assert uncertainty.mask is not None
    low, high = np.percentile(uncertainty.data[uncertainty.mask], (2, 98))
    return float(low), max(float(high), float(low) + 1e-3)


def picture(
    latest: Latest, view: PlaneView, levels: tuple[float, float], backend: str, uncertainty: bool = False
) -> bytes:
    """The plane as PNG; with the uncertainty over it, if asked for and known."""
    shape, spacing = (view.size, view.size), (view.spacing, view.spacing)
    frame = plane_frame(np.array(view.centre), np.array(view.normal), shape, spacing)
    pixels = render_plane(latest.field, frame, shape, spacing, backend=backend)
    low, high = levels
    shown = np.round(255 * np.clip((pixels - low) / (high - low), 0, 1)).astype(np.uint8)
    if uncertainty and latest.uncertainty is not None:
        shown = _with_uncertainty(shown, latest, latest.uncertainty, frame, view)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.swapaxes(shown, 0, 1)[::-1])).save(file, format="PNG", compress_level=1)
    return file.getvalue()
