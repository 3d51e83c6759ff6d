"""Pictures to look at: a row of axial, coronal and sagittal mid-slices for each volume, as one PNG file.

Planes are sampled in the world, not along the voxel axes, so that any affine is shown the right way up:
anterior or superior on top, and left and right by the convention that was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path, check_writable_file
from gsvr.model.volume import Volume
from gsvr.report.colours import diverging, grey, outlined, window

Convention = Literal["radiological", "neurological"]

PLANES = ("axial", "coronal", "sagittal")
_BACKGROUND, _TEXT, _FAINT_TEXT = (22, 22, 24), (235, 235, 235), (160, 160, 165)
# Voxels beyond which a value does not change the spline through others visibly.
_SPLINE_REACH = 10
# All in pixels: around and between panels, strips of text, lines of a caption, and text.
_GAP, _HEADER, _LABEL, _FOOTER, _LINE = 8, 34, 32, 34, 22
_TEXT_SIZE, _SMALL_TEXT_SIZE, _LETTER_SIZE = 20, 16, 18
# Share of the intensity window at which a difference is shown at full colour.
_DIFFERENCE_RANGE = 0.25


@dataclass(frozen=True)
class PictureOptions:
    """How mid-slices are shown.

    Attributes
    ----------
    panel_size
        Width and height of a panel (pixels).
    convention
        ``"radiological"`` shows the patient's left on the right, ``"neurological"`` on the left.
    shared_window
        Show all volumes with the intensity window of the first; False: each with its own.
    shared_position
        Cut all volumes where the first is cut; False: each through its own centre.
    crop
        Show the mask's bounding box and `margin`; False: the whole grid.
    margin
        Space around the mask (mm).
    difference
        After each volume but the first, add a row: its difference from the first, inside the first's mask.
    outline
        Draw the edge of each volume's mask.
    whose
        Left and right are meant: ``"patient"``, or ``"brain"`` where the volume lies along the axes of the brain.
    """

    panel_size: int = 360
    convention: Convention = "radiological"
    shared_window: bool = True
    shared_position: bool = True
    crop: bool = True
    margin: float = 5.0
    difference: bool = False
    outline: bool = False
    whose: Literal["patient", "brain"] = "patient"


@dataclass(frozen=True)
class _View:
    """Where the three planes meet, what is in the middle of a panel, and the width of a panel (all mm)."""

    position: Float[np.ndarray, " 3"]
    middle: Float[np.ndarray, " 3"]
    width: float


@dataclass(frozen=True)
class _Row:
    """Label and three coloured panels."""

    label: str
    panels: list[UInt8[np.ndarray, "size size 3"]]


def save_mid_slices(
    path: str | Path, volumes: Sequence[tuple[str, Volume]], options: PictureOptions | None = None, caption: str = ""
) -> None:
    """Write `mid_slices_picture` as a PNG file, whole or not at all.

    Raises
    ------
    InputError
        If the name does not end in ``.png`` or the file cannot be written.
    ValueError
        See `mid_slices_picture`.
    """
    check_picture_path(path)
    picture = mid_slices_picture(volumes, options, caption)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def check_picture_path(path: str | Path) -> None:
    """Refuse, before any work is done, a name under which no picture could be written.

    Raises
    ------
    InputError
        If the name does not end in ``.png``, is that of a folder, or its folder cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: the name of a picture must end in .png")
    check_writable_file(path)


def mid_slices_picture(
    volumes: Sequence[tuple[str, Volume]], options: PictureOptions | None = None, caption: str = ""
) -> Image.Image:
    """Draw a row of axial, coronal and sagittal mid-slices for each labelled volume.

    The planes meet in the centre of the mask or, without one, of the intensity. Letters at the edges of every
    panel tell the direction: L, R, A, P, S, I. A caption stands below them.

    Raises
    ------
    ValueError
        If there are no volumes, or differences are asked for without a shared window and position.
    """
    options = options or PictureOptions()
    if not volumes:
        raise ValueError("there are no volumes to show")
    if options.difference and not (options.shared_window and options.shared_position):
        raise ValueError("differences need a shared window and a shared position")
    views = [_view(volumes[0][1], options)]
    rows: list[_Row] = []
    reference: list[np.ndarray] = []
    inside: list[np.ndarray] = []
    low, high = window(volumes[0][1].data[_anatomy(volumes[0][1])])
    for number, (label, volume) in enumerate(volumes):
        if number and not options.shared_window:
            low, high = window(volume.data[_anatomy(volume)])
        if number and not options.shared_position:
            views.append(_view(volume, options))
        planes = _sample_planes(volume, views[-1], options)
        panels = [grey((plane - low) / (high - low)) for plane in planes]
        if options.outline and volume.mask is not None:
            anatomy = _sample_anatomy(volume, views[-1], options)
            panels = [outlined(panel, where) for panel, where in zip(panels, anatomy, strict=True)]
        rows.append(_Row(label, panels))
        if number == 0:
            reference = planes
            if options.difference:
                inside = _sample_anatomy(volume, views[0], options)
        elif options.difference:
            scale = _DIFFERENCE_RANGE * (high - low)
            note = f"{label} - {volumes[0][0]}  (± {100 * _DIFFERENCE_RANGE:.0f} % of the window)"
            triples = zip(planes, reference, inside, strict=True)
            rows.append(_Row(note, [diverging(where * (new - old) / scale) for new, old, where in triples]))
    return _compose(rows, views, options, caption)


def panel_box(row: int, plane: int, options: PictureOptions | None = None) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (pixels) of a panel; `plane` counts along `PLANES`."""
    size = (options or PictureOptions()).panel_size
    left = _GAP + plane * (size + _GAP)
    top = _HEADER + row * (_LABEL + size + _GAP) + _LABEL
    return left, top, left + size, top + size


def _directions(convention: Convention) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """World directions to the right and to the top of each panel."""
    right, anterior, superior = np.eye(3)
    across = -right if convention == "radiological" else right
    return (across, anterior), (across, superior), (-anterior, superior)


def _letter(direction: np.ndarray) -> str:
    axis = int(np.argmax(np.abs(direction)))
    return ("LR", "PA", "IS")[axis][int(direction[axis] > 0)]


def _anatomy(volume: Volume) -> np.ndarray:
    """The mask, else where the volume is not zero, else everything."""
    anatomy = volume.data != 0 if volume.mask is None else volume.mask
    return anatomy if anatomy.any() else np.ones(volume.data.shape, dtype=bool)


def _view(volume: Volume, options: PictureOptions) -> _View:
    anatomy, weights = _anatomy(volume), None
    if volume.mask is None:
        positive = np.maximum(volume.data, 0).astype(np.float64)
        weights = positive if positive[anatomy].any() else None
    shown = volume.outline(anatomy if options.crop else np.ones_like(anatomy))
    lower, upper = shown.min(axis=0), shown.max(axis=0)
    margin = options.margin if options.crop else 0.0
    return _View(
        position=volume.centre(anatomy, weights),
        middle=(lower + upper) / 2,
        width=float((upper - lower).max() + volume.spacing.max() + 2 * margin),
    )


def _sample_planes(volume: Volume, view: _View, options: PictureOptions) -> list[Float32[np.ndarray, "size size"]]:
    """Intensities of the three panels, top row first; zero outside the grid."""
    to_index = np.linalg.inv(volume.affine)
    # only what is shown is filtered: a stack shows much more than a brain
    corners = view.middle + view.width * (np.array(list(np.ndindex(2, 2, 2))) - 0.5)
    seen = np.concatenate([corners, view.position[None]]) @ to_index[:3, :3].T + to_index[:3, 3]
    first = np.clip(np.floor(seen.min(axis=0)).astype(int) - _SPLINE_REACH, 0, np.array(volume.data.shape) - 1)
    last = np.maximum(np.ceil(seen.max(axis=0)).astype(int) + _SPLINE_REACH + 1, first + 1)
    shown = volume.data[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    to_index[:3, 3] -= first
    coefficients = np.empty(shown.shape, np.float32)
    # its stub knows no array to write to
    ndimage.spline_filter(shown, order=3, output=coefficients)  # pyright: ignore[reportArgumentType]
    size = options.panel_size
    steps = (np.arange(size) - (size - 1) / 2) * (view.width / size)

    def sample(directions: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        across, up = directions
        through = np.cross(across, up)
        origin = view.middle + through * (through @ (view.position - view.middle))
        points = origin + steps[None, :, None] * across - steps[:, None, None] * up
        index = np.moveaxis(points @ to_index[:3, :3].T + to_index[:3, 3], -1, 0)
        return ndimage.map_coordinates(coefficients, index, order=3, prefilter=False, output=np.float32)

    return parallel_map(sample, _directions(options.convention))


def _sample_anatomy(volume: Volume, view: _View, options: PictureOptions) -> list[Bool[np.ndarray, "size size"]]:
    anatomy = Volume(_anatomy(volume).astype(np.float32), volume.affine)
    return [plane > 0.5 for plane in _sample_planes(anatomy, view, options)]


def _compose(rows: list[_Row], views: list[_View], options: PictureOptions, caption: str) -> Image.Image:
    _, _, right, bottom = panel_box(len(rows) - 1, len(PLANES) - 1, options)
    title = ImageFont.load_default(_TEXT_SIZE)
    note = ImageFont.load_default(_SMALL_TEXT_SIZE)
    lines = _wrapped(caption, note, right - _GAP)
    picture = Image.new("RGB", (right + _GAP, bottom + _FOOTER + _LINE * len(lines)), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((_GAP, bottom + _FOOTER + _LINE * number), line, _TEXT, note, anchor="la")
    for plane, name in enumerate(PLANES):
        left, _, right_edge, _ = panel_box(0, plane, options)
        draw.text(((left + right_edge) / 2, _HEADER / 2 + 4), name, _FAINT_TEXT, title, anchor="mm")
    for number, row in enumerate(rows):
        left, top, _, _ = panel_box(number, 0, options)
        label = _shorten(row.label, title, picture.width - 2 * left)
        draw.text((left, top - _LABEL / 2), label, _TEXT, title, anchor="lm")
        for plane, panel in enumerate(row.panels):
            box = panel_box(number, plane, options)
            picture.paste(Image.fromarray(panel), box[:2])
            _draw_letters(draw, box, *_directions(options.convention)[plane])
    side = "right" if options.convention == "radiological" else "left"
    widths = " / ".join(f"{view.width:.0f}" for view in views)
    sentence = f"{options.convention}: the {options.whose}'s left is on the {side} · panels are {widths} mm wide"
    draw.text((_GAP, bottom + _FOOTER / 2), sentence, _FAINT_TEXT, note, anchor="lm")
    return picture


def _draw_letters(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], across: np.ndarray, up: np.ndarray
) -> None:
    font = ImageFont.load_default(_LETTER_SIZE)
    left, top, right, bottom = box
    middle_x, middle_y, inset = (left + right) / 2, (top + bottom) / 2, 5
    for place, anchor, direction in (
        ((right - inset, middle_y), "rm", across),
        ((left + inset, middle_y), "lm", -across),
        ((middle_x, top + inset), "mt", up),
        ((middle_x, bottom - inset), "mb", -up),
    ):
        draw.text(place, _letter(direction), (255, 214, 90), font, anchor, stroke_width=2, stroke_fill="black")


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines of whole words that fit into `width` pixels, if words do."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """End `text` with an ellipsis where it would not fit into `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
