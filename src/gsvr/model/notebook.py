"""What a notebook shows of volumes, stacks and results: one static picture and one line of facts."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

# Height of the planes (pixels), space between them, and the intensity window (percentiles).
_HEIGHT, _GAP, _WINDOW = 160, 4, (0.5, 99.5)


def mosaic_html(planes: Sequence[Shaped[np.ndarray, "_ _"]], facts: str, describes: str) -> str:
    """Planes side by side, in one window of intensities, above a line of facts.

    Parameters
    ----------
    planes
        Rows from the top, columns from the left; none: only the facts.
    describes
        The picture in words, for those who do not see it.
    """
    from PIL import Image  # only a notebook needs it

    line = f"<div>{html.escape(facts)}</div>"
    shown = [plane for plane in planes if plane.size]
    if not shown:
        return line
    values = np.concatenate([plane.ravel() for plane in shown])
    low, high = np.percentile(values[values != 0] if values.any() else values, _WINDOW)
    low = min(float(low), 0.0)
    strip = Image.new("L", (sum(_width(plane) + _GAP for plane in shown) - _GAP, _HEIGHT))
    left = 0
    for plane in shown:
        level = np.clip((plane - low) / max(float(high) - low, 1e-30), 0, 1)
        panel = Image.fromarray(np.round(255 * level).astype(np.uint8))
        strip.paste(panel.resize((_width(plane), _HEIGHT), Image.Resampling.BICUBIC), (left, 0))
        left += _width(plane) + _GAP
    content = io.BytesIO()
    strip.save(content, "PNG", optimize=True)
    source = base64.b64encode(content.getvalue()).decode()
    return f'<div><img src="data:image/png;base64,{source}" alt="{html.escape(describes)}">{line}</div>'


def middle_planes(
    data: Float[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    inside: Bool[np.ndarray, "x y z"] | None = None,
) -> list[Float[np.ndarray, "_ _"]]:
    """Axial, coronal and sagittal plane through the middle, radiological as far as turns by 90 degrees can.

    Parameters
    ----------
    affine
        Voxel index -> world (RAS+, mm).
    inside
        What the middle is that of; None: the grid.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order, rest = [], list(range(3))
    for world in range(3):  # the axis of the array that is closest to each of the world's
        order.append(max(rest, key=lambda axis: abs(directions[world, axis])))
        rest.remove(order[-1])
    flips = tuple(slice(None, None, 1 if directions[world, axis] > 0 else -1) for world, axis in enumerate(order))
    upright = data.transpose(order)[flips]
    middle = [n // 2 for n in upright.shape]
    if inside is not None and inside.any():
        middle = [int(places.mean()) for places in np.nonzero(inside.transpose(order)[flips])]
    return [np.take(upright, middle[axis], axis=axis)[::-1, ::-1].T for axis in (2, 1, 0)]


def _width(plane: np.ndarray) -> int:
    return max(1, min(4 * _HEIGHT, round(_HEIGHT * plane.shape[1] / plane.shape[0])))
