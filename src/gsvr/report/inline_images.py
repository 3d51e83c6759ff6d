"""Pixels as pictures inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Of WebP, from 0 to 100: finer than a screen shows; and the least effort, since a report has hundreds of pictures.
_QUALITY, _EFFORT = 82, 0


@dataclass(frozen=True)
class InlineImage:
    """A picture as a page holds it.

    Attributes
    ----------
    source
        Data URI.
    width, height
        In pixels.
    """

    source: str
    width: int
    height: int


def inline_image(pixels: UInt8[np.ndarray, "height width 3"], enlarged: float = 1.0) -> InlineImage:
    """Encode a picture, which is shown `enlarged` times as large."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if enlarged != 1:
        size = (round(picture.width * enlarged), round(picture.height * enlarged))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=_QUALITY, method=_EFFORT)
    text = base64.b64encode(content.getvalue()).decode()
    return InlineImage(f"data:image/webp;base64,{text}", picture.width, picture.height)
