"""``gsvr render``: a stored field as a voxel volume of any spacing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gsvr.render import VOXEL_SIZE


def render_command(
    field: Annotated[Path, typer.Argument(metavar="FIELD", help="What gsvr reconstruct wrote (.safetensors).")],
    output_volume: Annotated[Path, typer.Option(help="Where the volume goes (.nii.gz).")],
    output_resolution: Annotated[float, typer.Option(help="Voxel size (mm).")] = VOXEL_SIZE,
    output_mask: Annotated[Path | None, typer.Option(help="Where the brain mask goes (.nii.gz).")] = None,
) -> None:
    """Sample a field on a grid: exact at any voxel size, since a field has no voxels of its own."""
    from gsvr.errors import InputError
    from gsvr.io.field import read_field
    from gsvr.io.nifti import check_volume_path, write_volume
    from gsvr.io.outputs import refuse_overwriting
    from gsvr.render.volume import check_voxel_size, render_volume

    check_voxel_size(output_resolution)
    for path in (output_volume, output_mask):
        if path is not None:
            check_volume_path(path)
    refuse_overwriting([path for path in (output_volume, output_mask) if path is not None], [field])
    stored = read_field(field)
    if stored.mask is None and output_mask is not None:
        raise InputError(f"{field} holds no brain mask: leave out --output-mask")
    volume = render_volume(stored.field, output_resolution, stored.mask, stored.masks.shown)
    if not volume.data.any():
        raise InputError(f"{field} shows nothing at this voxel size: give a smaller one, or reconstruct again")
    space = "anatomical" if stored.metadata.get("space") == "anatomical" else "scanner"
    write_volume(output_volume, volume.data, volume.affine, space)
    if output_mask is not None and volume.mask is not None:
        write_volume(output_mask, volume.mask, volume.affine, space)
    typer.echo(f"{output_volume}: {' x '.join(str(n) for n in volume.data.shape)} voxels of {output_resolution:g} mm")
