"""Kernels of the prior on flat grids, plain and by Triton, against the solver's own."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.fields import Lattice
from gsvr.solver.priors.lattice import quadratic_prior
from tests.acquisitions import random_amplitudes, small_lattice

torch = pytest.importorskip("torch", reason="kernels of tiles need PyTorch")
from gsvr.backends import plain_prior  # noqa: E402
from gsvr.device_solver.device_prior import DevicePrior  # noqa: E402
from tests.backends.tiled_kernels import DEVICE, TRITON  # noqa: E402

EDGE = 0.01
# sums of 26 float32 terms
TOLERANCE = 2e-6


def full_lattice() -> Lattice:
    """Sites up to the faces of the box, where flat neighbours are not neighbours."""
    return Lattice(np.zeros(3), 2.0, 1.5, np.ones((5, 4, 6), bool))


@pytest.mark.parametrize("name", ["plain", TRITON])
@pytest.mark.parametrize("lattice", [small_lattice(), full_lattice()], ids=["ball", "box"])
def test_the_prior_is_that_of_the_host(name: str, lattice: Lattice):
    if name == "plain":
        kernels = plain_prior
    else:
        from gsvr.backends.triton import bonds as kernels
    amplitudes, values = random_amplitudes(lattice) * np.float32(0.03), random_amplitudes(lattice, seed=1)
    expected = quadratic_prior(lattice, amplitudes, EDGE)
    prior = DevicePrior(lattice, EDGE, DEVICE, kernels)
    prior.reweight(torch.as_tensor(amplitudes).to(DEVICE))
    strength = torch.tensor(0.3, device=DEVICE)
    out, diagonal = torch.ones(lattice.shape, device=DEVICE), torch.ones(lattice.shape, device=DEVICE)
    prior.add(torch.as_tensor(values).to(DEVICE), strength, out)
    prior.add_diagonal(strength, diagonal)
    for got, want in ((out, 0.3 * expected.apply(values)), (diagonal, 0.3 * expected.diagonal())):
        difference = np.abs(got.cpu().numpy() - 1 - want)
        assert difference.max() <= TOLERANCE * np.abs(want).max()
