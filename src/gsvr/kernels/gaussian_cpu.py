"""CPU backend for free Gaussians: plans and runs the splat kernels on all cores."""

# Numba's intrinsics and star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32

from gsvr.compiled.threads import parallel_for
from gsvr.field import GaussianField
from gsvr.kernels import GeometryGradient, gaussian_plan, gaussian_splat
from gsvr.kernels.gaussian_simd import N_PLANES
from gsvr.kernels.gaussian_views import SliceViews
from gsvr.kernels.gaussian_window import FORM_SIZE
from gsvr.kernels.lanes import LANES

# Buckets whose adjoint is taken together: more read the plan in longer pieces, fewer share the cores better.
_BUCKETS_AT_ONCE = 8


@dataclass(frozen=True)
class _Pieces:
    """Pieces of splats (pairs of a Gaussian and a slice), by slice and then by bucket."""

    first: np.ndarray
    gaussians: np.ndarray
    corners: np.ndarray
    n_rows: np.ndarray
    forms: np.ndarray
    depths: np.ndarray


class CpuGaussianKernel:
    """Prediction, derivatives and adjoint for free Gaussians and one set of poses (float32)."""

    name = "cpu"

    def __init__(self, field: GaussianField, views: SliceViews) -> None:
        if not _supported(views):
            raise ValueError(
                "kernels for free Gaussians need a slice profile of one component, or two of equal variance"
            )
        self.views = views
        self._buckets = gaussian_plan.sort_into_buckets(field, views.cutoff)
        order = self._buckets.order
        self._means = field.means[order].astype(np.float64)
        self._full_covariances = field.covariances[order]
        self._covariances = np.ascontiguousarray(self._full_covariances[:, (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)])
        self._determinants = np.exp(2.0 * field.log_scales[order].astype(np.float64).sum(axis=1))
        sizes = views.shapes[:, 0] * (views.shapes[:, 1] + LANES) + LANES
        self._padded_first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @cached_property
    def _limits(self) -> np.ndarray | None:
        radii = self.views.squared_radii
        return None if radii is None else self._padded(radii)

    def _padded(self, *pixels: np.ndarray) -> np.ndarray:
        size = int(self._padded_first[-1])
        padded = np.zeros(len(pixels) * size, np.float32)
        for number, values in enumerate(pixels):
            part = padded[number * size : (number + 1) * size]
            flat = np.ascontiguousarray(values, np.float32)
            gaussian_splat.pad_slices(flat, self.views.shapes, self.views.first_pixel, part, self._padded_first)
        return padded

    @cached_property
    def _pieces(self) -> _Pieces:
        v, buckets = self.views, self._buckets
        n_slices, n_buckets = len(v.shapes), len(buckets.radii)
        first = np.zeros((n_slices, n_buckets + 1), np.int64)

        def plan(s: int, write: bool, *pieces: np.ndarray) -> None:
            gaussian_plan.plan_slice(
                s, write, buckets.first, buckets.centres, buckets.radii, self._means, self._covariances,
                self._determinants, v.to_slice, v.spread.in_plane_variances, v.spread.weights, v.spread.offsets,
                v.spread.variances, v.cutoff, v.exact, v.pixel_spacing, v.shapes, first, *pieces,
            )  # fmt: skip

        empty = _new_pieces(0, False)
        parallel_for(lambda s: plan(s, False, *empty), n_slices)
        ends = np.cumsum(first[:, 1:].ravel()).reshape(n_slices, n_buckets)
        first[:, 1:] = ends
        first[1:, 0] = ends[:-1, -1]
        pieces = _new_pieces(int(ends[-1, -1]), v.squared_radii is not None)
        parallel_for(lambda s: plan(s, True, *pieces), n_slices)
        return _Pieces(first, *pieces)

    @property
    def n_splats(self) -> int:
        """Pairs of a Gaussian and a slice that touch: what the cost of one application grows with."""
        pieces = self._pieces
        begins = np.concatenate([[True], np.diff(pieces.gaussians) != 0])  # the pieces of a splat follow each other
        begins[pieces.first[:, 0][pieces.first[:, 0] < len(begins)]] = True
        return int(begins[: len(pieces.gaussians)].sum())

    def _sorted(self, per_gaussian: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(per_gaussian[self._buckets.order], np.float32)

    def _unsorted(self, values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        out[self._buckets.order] = values
        return out

    def predict(self, amplitudes: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " p"]:
        """Every pixel of every slice, A c."""
        v, pieces, factors = self.views, self._pieces, self._sorted(amplitudes)
        out = np.zeros(int(v.first_pixel[-1]), np.float32)

        def body(s: int) -> None:
            gaussian_splat.predict_slice(
                s, factors, pieces.first, pieces.gaussians, pieces.corners, pieces.n_rows, pieces.forms,
                pieces.depths, v.pixel_spacing, v.shapes, v.first_pixel, self._limits, self._padded_first, out,
            )  # fmt: skip

        parallel_for(body, len(v.shapes))
        return out

    def _adjoint(self, pixels: np.ndarray, squared: bool) -> np.ndarray:
        v, pieces = self.views, self._pieces
        padded, out = self._padded(pixels), np.zeros(len(self._means), np.float32)

        n_buckets = len(self._buckets.radii)

        def body(run: int) -> None:
            first = run * _BUCKETS_AT_ONCE
            gaussian_splat.adjoint_buckets(
                first, min(first + _BUCKETS_AT_ONCE, n_buckets), padded, self._padded_first, pieces.first,
                pieces.gaussians, pieces.corners, pieces.n_rows, pieces.forms, pieces.depths,
                v.pixel_spacing, v.shapes, self._limits, squared, out,
            )  # fmt: skip

        parallel_for(body, -(-n_buckets // _BUCKETS_AT_ONCE))
        return self._unsorted(out)

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " n"]:
        """A^T r."""
        return self._adjoint(pixels, False)

    def squared_adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " n"]:
        """(A * A)^T r: with pixel weights for r, the diagonal of A^T W A."""
        return self._adjoint(pixels, True)

    def derivatives(self, amplitudes: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "7 p"]:
        """Pixels, derivative by d = pixel - Gaussian (3), and torques (3), in the slice frame (see `gaussian_simd`)."""
        v, pieces, factors = self.views, self._pieces, self._sorted(amplitudes)
        if v.squared_radii is not None:
            raise ValueError("derivative planes are not made for nearest neighbours: use `gradient`")
        out = np.zeros((N_PLANES, int(v.first_pixel[-1])), np.float32)

        def body(s: int) -> None:
            gaussian_splat.differentiate_slice(
                s, factors, pieces.first, pieces.gaussians, pieces.corners, pieces.n_rows,
                pieces.forms, self._means, self._covariances, v.to_slice, v.spread.in_plane_variances,
                v.spread.offsets, v.spread.variances, v.exact, v.pixel_spacing, v.shapes, v.first_pixel, out,
            )  # fmt: skip

        parallel_for(body, len(v.shapes))
        return out

    def gradient(
        self,
        amplitudes: Float32[np.ndarray, " n"],
        pixels: Float32[np.ndarray, " p"],
        density_pixels: Float32[np.ndarray, " p"] | None = None,
    ) -> GeometryGradient:
        """Gradient of <r, A c> by geometry and poses, and of <t, A 1> on top if `density_pixels` t are given."""
        v, pieces, factors = self.views, self._pieces, self._sorted(amplitudes)
        n, n_buckets, n_slices = len(self._means), len(self._buckets.radii), len(v.shapes)
        zero = np.zeros_like(pixels) if density_pixels is None else density_pixels
        planes, second = self._padded(pixels, zero), int(self._padded_first[-1])
        peaks, means, covariances = np.zeros(n), np.zeros((n, 3)), np.zeros((n, 6))
        poses = np.zeros((n_slices, n_buckets, 6))

        def body(bucket: int) -> None:
            gaussian_splat.gradient_bucket(
                bucket, planes, second, factors, self._padded_first, pieces.first, pieces.gaussians,
                pieces.corners, pieces.n_rows, pieces.forms, pieces.depths,
                self._means, self._covariances, v.to_slice, v.spread.in_plane_variances, v.spread.offsets,
                v.spread.variances, v.centres, v.exact, v.pixel_spacing, v.shapes, self._limits, peaks, means,
                covariances, poses,
            )  # fmt: skip

        parallel_for(body, n_buckets)
        full = covariances[:, (0, 1, 2, 1, 3, 4, 2, 4, 5)].reshape(-1, 3, 3)
        if v.exact:  # the peak grows with sqrt(det Sigma)
            full += 0.5 * peaks[:, None, None] * np.linalg.inv(self._full_covariances)
        return GeometryGradient(self._unsorted(means), self._unsorted(full), poses.sum(axis=1))


def _supported(views: SliceViews) -> bool:
    variances = views.spread.variances
    return variances.shape[1] == 1 or (variances.shape[1] == 2 and bool((variances[:, 0] == variances[:, 1]).all()))


def _new_pieces(n: int, nearest: bool) -> tuple[np.ndarray, ...]:
    """Empty arrays for `n` pieces, in the order of `_Pieces`."""
    return (
        np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int16),
        np.empty(n * FORM_SIZE, np.float32), np.empty(n if nearest else 0, np.float32),
    )  # fmt: skip
