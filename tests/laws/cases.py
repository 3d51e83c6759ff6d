"""Acquisitions that the laws are checked for: both operators, mixtures of all kinds, both kinds of fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gsvr.backends import Backend
from gsvr.model.fields import GaussianField, Lattice, LatticeField
from gsvr.model.point_spread import PointSpread, Profile, spread_of
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator
from tests import oracle
from tests.acquisitions import four_in_space, random_field, small_lattice, small_slices, three_through_plane

# a cut-off (6 standard deviations: 1.5e-8) that costs less than float32 does
WIDE = 6.0
# of the normalised field; so large that it is seen in every pixel
DELTA = 0.1


@dataclass(frozen=True)
class Case:
    """Some Gaussians, slices, poses, gains and a point spread function, with what the definition says of them.

    Attributes
    ----------
    tolerance
        Of float32, as a share of the largest value: exponentials good to 2e-6 (on a lattice 5e-6, of products of
        three), of exponents that are rounded themselves; sums of hundreds.
    """

    name: str
    primitives: Lattice | GaussianField
    slices: Slices
    poses: np.ndarray
    profile: Profile

    @cached_property
    def gains(self) -> np.ndarray:
        """One for each slice, all different."""
        return np.random.default_rng(3).uniform(0.5, 2, self.slices.n_slices)

    @property
    def tolerance(self) -> float:
        return 3e-5 if isinstance(self.primitives, Lattice) else 1e-5

    @cached_property
    def field(self) -> GaussianField:
        """The Gaussians, amplitudes included."""
        if isinstance(self.primitives, GaussianField):
            return self.primitives
        values = np.random.default_rng(0).uniform(-0.5, 1.0, self.primitives.shape).astype(np.float32)
        return LatticeField(self.primitives, values).to_gaussians()

    @property
    def amplitudes(self) -> np.ndarray:
        """One a Gaussian."""
        return self.field.amplitudes

    @cached_property
    def spread(self) -> PointSpread:
        return spread_of(self.slices, self.profile)

    @property
    def exact(self) -> bool:
        """Whether Gaussians have the height that the convolution asks for."""
        return self.field.normalisation is None

    @cached_property
    def pixel_gains(self) -> np.ndarray:
        return self.slices.per_pixel(self.gains)

    def pixels(self, seed: int) -> np.ndarray:
        """Random numbers, one a pixel; those that see nothing are zero."""
        values = np.random.default_rng(seed).normal(size=len(self.slices.values)).astype(np.float32)
        return values if self.field.nearest is None else values * self.slices.mask

    def operator(self, backend: Backend, **changes: Any) -> AcquisitionOperator:
        """The operator under test, with other poses, another cut-off or other primitives where these are given."""
        primitives = changes.pop("primitives", self.primitives)
        settings = {"poses": self.poses, "gains": self.gains, "cutoff": WIDE, **changes}
        if isinstance(primitives, Lattice):
            return LatticeOperator(primitives, self.slices, profile=self.profile, backend=backend, **settings)
        return GaussianOperator(primitives, self.slices, profile=self.profile, backend=backend, **settings)

    def shaped(self, backend: Backend, flat: np.ndarray) -> Any:
        """One number a Gaussian as the operator takes them."""
        if isinstance(self.primitives, GaussianField):
            return backend.array(flat)
        grid = np.zeros(self.primitives.shape, np.float32)
        grid[self.primitives.support] = flat
        return backend.array(grid)

    def flat(self, backend: Backend, values: Any) -> np.ndarray:
        """One number a Gaussian as the operator gives them."""
        host = backend.host(values)
        return host if isinstance(self.primitives, GaussianField) else host[self.primitives.support]

    @cached_property
    def means(self) -> np.ndarray:
        return self.field.means.astype(np.float64)

    @cached_property
    def covariances(self) -> np.ndarray:
        return oracle.covariances(self.field)

    @cached_property
    def seen(self) -> np.ndarray | float:
        """Which Gaussians a pixel may see, where only its nearest count."""
        if self.field.nearest is None:
            return 1.0
        return oracle.nearest(self.means, self.slices, self.poses, self.field.nearest)

    def responses(self, **changes: np.ndarray) -> np.ndarray:
        """How pixels see each Gaussian: no gains, and not normalised."""
        numbers = {"means": self.means, "sigma": self.covariances, "poses": self.poses, **changes}
        return self.seen * oracle.matrix(slices=self.slices, spread=self.spread, exact=self.exact, **numbers)

    @cached_property
    def at_rest(self) -> np.ndarray:
        return self.responses()

    def density(self, responses: np.ndarray) -> np.ndarray:
        """What pixels are divided by."""
        delta = self.field.normalisation
        return np.ones(len(responses)) if delta is None else responses.sum(axis=1) + delta

    def predicted(self, responses: np.ndarray) -> np.ndarray:
        """The pixels, by definition."""
        return self.pixel_gains * (responses @ self.amplitudes) / self.density(responses)

    @cached_property
    def matrix(self) -> np.ndarray:
        """A (pixels x Gaussians), by definition."""
        return (self.pixel_gains / self.density(self.at_rest))[:, None] * self.at_rest

    def pose_derivatives(self, of: Callable[[np.ndarray], np.ndarray], h: float = 1e-4) -> list[np.ndarray]:
        """Derivative of a function of the responses by each pose parameter, of all slices at once.

        Central differences in float64: good to h^2 for one, 1e-15 / h for the other reason.
        """
        found = []
        for parameter in range(6):
            step = np.zeros((self.slices.n_slices, 6))
            step[:, parameter] = h
            ends = [of(self.responses(poses=oracle.moved(self.slices, self.poses, sign * step))) for sign in (1, -1)]
            found.append((ends[0] - ends[1]) / (2 * h))
        return found


def _cases() -> list[Case]:
    slices, poses = small_slices()
    binned, lattice = slices.binned(4), small_lattice()
    field = random_field(slices, poses)
    normalised, near = replace(field, normalisation=DELTA), replace(field, nearest=20)
    return [
        Case("lattice, slab", lattice, slices, poses, "slab"),
        # windows that fit into one vector have kernels of their own
        Case("lattice, gaussian, binned", lattice, binned, poses, "gaussian"),
        Case("lattice, three components", lattice, slices, poses, three_through_plane),
        Case("lattice, three components, binned", lattice, binned, poses, three_through_plane),
        Case("lattice, not separable", lattice, binned, poses, four_in_space),
        Case("gaussians, slab", field, slices, poses, "slab"),
        Case("gaussians, gaussian", field, slices, poses, "gaussian"),
        Case("gaussians, three components", field, slices, poses, three_through_plane),
        Case("gaussians, not separable", field, slices, poses, four_in_space),
        Case("gaussians, nearest, slab", near, slices, poses, "slab"),
        Case("gaussians, nearest, not separable", near, slices, poses, four_in_space),
        Case("normalised, slab", normalised, slices, poses, "slab"),
        Case("normalised, not separable", normalised, slices, poses, four_in_space),
        Case("normalised, nearest, slab", replace(near, normalisation=DELTA), slices, poses, "slab"),
    ]


CASES = _cases()
