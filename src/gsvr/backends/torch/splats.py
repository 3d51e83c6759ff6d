"""Which free Gaussians each slice sees, and the quadratic form of each in it, in PyTorch on any device.

A *splat* is a pair of a slice and a Gaussian that is not cut off: a window of pixels, and for each component of the
point spread function a Gaussian in the plane. In the frame of the slice let Sigma be the Gaussian's covariance and mu
its mean, P_m and b_m covariance and offset of a component, B = Sigma + P_m and d = pixel + b_m - mu. Given the distance
d_w through the plane, d^T B^-1 d is smallest where d_uv = B_uv,w d_w / B_ww, and there it is d_w^2 / B_ww. So a
component is a peak, its place in the plane, and a quadratic form around it; no large terms cancel in float32.

Geometry is in float64 where the device has it, see `gsvr.backends.torch.tensors.exact_type`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from gsvr.backends.torch.tensors import exact_type, moved
from gsvr.backends.views import SliceViews
from gsvr.model.fields import GaussianField

# Pairs of a slice and a Gaussian that are tried at once: bounds the memory of the search.
_AT_ONCE = 2**22
_LOG2_E = float(np.log2(np.e))
# Farther than any pixel.
_FAR = 2**30


@dataclass(frozen=True)
class Gaussians:
    """Free Gaussians in volume world (mm).

    Attributes
    ----------
    log_determinants
        Of the covariances.
    longest
        Standard deviation of each along its longest axis.
    """

    means: Float[Tensor, "n 3"]
    covariances: Float[Tensor, "n 3 3"]
    log_determinants: Float[Tensor, " n"]
    longest: Float[Tensor, " n"]


def gaussians_on(device: torch.device, field: GaussianField) -> Gaussians:
    """Copy Gaussians to a device.

    Raises
    ------
    ValueError
        If there are none.
    """
    if field.n_gaussians == 0:
        raise ValueError("a field without Gaussians has nothing to show")
    exact, log_scales = exact_type(device), field.log_scales.astype(np.float64)
    return Gaussians(
        moved(field.means, exact, device),
        moved(field.covariances, exact, device),
        moved(2 * log_scales.sum(axis=1), exact, device),
        moved(np.exp(log_scales.max(axis=1)), exact, device),
    )


@dataclass(frozen=True)
class Views:
    """What `gsvr.backends.views.SliceViews` says of `s` slices with `m` components, on a device.

    Attributes
    ----------
    spreads, offsets
        Covariances (mm^2) and centres (mm) of the components, in the frame of each slice.
    """

    to_slice: Float[Tensor, "s 3 4"]
    spacing: Float[Tensor, "s 2"]
    centres: Float[Tensor, "s 2"]
    shapes: Int64[Tensor, "s 2"]
    log_weights: Float[Tensor, " m"]
    offsets: Float[Tensor, "s m 3"]
    spreads: Float[Tensor, "s m 3 3"]
    cutoff: float
    exact: bool


def views_on(device: torch.device, views: SliceViews) -> Views:
    """Copy views to a device."""
    exact, spread = exact_type(device), views.spread
    return Views(
        to_slice=moved(views.to_slice, exact, device),
        spacing=moved(views.pixel_spacing, exact, device),
        centres=moved(views.centres, exact, device),
        shapes=moved(views.shapes, torch.int64, device),
        log_weights=moved(np.log(spread.weights), exact, device),
        offsets=moved(spread.offsets, exact, device),
        spreads=moved(spread.covariances, exact, device),
        cutoff=float(views.cutoff),
        exact=views.exact,
    )


@dataclass(frozen=True)
class Splats:
    """Pairs of a slice and a Gaussian, slice by slice.

    Attributes
    ----------
    slices, gaussians
        The pairs.
    windows
        First and last row, first and last column (pixels) inside the cut-off of any component.
    forms
        Of every component: logarithm of the peak, coefficients of y y, y x and x x (all to base two), and row and
        column of its place, from the window's first pixel; (y, x) is the distance from there in pixels.
    means
        Where the Gaussian's mean stands: row and column from the window's first pixel, and height (mm) over the slice.
    """

    slices: Int64[Tensor, " n"]
    gaussians: Int64[Tensor, " n"]
    windows: Int64[Tensor, "n 4"]
    forms: Float32[Tensor, "n m 6"]
    means: Float32[Tensor, "n 3"]


@dataclass(frozen=True)
class Seen:
    """Gaussians as some slices see them.

    Attributes
    ----------
    turn
        World -> frame of the slice.
    place, inside
        Mean (mm) and covariance (mm^2) in the frame of the slice.
    blurred
        Covariance with that of each component of the point spread function.
    distances
        From the mean to each component along w (mm): d_w for all pixels.
    """

    turn: Float[Tensor, "k 3 3"]
    place: Float[Tensor, "k 3"]
    inside: Float[Tensor, "k 3 3"]
    blurred: Float[Tensor, "k m 3 3"]
    distances: Float[Tensor, "k m"]


def seen_by(gaussians: Gaussians, views: Views, s: Int64[Tensor, " k"], j: Int64[Tensor, " k"]) -> Seen:
    """Gaussians `j` as slices `s` see them."""
    turn = views.to_slice[s, :, :3]
    place = (turn @ gaussians.means[j, :, None])[..., 0] + views.to_slice[s, :, 3]
    inside = turn @ gaussians.covariances[j] @ turn.transpose(1, 2)
    blurred = inside[:, None] + views.spreads[s]
    return Seen(turn, place, inside, blurred, views.offsets[s, :, 2] - place[:, 2:])


def find_splats(gaussians: Gaussians, views: Views) -> Splats:
    """All pairs that are not cut off. Asks the device how many there are, for some slices at a time."""
    at_once = max(_AT_ONCE // len(gaussians.means), 1)
    starts = range(0, len(views.shapes), at_once)
    parts = [_splats_of(gaussians, views, *_near(gaussians, views, slice(i, i + at_once))) for i in starts]
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Splats(*(torch.cat(column) for column in columns))


def _near(gaussians: Gaussians, views: Views, some: slice) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " k"]]:
    """Pairs that balls around the Gaussians do not rule out."""
    to_slice = views.to_slice[some]
    places = torch.einsum("sij,nj->sni", to_slice[:, :, :3], gaussians.means) + to_slice[:, None, :, 3]
    widths = views.cutoff * views.spreads[some].diagonal(dim1=2, dim2=3).sqrt()
    beyond = (views.offsets[some].abs() + widths).amax(1)[:, None] + views.cutoff * gaussians.longest[:, None]
    last = torch.nn.functional.pad(views.spacing[some] * (views.shapes[some] - 1), (0, 1))[:, None]
    s, j = ((places >= -beyond) & (places <= last + beyond)).all(2).nonzero(as_tuple=True)
    return s + some.start, j


def _splats_of(gaussians: Gaussians, views: Views, s: Tensor, j: Tensor) -> Splats:
    seen = seen_by(gaussians, views, s, j)
    middles, windows = _windows(seen, views, s)
    kept = (windows[:, 1] >= windows[:, 0]).nonzero()[:, 0]
    s, j, windows, middles = s[kept], j[kept], windows[kept], middles[kept]
    blurred, distances = seen.blurred[kept], seen.distances[kept]
    precision, determinant = inverse(blurred)
    log_peaks = views.log_weights - 0.5 * distances**2 / blurred[..., 2, 2]
    if views.exact:
        log_peaks = log_peaks + 0.5 * (gaussians.log_determinants[j, None] - determinant.log())
    pu, pv = views.spacing[s][:, None].unbind(2)
    yy, yx, xx = (precision[..., a, b] for a, b in ((0, 0), (0, 1), (1, 1)))
    exponents = [_LOG2_E * part for part in (log_peaks, -0.5 * yy * pu**2, -yx * pu * pv, -0.5 * xx * pv**2)]
    corners, spacing, place = windows[:, ::2], views.spacing[s], seen.place[kept]
    places = middles / spacing[:, None] - corners[:, None]
    return Splats(
        slices=s,
        gaussians=j,
        windows=windows,
        forms=torch.cat([torch.stack(exponents, 2), places], 2).to(torch.float32),
        means=torch.cat([place[:, :2] / spacing - corners, place[:, 2:]], 1).to(torch.float32),
    )


def _windows(seen: Seen, views: Views, s: Tensor) -> tuple[Float[Tensor, "k m 2"], Int64[Tensor, "k 4"]]:
    """Place (mm) of every component, and the window around all of them; its end before its start: out of sight."""
    ww, cross = seen.blurred[..., 2, 2], seen.blurred[..., :2, 2]
    left = views.cutoff**2 - seen.distances**2 / ww
    middles = seen.place[:, None, :2] - views.offsets[s, :, :2] + cross * (seen.distances / ww)[..., None]
    # given the distance through the plane a Gaussian is narrower in it
    narrowed = seen.blurred.diagonal(dim1=2, dim2=3)[..., :2] - cross**2 / ww[..., None]
    half = (left.clamp(min=0)[..., None] * narrowed.clamp(min=0)).sqrt()
    spacing, last_pixel = views.spacing[s][:, None], views.shapes[s][:, None] - 1
    # numbers of pixels far outside are cut before they become whole
    first = ((middles - half) / spacing).ceil().clamp(0, _FAR).long()
    last = torch.minimum(((middles + half) / spacing).floor().clamp(-1, _FAR).long(), last_pixel)
    there = ((left > 0) & (last >= first).all(2))[..., None]
    first, last = first.masked_fill(~there, _FAR).amin(1), last.masked_fill(~there, -1).amax(1)
    return middles, torch.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], 1)


def slopes(gaussians: Gaussians, views: Views, splats: Splats) -> Float32[Tensor, "n m 6"]:
    """What derivatives need on top: of every component entries uw, vw of B^-1, d_w / B_ww, and the peak's torque.

    The torque (3) is what the determinant of B adds where the slice turns, with B^-1 = L: entries vw, wu and uv of the
    antisymmetric P L - L P. It is zero where peaks are not true.
    """
    seen = seen_by(gaussians, views, splats.slices, splats.gaussians)
    precision, _ = inverse(seen.blurred)
    product = views.spreads[splats.slices] @ precision
    turned = (product - product.transpose(2, 3)) * float(views.exact)
    columns = [precision[..., 0, 2], precision[..., 1, 2], seen.distances / seen.blurred[..., 2, 2]]
    columns += [turned[..., a, b] for a, b in ((1, 2), (2, 0), (0, 1))]
    return torch.stack(columns, 2).to(torch.float32)


def inverse(matrices: Float[Tensor, "*n 3 3"]) -> tuple[Float[Tensor, "*n 3 3"], Float[Tensor, "*n"]]:
    """Inverses of symmetric matrices, and their determinants, by cofactors."""
    rows = matrices.unbind(-2)
    crossed = torch.stack([torch.linalg.cross(rows[(i + 1) % 3], rows[(i + 2) % 3]) for i in range(3)], -2)
    determinant = (rows[0] * crossed[..., 0, :]).sum(-1)
    return crossed / determinant[..., None, None], determinant
