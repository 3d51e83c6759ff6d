"""CPU backend for free Gaussians: plans and runs the splat kernels on all cores."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Float32

from gsvr.backends.cpu.gaussian_plan import (
    Pieces,
    padded_first,
    plan_pieces,
    sort_into_buckets,
    structure_of_gaussians,
    structure_of_views,
)
from gsvr.backends.protocol import GeometryGradient
from gsvr.backends.views import SliceViews
from gsvr.compiled import Structure, run
from gsvr.model.fields import GaussianField

# Buckets whose adjoint is taken together: more read the plan in longer pieces, fewer share the cores better.
_BUCKETS_AT_ONCE = 8
# The pixel, its derivatives and torques.
_N_PLANES = 7


class CpuGaussianKernel:
    """Prediction, derivatives and adjoint for free Gaussians and one set of poses (float32)."""

    def __init__(self, field: GaussianField, views: SliceViews) -> None:
        if not _supported(views):
            raise ValueError(
                "kernels for free Gaussians need a slice profile of one component, or two of equal variance"
            )
        self.views = views
        self._buckets = sort_into_buckets(field, views.cutoff)
        self._gaussians = structure_of_gaussians(self._buckets, field)
        self._unlimited = structure_of_views(views)
        self._padded_size = int(padded_first(views)[-1])

    @cached_property
    def _views(self) -> Structure:
        if self.views.squared_radii is None:
            return self._unlimited
        return structure_of_views(self.views, self._padded(self.views.squared_radii))

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        padded = np.empty(self._padded_size, np.float32)
        flat = np.ascontiguousarray(pixels, np.float32)
        run("pad_gaussian_slices", len(self.views.shapes), self._unlimited, flat, padded)
        return padded

    @cached_property
    def _pieces(self) -> Pieces:
        return plan_pieces(self._buckets, self._gaussians, self._unlimited, self.views)

    @property
    def n_splats(self) -> int:
        """Pairs of a Gaussian and a slice that touch: what the cost of one application grows with."""
        return self._pieces.n_splats

    def _sorted(self, per_gaussian: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(per_gaussian[self._buckets.order], np.float32)

    def _unsorted(self, values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        out[self._buckets.order] = values
        return out

    def predict(self, amplitudes: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " p"]:
        """Every pixel of every slice, A c."""
        out = np.zeros(int(self.views.first_pixel[-1]), np.float32)
        factors = self._sorted(amplitudes)
        run("predict_gaussians", len(self.views.shapes), self._views, self._pieces.structure, factors, out)
        return out

    def _adjoint(self, pixels: np.ndarray, squared: bool) -> np.ndarray:
        out = np.zeros(len(self._buckets.order), np.float32)
        n_groups = -(-len(self._buckets.radii) // _BUCKETS_AT_ONCE)
        run(
            "adjoint_gaussians", n_groups, _BUCKETS_AT_ONCE, self._views, self._pieces.structure, self._padded(pixels),
            int(squared), out,
        )  # fmt: skip
        return self._unsorted(out)

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " n"]:
        """A^T r."""
        return self._adjoint(pixels, False)

    def squared_adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " n"]:
        """(A * A)^T r: with pixel weights for r, the diagonal of A^T W A."""
        return self._adjoint(pixels, True)

    def derivatives(self, amplitudes: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "7 p"]:
        """Pixels, derivative by d = pixel - Gaussian (3), torques (3), in the slice frame."""
        v, pieces, factors = self.views, self._pieces, self._sorted(amplitudes)
        if v.squared_radii is not None:
            raise ValueError("derivative planes are not made for nearest neighbours: use `gradient`")
        n_pixels = int(v.first_pixel[-1])
        out = np.zeros((_N_PLANES, n_pixels), np.float32)
        run(
            "differentiate_gaussians", len(v.shapes), self._gaussians, self._views, pieces.structure, factors, n_pixels,
            out,
        )  # fmt: skip
        return out

    def gradient(
        self,
        amplitudes: Float32[np.ndarray, " n"],
        pixels: Float32[np.ndarray, " p"],
        density_pixels: Float32[np.ndarray, " p"] | None = None,
    ) -> GeometryGradient:
        """Gradient of <r, A c> by geometry and poses, and of <t, A 1> on top if `density_pixels` t are given."""
        v, pieces, factors = self.views, self._pieces, self._sorted(amplitudes)
        n, n_groups = len(factors), -(-len(self._buckets.radii) // _BUCKETS_AT_ONCE)
        peaks, means, covariances = np.zeros(n), np.zeros((n, 3)), np.zeros((n, 6))
        poses = np.zeros((len(v.shapes), n_groups, 6))
        run(
            "gaussian_gradient", n_groups, _BUCKETS_AT_ONCE, self._gaussians, self._views, pieces.structure, factors,
            self._padded(pixels), None if density_pixels is None else self._padded(density_pixels), peaks, means,
            covariances, poses,
        )  # fmt: skip
        full = covariances[:, (0, 1, 2, 1, 3, 4, 2, 4, 5)].reshape(-1, 3, 3)
        return GeometryGradient(self._unsorted(means), self._unsorted(full), poses.sum(axis=1))


def _supported(views: SliceViews) -> bool:
    variances = views.spread.covariances[:, :, 2, 2]
    return variances.shape[1] == 1 or (variances.shape[1] == 2 and bool((variances[:, 0] == variances[:, 1]).all()))
