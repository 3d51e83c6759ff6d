"""The acquisition operator on a device, see `gsvr.operators.acquisition`: poses change in place, nothing is made anew."""

from __future__ import annotations

from types import ModuleType
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from gsvr.backends.torch.gaussians import DeviceGaussianKernel
from gsvr.backends.torch.lattice import TiledKernel
from gsvr.device_solver.device_slices import DeviceSlices
from gsvr.device_solver.rigid import invert
from gsvr.operators.acquisition import AcquisitionOperator

K = TypeVar("K", TiledKernel, DeviceGaussianKernel)


class GainedOperator(Generic[K]):
    """A kernel of either kind with the gains of the slices; amplitudes are as the kernel takes them."""

    def __init__(self, kernel: K, slices: DeviceSlices, gains: Float[np.ndarray, " n"] | Float[Tensor, " n"]) -> None:
        self.kernel = kernel
        self.slices = slices
        self.set_gains(torch.as_tensor(gains).to(slices.exact).to(slices.values.device))

    def set_gains(self, gains: Float[Tensor, " n"]) -> None:
        """Factor of every slice."""
        self.gains = gains
        self.pixel_gains = self.slices.per_pixel(gains)

    def predict(self, amplitudes: Float32[Tensor, "*sites"]) -> Float32[Tensor, " p"]:
        """Every pixel that is needed, A c."""
        return self.pixel_gains * self.kernel.predict(amplitudes)

    def adjoint(self, pixels: Float32[Tensor, " p"]) -> Float32[Tensor, "*sites"]:
        """A^T r."""
        return self.kernel.adjoint(pixels, self.pixel_gains)

    def diagonal(self, weights: Float32[Tensor, " p"]) -> Float32[Tensor, "*sites"]:
        """Diagonal of A^T diag(weights) A."""
        return self.kernel.squared_adjoint(self.pixel_gains**2 * weights)


class DeviceOperator(GainedOperator[TiledKernel]):
    """A for one lattice and one set of slices.

    Parameters
    ----------
    operator
        The same operator on the host: its lattice, windows, poses and gains are copied.
    slices
        Its slices on the device.
    kernels, deterministic, needed
        See `gsvr.backends.torch.lattice.TiledKernel`.
    """

    def __init__(
        self,
        operator: AcquisitionOperator,
        slices: DeviceSlices,
        kernels: ModuleType | None = None,
        deterministic: bool = False,
        needed: Bool[np.ndarray, " p"] | None = None,
    ) -> None:
        lattice, windows, device = operator.lattice, operator.windows, slices.values.device
        assert windows is not None
        super().__init__(TiledKernel(lattice, windows, device, kernels, deterministic, needed), slices, operator.gains)
        self.support = self.kernel.support
        self.n_sites = lattice.n_sites
        exact = slices.exact
        self._affine = torch.as_tensor(lattice.affine).to(exact).to(device)
        self._spacings = torch.as_tensor(windows.pixel_spacing).to(exact).to(device)
        self.poses = torch.as_tensor(operator.poses).to(exact).to(device)

    def set_poses(self, poses: Float[Tensor, "n 4 4"]) -> None:
        """Go to other poses."""
        self.poses = poses
        from_lattice = (self.slices.to_frame @ invert(poses) @ self._affine)[:, :3].clone()
        from_lattice[:, :2] /= self._spacings[:, :, None]
        self.kernel.move(from_lattice)

    def pose_derivatives(
        self, amplitudes: Float32[Tensor, "nx ny nz"]
    ) -> tuple[Float32[Tensor, " p"], Float32[Tensor, "6 p"]]:
        """Predicted pixels and their derivative by each slice's pose, see `gsvr.operators.acquisition.AcquisitionOperator`."""
        planes = self.kernel.derivatives(amplitudes)
        gradient, torque = planes[1:4], planes[4:7]
        u, v = self.slices.along_u, self.slices.along_v
        turns = [v * gradient[2] - torque[0], -u * gradient[2] - torque[1]]
        turns.append(u * gradient[1] - v * gradient[0] - torque[2])
        jacobian = torch.cat([torch.stack(turns), gradient])
        return self.pixel_gains * planes[0], self.pixel_gains * jacobian
