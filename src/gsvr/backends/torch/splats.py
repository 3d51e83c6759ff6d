"""Which free Gaussians each slice sees, and the quadratic form of each in it, in PyTorch on any device.

The same windows and forms as `gaussian_plan` makes for the CPU. A *splat* is a pair of a slice and a Gaussian that is
not cut off. Geometry is in float64 where the device has it, see `tiles.exact_type`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Int64
from torch import Tensor

from gsvr.backends.torch.gaussian_reference import covariances
from gsvr.backends.torch.lattice_tiles import exact_type
from gsvr.backends.views import SliceViews
from gsvr.model.fields import GaussianField

# Pairs of a slice and a Gaussian that are tried at once: bounds the memory of the search.
_AT_ONCE = 2**22
_LOG2_E = float(np.log2(np.e))
# Columns of `Splats.forms` where the slice profile has one component; a second adds three.
ONE_COMPONENT = 8


@dataclass(frozen=True)
class Splats:
    """Pairs of a slice and a Gaussian, slice by slice.

    Attributes
    ----------
    slices, gaussians
        The pairs.
    windows
        First and last row, first and last column (pixels) inside the cut-off.
    forms
        Logarithm (to base two, all of them) of the peak, coefficients of y, x, y y, y x and x x, where (y, x) is the
        distance in pixels from the mean; the mean's place, rows and columns from the window's first pixel; then, where
        there is one, the second component over the first: constant, coefficients of y and x.
    depths
        Entries uw, vw, ww of the inverse of the blurred covariance (mm^-2), and the distance (mm) along w from the
        Gaussian to the first component of the slice profile.
    """

    slices: Int64[Tensor, " n"]
    gaussians: Int32[Tensor, " n"]
    windows: Int32[Tensor, "n 4"]
    forms: Float32[Tensor, "n k"]
    depths: Float32[Tensor, "n 4"]


@dataclass(frozen=True)
class Geometry:
    """Gaussians and views on the device, in mm, as of `GaussianField` and `SliceViews`.

    Attributes
    ----------
    reach
        The cut-off of every Gaussian along its longest axis.
    """

    means: Float[Tensor, "n 3"]
    covariances: Float[Tensor, "n 3 3"]
    log_determinants: Float[Tensor, " n"]
    reach: Float[Tensor, " n"]
    to_slice: Float[Tensor, "s 3 4"]
    in_plane: Float[Tensor, "s 2"]
    offsets: Float[Tensor, "s m"]
    variances: Float[Tensor, "s m"]
    spacing: Float[Tensor, "s 2"]
    shapes: Int64[Tensor, "s 2"]

    def blur(self, s: Int64[Tensor, " k"]) -> Float[Tensor, "k 3 3"]:
        """Covariance of the point spread function of some slices, in their frames (mm^2)."""
        return torch.diag_embed(torch.cat([self.in_plane[s], self.variances[s, :1]], 1))

    def with_gaussians(
        self,
        means: Float[Tensor, "k 3"],
        log_scales: Float[Tensor, "k 3"],
        quaternions: Float[Tensor, "k 4"],
        cutoff: float,
    ) -> Geometry:
        """The same views of other Gaussians, see `gsvr.model.fields.GaussianField`."""
        return replace(self, **_of_gaussians(means, log_scales, quaternions, cutoff))


def _of_gaussians(means: Tensor, log_scales: Tensor, quaternions: Tensor, cutoff: float) -> dict[str, Tensor]:
    """What a `Geometry` holds of Gaussians."""
    exact = exact_type(means.device)
    scales = log_scales.to(exact)
    return {
        "means": means.to(exact),
        "covariances": covariances(scales, quaternions.to(exact)),
        "log_determinants": 2 * scales.sum(1),
        "reach": cutoff * scales.amax(1).exp(),
    }


def geometry_of(field: GaussianField, views: SliceViews, device: torch.device) -> Geometry:
    """Copy Gaussians and views to a device.

    Raises
    ------
    ValueError
        If the slice profile has more than two components, or two of different variance.
    """
    variances = views.spread.variances
    if variances.shape[1] > 2 or not (variances == variances[:, :1]).all():
        raise ValueError("kernels for free Gaussians need a slice profile of one component, or two of equal variance")
    exact = exact_type(device)

    def move(values: np.ndarray, dtype: torch.dtype = exact) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values)).to(dtype).to(device)

    return Geometry(
        **_of_gaussians(move(field.means), move(field.log_scales), move(field.quaternions), views.cutoff),
        to_slice=move(views.to_slice),
        in_plane=move(views.spread.in_plane_variances),
        offsets=move(views.spread.offsets),
        variances=move(variances),
        spacing=move(views.pixel_spacing),
        shapes=move(views.shapes, torch.int64),
    )


def find_splats(geometry: Geometry, views: SliceViews) -> Splats:
    """All pairs that are not cut off. Asks the device how many there are, for some slices at a time."""
    at_once = max(_AT_ONCE // max(len(geometry.means), 1), 1)
    parts = [
        _splats_of(geometry, views, slice(start, start + at_once)) for start in range(0, len(views.shapes), at_once)
    ]
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Splats(*(torch.cat(column) for column in columns))


def _splats_of(geometry: Geometry, views: SliceViews, some: slice) -> Splats:
    """Splats of some slices: first by the balls around Gaussians, then by their ellipsoids."""
    cutoff, g = views.cutoff, geometry
    places = torch.einsum("sij,nj->sni", g.to_slice[some, :, :3], g.means) + g.to_slice[some, None, :, 3]
    depth = (g.offsets[some].abs() + cutoff * g.variances[some].sqrt()).amax(1)
    beyond = cutoff * g.in_plane[some].sqrt()
    last = g.spacing[some] * (g.shapes[some] - 1)
    near = places[..., 2].abs() <= g.reach + depth[:, None]
    for axis in (0, 1):
        reach = g.reach + beyond[:, axis, None]
        near &= (places[..., axis] >= -reach) & (places[..., axis] <= last[:, axis, None] + reach)
    s, j = near.nonzero(as_tuple=True)
    place, s = places[s, j], s + some.start
    turn = g.to_slice[s, :, :3]
    blurred = turn @ g.covariances[j] @ turn.transpose(1, 2) + g.blur(s)
    windows = _window(place, g.offsets[s, 0] - place[:, 2], blurred, cutoff, g.spacing[s], g.shapes[s])
    if g.offsets.shape[1] == 2:
        other = _window(place, g.offsets[s, 1] - place[:, 2], blurred, cutoff, g.spacing[s], g.shapes[s])
        windows = _around_both(windows, other)
    kept = (windows[:, 1] >= windows[:, 0]).nonzero()[:, 0]
    s, j, place, blurred, windows = (part[kept] for part in (s, j, place, blurred, windows))
    return _with_forms(geometry, views, s, j, place, blurred, windows)


def _window(
    place: Tensor, distance: Tensor, blurred: Tensor, cutoff: float, spacing: Tensor, shapes: Tensor
) -> Int64[Tensor, "n 4"]:
    """First and last row, first and last column inside the cut-off; the last before the first: out of sight."""
    ww = blurred[:, 2, 2]
    left = cutoff * cutoff - distance * distance / ww
    # given the distance through the plane, the Gaussian is centred elsewhere in it, and narrower
    cross = blurred[:, :2, 2]
    middle = place[:, :2] + cross * (distance / ww)[:, None]
    narrowed = blurred.diagonal(dim1=1, dim2=2)[:, :2] - cross * cross / ww[:, None]
    half = (left.clamp(min=0)[:, None] * narrowed.clamp(min=0)).sqrt()
    # numbers of pixels far outside are cut before they become whole
    first = ((middle - half) / spacing).ceil().clamp(0, 2**30).long()
    last = torch.minimum(((middle + half) / spacing).floor().clamp(-1, 2**30).long(), shapes - 1)
    seen = (left > 0) & (last >= first).all(1)
    windows = torch.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], 1)
    return torch.where(seen[:, None], windows, torch.tensor([0, -1, 0, -1], device=windows.device))


def _around_both(one: Int64[Tensor, "n 4"], other: Int64[Tensor, "n 4"]) -> Int64[Tensor, "n 4"]:
    """The smallest window around two."""
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    both = torch.stack([low[:, 0], high[:, 1], low[:, 2], high[:, 3]], 1)
    one_empty, other_empty = one[:, 1:2] < one[:, :1], other[:, 1:2] < other[:, :1]
    return torch.where(one_empty, other, torch.where(other_empty, one, both))


def _with_forms(
    g: Geometry, views: SliceViews, s: Tensor, j: Tensor, place: Tensor, blurred: Tensor, windows: Tensor
) -> Splats:
    """Splats with their quadratic forms, as `gaussian_plan` writes them, to base two."""
    precision, determinant = inverse(blurred)
    uu, uv, uw, vv, vw, ww = (precision[:, a, b] for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)))
    distance = g.offsets[s, 0] - place[:, 2]
    pu, pv = g.spacing[s].unbind(1)
    weights = views.spread.weights
    log_peak = torch.full_like(distance, float(np.log(weights[0])))
    if views.exact:
        log_peak = log_peak + 0.5 * (g.log_determinants[j] - determinant.log())
    exponents = [
        log_peak - 0.5 * ww * distance * distance,
        -uw * distance * pu, -vw * distance * pv, -0.5 * uu * pu * pu, -uv * pu * pv, -0.5 * vv * pv * pv,
    ]  # fmt: skip
    mean = place[:, :2] / g.spacing[s] - windows[:, ::2]
    columns = [_LOG2_E * part for part in exponents] + [mean[:, 0], mean[:, 1]]
    if g.offsets.shape[1] == 2:
        step, middle = g.offsets[s, 1] - g.offsets[s, 0], 0.5 * (g.offsets[s, 1] + g.offsets[s, 0]) - place[:, 2]
        share = float(np.log(weights[1] / weights[0]))
        columns += [_LOG2_E * part for part in (share - ww * middle * step, -uw * step * pu, -vw * step * pv)]
    return Splats(
        slices=s,
        gaussians=j.to(torch.int32),
        windows=windows.to(torch.int32),
        forms=torch.stack(columns, 1).to(torch.float32),
        depths=torch.stack([uw, vw, ww, distance], 1).to(torch.float32),
    )


def inverse(matrices: Float[Tensor, "n 3 3"]) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, " n"]]:
    """Inverses of symmetric matrices, and their determinants, by cofactors."""
    rows = matrices.unbind(1)
    crossed = torch.stack([torch.linalg.cross(rows[(i + 1) % 3], rows[(i + 2) % 3]) for i in range(3)], 1)
    determinant = (rows[0] * crossed[:, 0]).sum(1)
    return crossed / determinant[:, None, None], determinant
