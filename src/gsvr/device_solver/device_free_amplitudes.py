"""Amplitudes of free Gaussians by conjugate gradients on a device, see `gsvr.solver.free_amplitudes`.

As in `device_amplitudes` all numbers stay on the device and steps are zero once nothing is left to be found.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.backends.torch.gaussians import DeviceGaussianKernel
from gsvr.device_solver.device_neighbours import DeviceNeighbours
from gsvr.device_solver.device_operator import GainedOperator
from gsvr.device_solver.recorded import Recorded


class FreeConjugateGradients:
    """Solver of (A^T W A + strength L) c = A^T W y for some free Gaussians and one set of slices.

    Parameters
    ----------
    graphs
        Whether to record iterations on CUDA devices.
    """

    def __init__(
        self, operator: GainedOperator[DeviceGaussianKernel], neighbours: DeviceNeighbours, graphs: bool = True
    ) -> None:
        self.operator = operator
        self.neighbours = neighbours
        kernel = operator.kernel
        self._gradient, self._direction, self.amplitudes = (
            torch.zeros(kernel.n_gaussians, device=kernel.device) for _ in range(3)
        )
        self._weights, self._along, self._predicted = (
            torch.zeros(kernel.n_pixels, device=kernel.device) for _ in range(3)
        )
        self._rho, self._strength = (torch.zeros((), device=kernel.device) for _ in range(2))
        self._next = Recorded(self._iterate, graphs and kernel.device.type == "cuda")

    def solve(
        self,
        values: Float32[Tensor, " p"],
        weights: Float32[Tensor, " p"],
        strength: Float32[Tensor, ""],
        start: Float32[Tensor, " n"],
        prediction: Float32[Tensor, " p"],
        iterations: int,
    ) -> tuple[Float32[Tensor, " n"], Float32[Tensor, " p"]]:
        """Amplitudes after some iterations from `start`, whose `prediction` is A c, and the prediction of them.

        Prior and preconditioner are those that the neighbours were given last.
        """
        operator, gains = self.operator, self.operator.pixel_gains
        # the kernels know no gains: they go into the weights
        self._weights.copy_(weights * gains * gains)
        self._strength.copy_(strength)
        self.amplitudes.copy_(start)
        self._predicted.copy_(prediction / gains)
        self._gradient.copy_(operator.adjoint(weights * (values - prediction)))
        self._gradient.sub_(self.neighbours.apply(self.amplitudes, self._strength))
        self._direction.copy_(self.neighbours.precondition(self._gradient))
        self._rho.copy_(torch.sum(self._gradient * self._direction))
        for _ in range(iterations):
            self._next()
        return self.amplitudes.clone(), self._predicted * gains

    def _iterate(self) -> None:
        """One iteration, in place: what is recorded reads and writes the same memory each time."""
        curved = self.operator.kernel.normal(self._direction, self._weights, self._along)
        curved = curved + self.neighbours.apply(self._direction, self._strength)
        done = self._rho <= 0
        # filled and not chosen from two: a number of the host's would have to be copied to the device
        step = (self._rho / torch.sum(self._direction * curved)).masked_fill(done, 0)
        self.amplitudes.addcmul_(step, self._direction)
        self._predicted.addcmul_(step, self._along)
        self._gradient.addcmul_(step, curved, value=-1)
        preconditioned = self.neighbours.precondition(self._gradient)
        rho = torch.sum(self._gradient * preconditioned)
        self._direction.mul_((rho / self._rho).masked_fill(done, 0)).add_(preconditioned)
        self._rho.copy_(torch.where(done, self._rho, rho))
