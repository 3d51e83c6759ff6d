"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path, check_writable_file
from gsvr.model.volume import Volume
from gsvr.report.convergence import convergence
from gsvr.report.coverage import coverage
from gsvr.report.examination import Examination, is_used
from gsvr.report.inline_images import inline_image
from gsvr.report.mosaics import before_and_after, middle_planes
from gsvr.report.motion_charts import HEIGHT, WIDTH, stack_motions
from gsvr.report.picture import PictureOptions, mid_slices_picture
from gsvr.report.slice_gallery import slice_cards
from gsvr.report.stack_table import stack_rows, stands_out, worst_stack
from gsvr.report.viewer import bundle, viewed_images

# Slices that are shown at once; the others are a click away.
_FIRST_CARDS = 12


@cache
def templates() -> jinja2.Environment:
    """The templates; what they are given is text unless they say otherwise."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gsvr.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["percent"] = _percent
    environment.filters["plain"] = _plain
    return environment


def check_report_path(path: str | Path) -> None:
    """Refuse, before any work is done, a name under which no report could be written.

    Raises
    ------
    InputError
        If the name does not end in ``.html``, is that of a folder, or its folder cannot be written.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: the name of a report must end in .html")
    check_writable_file(path)


def write_report(path: str | Path, examination: Examination) -> None:
    """Write `report_page`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(report_page(examination), encoding="utf-8")


def report_page(examination: Examination) -> str:
    """All of the report."""
    record, stacks = examination.record, examination.turned_stacks
    cards, motions = slice_cards(examination), stack_motions(examination)
    rows = stack_rows(examination, cards, motions)
    used = [pose for pose in examination.slices if is_used(pose)]
    return (
        templates()
        .get_template("report.html")
        .render(
            name=examination.name,
            record=record,
            anatomical=examination.anatomical,
            verdict=record.get("verdict"),
            spacing=float(examination.volume.spacing[0]),
            millilitres=float(examination.mask.sum() * examination.volume.spacing.prod() / 1000),
            n_used=len(used),
            n_doubted=sum(card.doubted for card in cards),
            middle=middle_planes(examination.volume, examination.mask, examination.uncertainty),
            before_and_after=before_and_after(examination.volume, examination.mask, stacks) if stacks else None,
            images=viewed_images(examination.volume, examination.uncertainty, stacks),
            bundle=bundle(),
            rows=rows,
            worst=worst_stack(rows),
            stands_out=stands_out,
            motions=motions,
            chart_size=(WIDTH, HEIGHT),
            cards=cards,
            n_first=_FIRST_CARDS,
            coverage=coverage(examination),
            convergence=convergence(record),
            rounded=lambda seconds: {name: _number(value, 2) for name, value in seconds.items()},
        )
    )


def write_view(path: str | Path, name: str, volume: Volume, uncertainty: Volume | None = None) -> None:
    """Write a page with the viewer alone, whole or not at all.

    Parameters
    ----------
    uncertainty
        Standard deviation of every voxel, to lay over it.
    """
    picture = mid_slices_picture([(name, volume)], PictureOptions(crop=volume.mask is not None))
    size = " x ".join(str(n) for n in volume.data.shape)
    spacing = " x ".join(f"{side:.3g}" for side in volume.spacing)
    page = (
        templates()
        .get_template("view.html")
        .render(
            name=name,
            size=f"{size} voxels of {spacing} mm",
            images=viewed_images(volume, uncertainty),
            bundle=bundle(),
            picture=inline_image(np.asarray(picture)),
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _number(value: Any, digits: int = 3) -> str:
    """A number with a few digits; a dash for what is not known."""
    if value is None or not isinstance(value, int | float) or not math.isfinite(value):
        return "-"
    return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if math.isfinite(share) else "-"


def _plain(value: Any) -> str:
    """An option or a version in one line."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
