"""The world of the volume: that of the scanner, or the axes of the brain itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from gsvr.errors import InputError
from gsvr.evaluation.anatomical_axes import anatomical_axes, axes_of_template
from gsvr.evaluation.symmetry import normalised_brain
from gsvr.io.nifti import read_volume
from gsvr.render.volume import render_volume
from gsvr.solver.state import Result

logger = logging.getLogger(__name__)

Space = Literal["scanner", "anatomical"]

# Voxel (mm) of the volume whose axes are looked for.
_SPACING = 1.5


@dataclass(frozen=True)
class Orientation:
    """What is asked for.

    Attributes
    ----------
    space
        ``"scanner"``: the world of the stacks; ``"anatomical"``: the axes of the brain.
    template
        A brain (NIfTI) whose axes these are; None: found from the symmetry and the shape of the brain itself.

    Raises
    ------
    InputError
        If there is no such space, or a template without need.
    """

    space: Space = "scanner"
    template: Path | None = None

    def __post_init__(self) -> None:
        if self.space not in get_args(Space):
            raise InputError(f"`orientation` {self.space}: choose one of {', '.join(get_args(Space))}")
        if self.template is not None and self.space != "anatomical":
            raise InputError("`orientation_template` is for `orientation` anatomical: give that, too")


@dataclass(frozen=True)
class Turn:
    """What became of it, as the record holds it.

    Attributes
    ----------
    space
        Of the volume; ``"scanner"`` if the axes of the brain could not be told.
    method
        ``"symmetry"`` or ``"template"``.
    template
        Name of its file.
    matrix
        World of the scanner -> world of the volume (RAS+, mm), rigid.
    likeness, margin, symmetry
        See `gsvr.evaluation.anatomical_axes.AnatomicalAxes`.
    sentence
        In words.
    """

    space: Space
    method: Literal["symmetry", "template"]
    template: str | None
    matrix: Float[np.ndarray, "4 4"]
    likeness: float
    margin: float
    symmetry: float
    sentence: str


def turned_result(result: Result, orientation: Orientation, backend: str = "cpu") -> tuple[Result, Turn | None]:
    """A result in the world that is asked for: its field, mask and poses are turned, and nothing is resampled.

    Where front and top of the brain cannot be told, the result stays as it is, with a warning.

    Raises
    ------
    InputError
        If the template cannot be read, or shows no brain.
    """
    if orientation.space == "scanner":
        return result, None
    volume = render_volume(result.field, _SPACING, result.mask, backend=backend)
    name, template = None, None
    if orientation.template is not None:
        name, template = orientation.template.name, read_volume(orientation.template)
    try:
        axes = anatomical_axes(volume) if template is None else axes_of_template(volume, template)
    except ValueError as error:
        where = "the reconstruction" if name is None else f"the reconstruction or {orientation.template}"
        raise InputError(f"{where} has no axes to be found ({error}): leave out `orientation`") from error
    found = (axes.likeness, axes.margin, axes.symmetry)
    method = "symmetry" if template is None else "template"
    if not axes.resolved:
        remedy = "give an `orientation_template`" if template is None else "give a template that is more like it"
        sentence = f"front and top of the brain cannot be told: the volume stays in scanner coordinates; {remedy}"
        logger.warning("%s", sentence)
        return result, Turn("scanner", method, name, np.eye(4), *found, sentence)
    by = "its plane of symmetry and its shape" if name is None else f"the template {name}"
    sentence = f"turned to the axes of the brain by {by}; left and right as the scanner has them"
    logger.info("%s (likeness %.2f, margin %.2f)", sentence, axes.likeness, axes.margin)
    return result.turned(axes.pose), Turn("anatomical", method, name, axes.pose, *found, sentence)


def check_template(template: Path | None) -> None:
    """Refuse a template that cannot be used, before any work is done.

    Raises
    ------
    InputError
        If it is missing, no image, or shows no brain.
    """
    if template is None:
        return
    try:
        normalised_brain(read_volume(template))
    except ValueError as error:
        raise InputError(
            f"{template} has no axes to be found ({error}): give another `orientation_template`"
        ) from error
