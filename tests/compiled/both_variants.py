"""What the kernels of one variant compute for a small acquisition: ``python -m tests.compiled.both_variants``."""

from __future__ import annotations

import json

import numpy as np

from gsvr.compiled import instructions
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.priors.lattice import quadratic_prior
from tests.acquisitions import random_amplitudes, small_lattice, small_slices
from tests.free_gaussians import random_field


def numbers() -> list[float]:
    """Predictions, adjoints, diagonals and derivatives on a lattice and of free Gaussians, and the prior."""
    slices, poses = small_slices()
    lattice = small_lattice()
    field = random_field(slices, poses)
    pixels = np.random.default_rng(1).normal(size=int(slices.offsets[-1])).astype(np.float32)
    parts = []
    for primitives, amplitudes in ((lattice, random_amplitudes(lattice)), (field, field.amplitudes)):
        operator = AcquisitionOperator(primitives, slices, poses)
        parts += [
            operator.predict(amplitudes),
            operator.adjoint(pixels),
            operator.diagonal(np.abs(pixels)),
            operator.derivative_planes(amplitudes),
        ]
    amplitudes = random_amplitudes(lattice)
    parts.append(quadratic_prior(lattice, amplitudes, 0.1).apply(amplitudes))
    return [float(number) for part in parts for number in (part / np.abs(part).max()).ravel()]


if __name__ == "__main__":
    print(json.dumps({"instructions": instructions(), "numbers": numbers()}))
