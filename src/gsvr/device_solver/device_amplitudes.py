"""Amplitudes by preconditioned conjugate gradients on a device, see `gsvr.solver.amplitudes`.

All numbers stay on the device. Once the gradient is small enough the steps are zero: that gives what stopping would
give, and nobody has to ask. On a CUDA device one iteration is recorded as a graph and replayed, so that it costs one
launch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.device_solver.device_operator import DeviceOperator
from gsvr.device_solver.device_prior import DevicePrior
from gsvr.device_solver.recorded import Recorded

# Of the mean of the diagonal: below that a site is seen by nothing.
_LEAST_DIAGONAL = 1e-4
_TOLERANCE = 1e-3


class ConjugateGradients:
    """Solver of (A^T W A + strength L) c = A^T W y for one lattice and one set of slices.

    Parameters
    ----------
    graphs
        Whether to record iterations on CUDA devices.
    """

    def __init__(self, operator: DeviceOperator, prior: DevicePrior, graphs: bool = True) -> None:
        self.operator = operator
        self.prior = prior
        shape, device = operator.kernel.lattice.shape, operator.kernel.device
        self._gradient, self._direction, self._inverse, self.amplitudes = (
            torch.zeros(shape, device=device) for _ in range(4)
        )
        self._weights, self._along, self._predicted = (
            torch.zeros(operator.kernel.n_pixels, device=device) for _ in range(3)
        )
        self._rho, self._enough, self._strength = (torch.zeros((), device=device) for _ in range(3))
        self._next = Recorded(self._iterate, graphs and device.type == "cuda")

    def solve(
        self,
        values: Float32[Tensor, " p"],
        weights: Float32[Tensor, " p"],
        strength: Float32[Tensor, ""],
        start: Float32[Tensor, "nx ny nz"],
        prediction: Float32[Tensor, " p"],
        iterations: int,
        diagonal: Float32[Tensor, "nx ny nz"],
    ) -> tuple[Float32[Tensor, "nx ny nz"], Float32[Tensor, " p"]]:
        """Amplitudes after some iterations from `start`, whose `prediction` is A c, and the prediction of them.

        The prior is the one that was reweighted last. The `diagonal` of A^T W A, for about these weights, only
        preconditions.
        """
        operator, gains = self.operator, self.operator.pixel_gains
        # the kernels know no gains: they go into the weights
        self._weights.copy_(weights * gains * gains)
        self._strength.copy_(strength)
        self.amplitudes.copy_(start)
        self._predicted.copy_(prediction / gains)
        total = diagonal.clone()
        self.prior.add_diagonal(self._strength, total)
        floor = _LEAST_DIAGONAL * (total * operator.support).sum() / operator.n_sites
        torch.div(operator.support, torch.maximum(total, floor), out=self._inverse)
        self._gradient.copy_(operator.adjoint(weights * (values - prediction)))
        self.prior.add(self.amplitudes, -self._strength, self._gradient)
        torch.mul(self._inverse, self._gradient, out=self._direction)
        self._rho.copy_(torch.sum(self._gradient * self._direction))
        self._enough.copy_(_TOLERANCE**2 * self._rho)
        for _ in range(iterations):
            self._next()
        return self.amplitudes.clone(), self._predicted * gains

    def _iterate(self) -> None:
        """One iteration, in place: what is recorded reads and writes the same memory each time."""
        curved = self.operator.kernel.normal(self._direction, self._weights, self._along)
        self.prior.add(self._direction, self._strength, curved)
        done = self._rho <= self._enough
        # filled and not chosen from two: a number of the host's would have to be copied to the device
        step = (self._rho / torch.sum(self._direction * curved)).masked_fill(done, 0)
        self.amplitudes.addcmul_(step, self._direction)
        self._predicted.addcmul_(step, self._along)
        self._gradient.addcmul_(step, curved, value=-1)
        preconditioned = self._inverse * self._gradient
        rho = torch.sum(self._gradient * preconditioned)
        self._direction.mul_((rho / self._rho).masked_fill(done, 0)).add_(preconditioned)
        self._rho.copy_(torch.where(done, self._rho, rho))
