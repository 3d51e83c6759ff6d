"""``gsvr view``: a volume or a field in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gsvr.render import VOXEL_SIZE


def view_command(
    image: Annotated[Path, typer.Argument(metavar="VOLUME|FIELD", help="A volume (NIfTI) or a field (.safetensors).")],
    mask: Annotated[Path | None, typer.Option(help="Brain mask on the volume's grid (NIfTI), to lay over it.")] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="Standard deviation of every voxel (NIfTI), to lay over it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the page (.html) and open nothing. Default: a temporary file.")
    ] = None,
    resolution: Annotated[float, typer.Option(help="Voxel size that a field is shown with (mm).")] = VOXEL_SIZE,
) -> None:
    """Look at a volume plane by plane, in the browser and without a network."""
    import tempfile
    import webbrowser

    from gsvr.io.field import read_field
    from gsvr.io.nifti import read_volume, stack_name
    from gsvr.io.outputs import refuse_overwriting
    from gsvr.render.volume import check_voxel_size, render_volume
    from gsvr.report.page import check_report_path, write_view

    check_voxel_size(resolution)
    if output is not None:
        check_report_path(output)
        refuse_overwriting([output], [image, mask, uncertainty])
    if image.suffix == ".safetensors":
        stored = read_field(image)
        volume, name = render_volume(stored.field, resolution, stored.mask, stored.masks.shown), image.stem
    else:
        volume, name = read_volume(image, mask), stack_name(image)
    target = output or Path(tempfile.mkdtemp(prefix="gsvr-")) / f"{name}.html"
    write_view(target, name, volume, None if uncertainty is None else read_volume(uncertainty))
    typer.echo(f"{target}")
    if output is None and not webbrowser.open(target.absolute().as_uri()):
        typer.echo("no browser found: open the file yourself")
