"""Smooth brightness of each stack: coils receive unevenly, and the subject moves through their field.

A polynomial of second degree in acquired world (receive coils do not move with the subject), of the logarithm of
brightness. What varies from slice to slice is left to gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32

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
        positions, stack_of = slices.pixel_positions(pixels=slices.mask), stack_of[slices.mask]
        inside = [positions[stack_of == stack] for stack in range(len(slices.stack_names))]
        centres = np.array([points.mean(axis=0) if len(points) else np.zeros(3) for points in inside])
        distances = [np.linalg.norm(points - centre, axis=1) for points, centre in zip(inside, centres, strict=True)]
        radius = float(np.percentile(np.concatenate(distances), 95))
        radius, nothing = max(radius, 1e-3), np.zeros((len(inside), N_TERMS))
        terms = [_terms((points - centre) / radius) for points, centre in zip(inside, centres, strict=True)]
        means = np.array([of_stack.mean(axis=1) if of_stack.size else np.zeros(N_TERMS) for of_stack in terms])
        return cls(centres, radius, nothing, means)

    def at(self, slices: Slices) -> Float32[np.ndarray, " p"]:
        """Factor on the brightness of every pixel; geometric mean one over the stack's pixels in use."""
        factor, stack_of = np.ones(len(slices.values), np.float32), slices.per_pixel(slices.stack_index)
        for stack in np.flatnonzero(self.coefficients.any(axis=1)).tolist():
            inside = stack_of == stack
            factor[inside] = np.exp(self._logarithm(slices, stack, inside))
        return factor

    def terms(self, slices: Slices, stack: int, pixels: Bool[np.ndarray, " p"]) -> Float[np.ndarray, "9 q"]:
        """The polynomials of a stack at some of its pixels."""
        points = (slices.pixel_positions(pixels=pixels) - self.centres[stack]) / self.radius
        return _terms(points) - self.means[stack][:, None]

    def _logarithm(self, slices: Slices, stack: int, pixels: Bool[np.ndarray, " p"]) -> Float[np.ndarray, " q"]:
        limit = float(np.log(_LIMIT))
        return np.clip(self.coefficients[stack] @ self.terms(slices, stack, pixels), -limit, limit)

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
        stack_of, spreads = slices.per_pixel(slices.stack_index), dict.fromkeys(slices.stack_names, 0.0)
        for stack in np.flatnonzero(self.coefficients.any(axis=1)).tolist():
            inside = slices.mask & (stack_of == stack)
            if inside.any():
                spreads[slices.stack_names[stack]] = float(self._logarithm(slices, stack, inside).std())
        return spreads


def _square(coefficients: Float[np.ndarray, " 9"]) -> Float[np.ndarray, "3 3"]:
    """The part of second degree as a symmetric matrix."""
    xx, yy, zz, xy, yz, zx = coefficients[3:]
    return np.array([[xx, xy / 2, zx / 2], [xy / 2, yy, yz / 2], [zx / 2, yz / 2, zz]])


def _terms(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "9 n"]:
    x, y, z = points.T
    return np.stack([x, y, z, x * x, y * y, z * z, x * y, y * z, z * x])
