"""CPU backend for free Gaussians: plans and runs the splat kernels on all cores."""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from operator import iadd

import numpy as np
from jaxtyping import Float32

from gsvr.backends.cpu.gaussian_plan import (
    Pieces,
    padded_first,
    pairs_and_singles,
    plan_pieces,
    sort_into_buckets,
    structure_of_gaussians,
    structure_of_views,
)
from gsvr.backends.protocol import GeometryGradient
from gsvr.backends.views import SliceViews
from gsvr.compiled import Structure, run
from gsvr.compiled.threads import Lazy
from gsvr.model.fields import GaussianField

# Buckets whose adjoint is taken together: more read the plan in longer pieces, fewer share the cores better.
_BUCKETS_AT_ONCE = 8
# The pixel, its derivatives and torques.
_N_PLANES = 7


class CpuGaussianKernel:
    """See `gsvr.backends.protocol.GaussianKernel`: free Gaussians and one set of poses (float32).

    All that is linear in A is a sum over the components of the point spread function, or pairs of them.
    """

    def __init__(self, field: GaussianField, views: SliceViews) -> None:
        self.views = views
        self._unlimited, self._padded_size = structure_of_views(views, (0,)), int(padded_first(views)[-1])
        self._buckets = sort_into_buckets(field, views.cutoff)
        self._gaussians = structure_of_gaussians(self._buckets, field)
        self._limits = None if views.squared_radii is None else self._padded(views.squared_radii)
        self._parts = [self._part(components) for components in pairs_and_singles(views.spread)]

    def _part(self, components: tuple[int, ...], times: _Part | None = None) -> _Part:
        return _Part(self._gaussians, len(self._buckets.radii), self.views, components, self._limits, times)

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        padded = np.empty(self._padded_size, np.float32)
        flat = np.ascontiguousarray(pixels, np.float32)
        run("pad_gaussian_slices", len(self.views.shapes), self._unlimited, flat, padded)
        return padded

    @Lazy
    def _products(self) -> list[_Part]:
        """Products of all components whose squares are not those of one part."""
        return [
            self._part((a,), times=self._part((b,)))
            for one, other in combinations(self._parts, 2)
            for a in one.components
            for b in other.components
        ]

    @property
    def n_splats(self) -> int:
        """Pairs of a Gaussian and a slice that touch: what the cost of one application grows with."""
        return sum(part.pieces.n_splats for part in self._parts)

    def _sorted(self, per_gaussian: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(per_gaussian[self._buckets.order], np.float32)

    def _unsorted(self, values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        out[self._buckets.order] = values
        return out

    def predict(self, amplitudes: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " p"]:
        factors = self._sorted(amplitudes)
        return reduce(iadd, (part.predict(factors) for part in self._parts))

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " n"]:
        out, padded = np.zeros(len(self._buckets.order), np.float32), self._padded(pixels)
        for part in self._parts:
            part.add_adjoint(padded, out)
        return self._unsorted(out)

    def squared_adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " n"]:
        out, padded = np.zeros(len(self._buckets.order), np.float32), self._padded(pixels)
        for part in self._parts:
            part.add_adjoint(padded, out, squared=True)
        for product in self._products:
            product.add_adjoint(2 * padded, out)
        return self._unsorted(out)

    def derivatives(self, amplitudes: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "7 p"]:
        if self._limits is not None:
            raise ValueError("derivative planes are not made for nearest neighbours: use `gradient`")
        factors = self._sorted(amplitudes)
        return reduce(iadd, (part.derivatives(factors) for part in self._parts))

    def gradient(
        self,
        amplitudes: Float32[np.ndarray, " n"],
        pixels: Float32[np.ndarray, " p"],
        density_pixels: Float32[np.ndarray, " p"] | None = None,
    ) -> GeometryGradient:
        factors, n = self._sorted(amplitudes), len(amplitudes)
        padded, densities = self._padded(pixels), None if density_pixels is None else self._padded(density_pixels)
        means, covariances, poses = np.zeros((n, 3)), np.zeros((n, 6)), 0.0
        for part in self._parts:
            poses = poses + part.add_gradient(factors, padded, densities, means, covariances)
        full = covariances[:, (0, 1, 2, 1, 3, 4, 2, 4, 5)].reshape(-1, 3, 3)
        return GeometryGradient(self._unsorted(means), self._unsorted(full), np.asarray(poses))


class _Part:
    """The kernels for one component of the point spread function, for a pair, or for the product of two components."""

    def __init__(
        self,
        gaussians: Structure,
        n_buckets: int,
        views: SliceViews,
        components: tuple[int, ...],
        limits: Float32[np.ndarray, " padded"] | None,
        times: _Part | None,
    ) -> None:
        self.components = components
        self._gaussians, self._times, self._is_limited = gaussians, times, limits is not None
        self._n_buckets, self._n_groups = n_buckets, -(-n_buckets // _BUCKETS_AT_ONCE)
        self._n_slices, self._n_pixels = len(views.shapes), int(views.first_pixel[-1])
        self._views = structure_of_views(views, components, limits)

    @Lazy
    def pieces(self) -> Pieces:
        """The splats."""
        times = None if self._times is None else self._times._views
        return plan_pieces(self._gaussians, self._n_buckets, self._views, self._n_slices, times, self._is_limited)

    def predict(self, factors: np.ndarray) -> np.ndarray:
        """A c."""
        out = np.empty(self._n_pixels, np.float32)
        run("predict_gaussians", self._n_slices, self._views, self.pieces.structure, factors, out)
        return out

    def add_adjoint(self, padded: np.ndarray, out: np.ndarray, squared: bool = False) -> None:
        """A^T r, or (A * A)^T r, on top of what is there."""
        run(
            "adjoint_gaussians", self._n_groups, _BUCKETS_AT_ONCE, self._views, self.pieces.structure, padded,
            int(squared), out,
        )  # fmt: skip

    def derivatives(self, factors: np.ndarray) -> np.ndarray:
        """The seven planes."""
        out = np.empty((_N_PLANES, self._n_pixels), np.float32)
        run(
            "differentiate_gaussians", self._n_slices, self._gaussians, self._views, self.pieces.structure, factors,
            self._n_pixels, out,
        )  # fmt: skip
        return out

    def add_gradient(
        self,
        factors: np.ndarray,
        padded: np.ndarray,
        densities: np.ndarray | None,
        means: np.ndarray,
        covariances: np.ndarray,
    ) -> np.ndarray:
        """Gradients by means and covariances on top of what is there; that by the poses."""
        poses = np.zeros((self._n_slices, self._n_groups, 6))
        run(
            "gaussian_gradient", self._n_groups, _BUCKETS_AT_ONCE, self._gaussians, self._views,
            self.pieces.structure, factors, padded, densities, np.zeros(len(factors)), means, covariances, poses,
        )  # fmt: skip
        return poses.sum(axis=1)
