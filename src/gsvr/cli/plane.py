"""``gsvr plane``: any oblique plane of a stored field, as a picture or a one-slice volume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gsvr.io.field import StoredField

# mm
_THICKNESSES, _FARTHEST = (0.01, 1000.0), 1e5
# Share of the largest amplitude below which a plane shows nothing of the field.
_LEAST_SHOWN = 1e-3


def plane_command(
    field: Annotated[Path, typer.Argument(metavar="FIELD", help="What gsvr reconstruct wrote (.safetensors).")],
    output_image: Annotated[Path, typer.Option(help="Where the plane goes: a picture (.png) or a slice (.nii.gz).")],
    centre: Annotated[
        list[float] | None,
        typer.Option(help="Centre of the plane, RAS+ mm: X Y Z. Default: the middle of the brain mask."),
    ] = None,
    normal: Annotated[
        list[float] | None,
        typer.Option(help="Direction towards the viewer, RAS+: X Y Z. Default: 0 0 -1, an axial plane from the feet."),
    ] = None,
    size: Annotated[
        list[int] | None, typer.Option(help="Pixels to the right and upwards, or one number. Default: 256.")
    ] = None,
    spacing: Annotated[float, typer.Option(help="Distance between pixels (mm).")] = 0.5,
    thickness: Annotated[float, typer.Option(help="Slice thickness (mm); 0: the field on the plane itself.")] = 0.0,
    profile: Annotated[str, typer.Option(help="Slice profile: slab, slab-gaussian or gaussian.")] = "slab",
) -> None:
    """Render an oblique plane straight from a field, exactly, and with a slice profile if asked for.

    The plane is shown as seen from where the normal points, with the head (or, near axial planes, the front) on top.
    """
    import numpy as np

    from gsvr.errors import InputError
    from gsvr.io.field import read_field
    from gsvr.io.outputs import refuse_overwriting
    from gsvr.model.point_spread import PROFILES
    from gsvr.render.plane import plane_frame, render_plane
    from gsvr.render.volume import check_voxel_size

    write = _writer(output_image)
    refuse_overwriting([output_image], [field])
    check_voxel_size(spacing)
    shape = _shape(size)
    if thickness != 0 and not _THICKNESSES[0] <= thickness <= _THICKNESSES[1]:
        raise InputError(f"a slice cannot be {thickness:g} mm thick: give zero or more, from 0.01 to 1000")
    if profile not in PROFILES:
        raise InputError(f"unknown slice profile {profile!r}: choose one of {', '.join(PROFILES)}")
    toward = _three("--normal", normal, np.array([0.0, 0.0, -1.0]))
    if not toward.any():
        raise InputError("--normal 0 0 0 points nowhere: give another direction")
    stored = read_field(field)
    middle = _three("--centre", centre, _middle(stored))
    if np.abs(middle).max() > _FARTHEST:
        raise InputError(f"--centre lies more than {_FARTHEST:g} mm away: give a place in the field")
    frame = plane_frame(middle, toward, shape, (spacing, spacing))
    pixels = render_plane(stored.field, frame, shape, (spacing, spacing), thickness, profile)  # pyright: ignore[reportArgumentType]
    if not np.abs(pixels).max() > _LEAST_SHOWN * np.abs(stored.field.amplitudes).max():
        place = " ".join(f"{coordinate:.0f}" for coordinate in _middle(stored))
        raise InputError(f"the plane does not meet the field: give a --centre near {place} mm, or a larger --size")
    write(output_image, pixels, frame @ np.diag([spacing, spacing, thickness or spacing, 1.0]))
    place = " ".join(f"{coordinate:.1f}" for coordinate in middle)
    typer.echo(f"{output_image}: {shape[0]} x {shape[1]} pixels of {spacing:g} mm around {place}")


def _writer(path: Path) -> Any:
    """What writes a plane under this name; refuses names under which nothing could be written."""
    from gsvr.errors import InputError
    from gsvr.io.atomic import check_writable_file

    check_writable_file(path)
    if path.suffix.lower() == ".png":
        return _write_picture
    if path.name.endswith((".nii", ".nii.gz")):
        return _write_slice
    raise InputError(f"{path}: the name of a plane must end in .png, .nii or .nii.gz")


def _write_slice(path: Path, pixels: Any, affine: Any) -> None:
    from gsvr.io.nifti import write_volume

    write_volume(path, pixels[:, :, None], affine)


def _write_picture(path: Path, pixels: Any, affine: Any) -> None:
    """Zero is black, and the 99.5th percentile of what is positive white."""
    import numpy as np
    from PIL import Image

    from gsvr.io.atomic import atomic_path

    positive = pixels[pixels > 0]
    white = float(np.percentile(positive, 99.5)) if positive.size else 1.0
    grey = np.round(255 * np.clip(pixels / white, 0, 1)).astype(np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(grey.T[::-1])).save(temporary, format="PNG")


def _three(option: str, values: list[float] | None, default: Any) -> Any:
    import numpy as np

    from gsvr.errors import InputError

    if not values:
        return default
    if len(values) != 3 or not np.all(np.isfinite(values)):
        raise InputError(f"{option} takes three numbers, X Y Z, not {' '.join(f'{value:g}' for value in values)}")
    return np.array(values, dtype=np.float64)


def _shape(size: list[int] | None) -> tuple[int, int]:
    from gsvr.errors import InputError

    numbers = list(size or [256]) * (1 if size and len(size) > 1 else 2)
    if len(numbers) != 2 or not all(1 <= number <= 8192 for number in numbers):
        raise InputError("--size takes one or two numbers of pixels between 1 and 8192")
    return numbers[0], numbers[1]


def _middle(stored: StoredField) -> Any:
    """Middle of the brain mask, or of all Gaussians where there is none (mm)."""
    import numpy as np

    mask = stored.mask
    if mask is not None and mask.mask is not None and mask.mask.any():
        places = mask.voxel_positions(mask.mask)
    else:
        places = stored.field.to_gaussians().means
    return (places.min(axis=0) + places.max(axis=0)).astype(np.float64) / 2
