"""Any oblique plane straight from a field, with or without a slice profile: no voxel grid in between."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from gsvr.backends import Backend, named
from gsvr.backends.windows import WHOLE
from gsvr.model.fields import Field, GaussianField, SumField
from gsvr.model.geometry import invert
from gsvr.model.point_spread import PointSpread, ProfileName, point_spread
from gsvr.model.slices import Slices
from gsvr.render.sampling import parallel_planes, plane_slices, sample_slices

# Pixel rows that are rendered as one piece; pieces share the threads, and their number must not depend on how many.
_STRIP_ROWS = 64


def plane_frame(
    centre: Float[np.ndarray, " 3"],
    normal: Float[np.ndarray, " 3"],
    shape: tuple[int, int] = (256, 256),
    spacing: tuple[float, float] = (0.5, 0.5),
) -> Float[np.ndarray, "4 4"]:
    """Frame of a plane through `centre` (mm, volume world), as seen from where `normal` points.

    The first axis points to the right of the picture and the second upwards: to the head as far as the plane allows,
    or to the front for planes within 45 degrees of axial. So (0, 0, -1) is an axial plane seen from the feet,
    (0, 1, 0) a coronal one from the front and (-1, 0, 0) a sagittal one from the left: the radiological views.

    Raises
    ------
    ValueError
        If the normal is zero.
    """
    toward = np.asarray(normal, dtype=np.float64)
    largest = float(np.abs(toward).max())
    if not (largest > 0 and np.isfinite(largest)):
        raise ValueError("the normal of a plane must not be zero")
    toward = toward / largest  # whose squares neither vanish nor overflow
    toward /= np.linalg.norm(toward)
    anterior, superior = np.eye(3)[1:]
    top = anterior if abs(toward[2]) > np.sqrt(0.5) else superior
    upward = top - toward * (toward @ top)
    upward /= np.linalg.norm(upward)
    frame = np.eye(4)
    frame[:3, :3] = np.stack([np.cross(upward, toward), upward, toward], axis=1)
    corner = (np.array(shape) - 1) / 2 * np.array(spacing)
    frame[:3, 3] = np.asarray(centre, dtype=np.float64) - frame[:3, :2] @ corner
    return frame


def render_plane(
    field: Field,
    frame: Float[np.ndarray, "4 4"],
    shape: tuple[int, int] = (256, 256),
    spacing: tuple[float, float] = (0.5, 0.5),
    thickness: float = 0.0,
    profile: ProfileName = "slab",
    backend: Backend | str = "cpu",
) -> Float32[np.ndarray, "columns rows"]:
    """Values of the field on a plane, exactly: Gaussians are left out only where they are below float32.

    Parameters
    ----------
    field
        The reconstruction.
    frame
        Rigid map from the plane's frame (mm) to volume world (mm): pixel (i, j) is at
        ``frame @ (i spacing[0], j spacing[1], 0, 1)``. See `plane_frame`.
    shape, spacing
        Number of pixels, and their distance (mm), along the frame's first and second axis.
    thickness
        Of the slice (mm). Zero: the field on the plane itself. Otherwise the average through the plane, weighted by the
        slice profile. In the plane there is no point spread function in either case: like a voxel of
        `gsvr.render.volume.render_volume`, a pixel is a value at a point.
    profile
        Slice profile, see `gsvr.model.point_spread.PROFILES`; without meaning at thickness zero.
    backend
        Where to render: a backend or its name, see `gsvr.backends.BACKENDS`.

    Raises
    ------
    ValueError
        If a number of pixels, spacing or thickness makes no sense, or the frame is not rigid.
    """
    if min(shape) < 1 or not min(spacing) > 0 or not thickness >= 0:
        raise ValueError("a plane needs pixels, a positive spacing (mm), and a thickness (mm) that is not negative")
    rotation = frame[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6) or np.linalg.det(rotation) < 0:
        raise ValueError("the frame of a plane must be rigid: three perpendicular right-handed axes of unit length")
    if isinstance(field, SumField):
        parts = [render_plane(part, frame, shape, spacing, thickness, profile, backend) for part in field.parts]
        return np.add.reduce(parts)
    if isinstance(field, GaussianField) and field.nearest is None:
        spread = _spread(1, thickness, profile)
        planes = parallel_planes(invert(frame)[:3], (1, *shape), (1.0, *spacing), spread)
        return named(backend).sample_planes(field, planes, WHOLE)[0]
    strips = _strips(frame, shape, spacing)
    return sample_slices(field, strips, _spread(strips.n_slices, thickness, profile), backend).reshape(shape)


def _spread(n: int, thickness: float, profile: ProfileName) -> PointSpread:
    """Point spread function of `n` slices without any width in the plane."""
    if thickness == 0:
        return PointSpread.points(n)
    through = point_spread(np.ones((n, 2)), np.full(n, thickness), profile)
    return PointSpread.through_plane(
        np.zeros((n, 2)), through.weights, through.offsets[:, :, 2], through.covariances[:, :, 2, 2]
    )


def _strips(frame: Float[np.ndarray, "4 4"], shape: tuple[int, int], spacing: tuple[float, float]) -> Slices:
    """The plane cut into strips along its first axis, as slices whose pixels follow each other like the plane's."""
    first = np.arange(0, shape[0], _STRIP_ROWS)
    shapes = np.stack([np.diff(first, append=shape[0]), np.full(len(first), shape[1])], axis=1)
    frames = np.tile(np.asarray(frame, dtype=np.float64), (len(first), 1, 1))
    frames[:, :3, 3] += np.outer(first * spacing[0], frame[:3, 0])
    return plane_slices(frames, shapes, spacing)
