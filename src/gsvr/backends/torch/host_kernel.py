"""A kernel of a device with arrays of the host in and out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

DeviceKernel = TypeVar("DeviceKernel", bound=Any)


class HostKernel(Generic[DeviceKernel]):
    """Fills `gsvr.backends.Kernel` by a kernel that computes with tensors, made at the first application.

    Parameters
    ----------
    name
        Backend.
    make
        Makes the kernel on the device.
    """

    def __init__(self, name: str, make: Callable[[], DeviceKernel]) -> None:
        self.name = name
        self._make = make

    @cached_property
    def kernel(self) -> DeviceKernel:
        """The kernel on the device."""
        return self._make()

    def tensor(self, values: np.ndarray) -> Tensor:
        """An array on the device."""
        return torch.as_tensor(np.ascontiguousarray(values, np.float32)).to(self.kernel.device)

    def predict(self, amplitudes: Float32[np.ndarray, "*sites"]) -> Float32[np.ndarray, " p"]:
        """Pixels A c."""
        return self.kernel.predict(self.tensor(amplitudes)).cpu().numpy()

    def derivatives(self, amplitudes: Float32[np.ndarray, "*sites"]) -> Float32[np.ndarray, "7 p"]:
        """Pixels, their derivatives by d = pixel - Gaussian, and torques, in the slice frame."""
        return self.kernel.derivatives(self.tensor(amplitudes)).cpu().numpy()

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "*sites"]:
        """A^T r."""
        return self.kernel.adjoint(self.tensor(pixels)).cpu().numpy()

    def squared_adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "*sites"]:
        """(A * A)^T r."""
        return self.kernel.squared_adjoint(self.tensor(pixels)).cpu().numpy()
