"""What the kernels of one variant compute for a small acquisition: ``python -m tests.compiled.both_variants``."""

from __future__ import annotations

import json

import numpy as np

from gsvr.backends import named
from gsvr.compiled import instructions
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator
from tests.acquisitions import four_in_space, random_amplitudes, random_field, small_lattice, small_slices


def numbers() -> list[float]:
    """Predictions, adjoints, diagonals and derivatives on a lattice and of free Gaussians, bonds, and a step."""
    slices, poses = small_slices()
    lattice, backend = small_lattice(), named("cpu")
    field, sites = random_field(slices, poses), random_amplitudes(lattice)
    pixels = np.random.default_rng(1).normal(size=int(slices.offsets[-1])).astype(np.float32)
    parts = []
    for operator, amplitudes in (
        (LatticeOperator(lattice, slices, poses), sites),
        (GaussianOperator(field, slices, poses), field.amplitudes),
        (GaussianOperator(field, slices, poses, profile=four_in_space), field.amplitudes),
    ):
        parts += [operator.predict(amplitudes), operator.adjoint(pixels), operator.diagonal(np.abs(pixels))]
        parts += operator.pose_derivatives(amplitudes)[1]
        if isinstance(operator, GaussianOperator):
            gradient = operator.geometry_gradient(amplitudes, pixels)
            parts += [gradient.means, gradient.covariances, gradient.poses]
    curved = backend.lattice_bonds(lattice, sites, 0.3).apply(sites)
    moved, gradient = sites.copy(), np.ones_like(sites)
    backend.step(0.7, sites, curved, moved, gradient)
    return [
        float(number) for part in (*parts, curved, moved, gradient) for number in (part / np.abs(part).max()).ravel()
    ]


if __name__ == "__main__":
    print(json.dumps({"instructions": instructions(), "numbers": numbers()}))
