"""Smooth brightness of each stack: coils receive unevenly, and the subject moves through their field.

A polynomial of second degree in acquired world (receive coils do not move with the subject), of the logarithm of
brightness. What varies from slice to slice is left to gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32

from gsvr.model.slices import Slices

N_TERMS = 9
# Brightness stays within this factor of a stack's mean (geometric).
_LIMIT = 3.0


@dataclass(frozen=True)
class BiasField:
    """The bias of every stack.

    Attributes
    ----------
    centres
        Of each stack's pixels in use (acquired world, mm).
    radius
        Distance (mm) from there at which the coordinates of the polynomials are one.
    coefficients
        For each stack of x, y, z, x^2, y^2, z^2, xy, yz, zx.
    means
        Of these terms over the stack's pixels in use, which are taken off.
    """

    centres: Float[np.ndarray, "stacks 3"]
    radius: float
    coefficients: Float[np.ndarray, "stacks 9"]
    means: Float[np.ndarray, "stacks 9"]

    @classmethod
    def none(cls, slices: Slices) -> BiasField:
        """No bias; the polynomials are those of these slices."""
        stack_of = slices.per_pixel(slices.stack_index)
        positions, count = slices.pixel_positions(), len(slices.stack_names)
        inside = [positions[slices.mask & (stack_of == stack)] for stack in range(count)]
        centres = np.array([points.mean(axis=0) if len(points) else np.zeros(3) for points in inside])
        distances = [np.linalg.norm(points - centre, axis=1) for points, centre in zip(inside, centres, strict=True)]
        radius = float(np.percentile(np.concatenate(distances), 95))
        radius, nothing = max(radius, 1e-3), np.zeros((count, N_TERMS))
        terms = [_terms((points - centre) / radius) for points, centre in zip(inside, centres, strict=True)]
        means = np.array([[term.mean() if len(term) else 0.0 for term in of_stack] for of_stack in terms])
        return cls(centres, radius, nothing, means)

    def at(self, slices: Slices) -> Float32[np.ndarray, " p"]:
        """Factor on the brightness of every pixel; geometric mean one over the stack's pixels in use."""
        if not self.coefficients.any():
            return np.ones(len(slices.values), np.float32)
        stack_of = slices.per_pixel(slices.stack_index)
        logarithm = np.zeros(len(stack_of))
        for term, values in enumerate(self.terms(slices)):
            logarithm += values * self.coefficients[stack_of, term]
        limit = float(np.log(_LIMIT))
        return np.exp(np.clip(logarithm, -limit, limit)).astype(np.float32)

    def terms(self, slices: Slices) -> list[Float[np.ndarray, " p"]]:
        """The polynomials at every pixel."""
        stack_of = slices.per_pixel(slices.stack_index)
        terms = _terms((slices.pixel_positions() - self.centres[stack_of]) / self.radius)
        return [values - self.means[stack_of, term] for term, values in enumerate(terms)]

    def polynomials(self, slices: Slices) -> dict[str, Float[np.ndarray, " 9"]]:
        """By stack: coefficients (1/mm and 1/mm^2) about the origin of acquired world, without the constant.

        They do not depend on which other slices there are, or on masks.
        """
        found = {}
        for name, centre, own in zip(slices.stack_names, self.centres, self.coefficients, strict=True):
            square = _square(own) / self.radius**2
            linear = own[:3] / self.radius - 2 * square @ centre
            found[name] = np.concatenate([linear, own[3:] / self.radius**2])
        return found

    def with_polynomials(self, slices: Slices, known: Mapping[str, Float[np.ndarray, " 9"]]) -> BiasField:
        """The field with what `polynomials` said of some stacks."""
        coefficients = self.coefficients.copy()
        for number, name in enumerate(slices.stack_names):
            if name in known:
                linear = known[name][:3] + 2 * _square(known[name]) @ self.centres[number]
                coefficients[number] = np.concatenate([linear * self.radius, known[name][3:] * self.radius**2])
        return replace(self, coefficients=coefficients)

    def spreads(self, slices: Slices) -> dict[str, float]:
        """By stack: standard deviation of the logarithm over its pixels in use; zero for one without any."""
        logarithm, stack_of = np.log(self.at(slices)), slices.per_pixel(slices.stack_index)
        inside = [logarithm[slices.mask & (stack_of == stack)] for stack in range(len(slices.stack_names))]
        spreads = [float(values.std()) if len(values) else 0.0 for values in inside]
        return dict(zip(slices.stack_names, spreads, strict=True))


def _square(coefficients: Float[np.ndarray, " 9"]) -> Float[np.ndarray, "3 3"]:
    """The part of second degree as a symmetric matrix."""
    xx, yy, zz, xy, yz, zx = coefficients[3:]
    return np.array([[xx, xy / 2, zx / 2], [xy / 2, yy, yz / 2], [zx / 2, yz / 2, zz]])


def _terms(points: Float[np.ndarray, "n 3"]) -> list[Float[np.ndarray, " n"]]:
    x, y, z = points.T
    return [x, y, z, x * x, y * y, z * z, x * y, y * z, z * x]
