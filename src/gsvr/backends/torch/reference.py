"""Plain PyTorch definition of the acquisition of a lattice: what every fast lattice kernel is tested against.

In the frame of a slice an isotropic Gaussian stays a product of three 1-D functions, so a slice is one matrix product
E_u diag(c f) E_v^T. Nothing is cut off in the plane; through the plane the windows of `kernels.culling` decide which
Gaussians are looked at. The definition for free Gaussians, of which this is a case, is in `kernels.gaussian_reference`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsvr.backends.windows import SliceWindows
from gsvr.model.fields import Lattice


@dataclass(frozen=True)
class _Factors:
    """What one slice sees: sites (indices into the support), and factors of each blurred Gaussian.

    Distances are pixel minus Gaussian in mm: `du` (n_u, sites), `dv` (n_v, sites), `dw` (sites).
    """

    sites: Tensor
    du: Tensor
    dv: Tensor
    dw: Tensor
    along_u: Tensor
    along_v: Tensor
    through: Tensor
    slope: Tensor


class ReferenceKernel:
    """The lattice operator in plain PyTorch, in float64 or float32."""

    name = "reference"

    def __init__(self, lattice: Lattice, windows: SliceWindows, dtype: torch.dtype = torch.float32) -> None:
        self.lattice = lattice
        self.windows = windows
        self.dtype = dtype
        self._sites = torch.as_tensor(np.argwhere(lattice.support), dtype=torch.float64)
        self._mm_sharpness = windows.sharpness / windows.pixel_spacing**2

    def _factors(self, s: int) -> _Factors:
        windows = self.windows
        matrix = torch.as_tensor(windows.from_lattice[s])
        local = self._sites @ matrix[:, :3].T + matrix[:, 3]
        low, high = windows.depth[s]
        sites = ((local[:, 2] >= low) & (local[:, 2] <= high)).nonzero()[:, 0]
        local = local[sites]
        n_u, n_v = windows.shapes[s]
        du = (torch.arange(int(n_u))[:, None] - local[:, 0]) * windows.pixel_spacing[s, 0]
        dv = (torch.arange(int(n_v))[:, None] - local[:, 1]) * windows.pixel_spacing[s, 1]
        dw = -local[:, 2]
        through, slope = torch.zeros_like(dw), torch.zeros_like(dw)
        for m in range(windows.peaks.shape[1]):
            distance, sharpness = dw + windows.offsets[s, m], windows.depth_sharpness[s, m]
            part = windows.peaks[s, m] * torch.exp(-sharpness * distance**2)
            through += part
            slope -= 2 * sharpness * distance * part
        sharp_u, sharp_v = self._mm_sharpness[s]
        along_u, along_v = torch.exp(-sharp_u * du**2), torch.exp(-sharp_v * dv**2)
        parts = (du, dv, dw, along_u, along_v, through, slope)
        return _Factors(sites, *(part.to(self.dtype) for part in parts))

    def _site_values(self, grid: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(grid)[self.lattice.support], dtype=self.dtype)

    def _grid(self, values: Tensor) -> np.ndarray:
        grid = np.zeros(self.lattice.shape, values.numpy().dtype)
        grid[self.lattice.support] = values.numpy()
        return grid

    def predict(self, amplitudes: Float[np.ndarray, "nx ny nz"]) -> Float[np.ndarray, " p"]:
        """Pixels A c."""
        values = self._site_values(amplitudes)
        images = []
        for s in range(len(self.windows.shapes)):
            f = self._factors(s)
            images.append(((f.along_u * (values[f.sites] * f.through)) @ f.along_v.T).reshape(-1))
        return torch.cat(images).numpy()

    def derivatives(self, amplitudes: Float[np.ndarray, "nx ny nz"]) -> Float[np.ndarray, "7 p"]:
        """Pixels, derivative by d = pixel - Gaussian, and d x derivative, in the slice frame."""
        values = self._site_values(amplitudes)
        images = []
        for s in range(len(self.windows.shapes)):
            f = self._factors(s)
            c = values[f.sites]
            u, v = f.along_u, f.along_v
            qu, qv = (2 * float(sharp) for sharp in self._mm_sharpness[s])
            u1, v1 = f.du * u, f.dv * v
            planes = (
                (u * (c * f.through)) @ v.T,
                (u1 * (-qu * c * f.through)) @ v.T,
                (u * (-qv * c * f.through)) @ v1.T,
                (u * (c * f.slope)) @ v.T,
                (u * (c * (f.slope + qv * f.dw * f.through))) @ v1.T,
                (u1 * (-c * (f.slope + qu * f.dw * f.through))) @ v.T,
                (u1 * ((qu - qv) * c * f.through)) @ v1.T,
            )
            images.append(torch.stack([plane.reshape(-1) for plane in planes]))
        return torch.cat(images, 1).numpy()

    def _transposed(self, pixels: np.ndarray, power: int) -> np.ndarray:
        flat = torch.as_tensor(np.asarray(pixels), dtype=self.dtype)
        total = torch.zeros(len(self._sites), dtype=self.dtype)
        for s, (n_u, n_v) in enumerate(self.windows.shapes):
            f = self._factors(s)
            first = int(self.windows.first_pixel[s])
            image = flat[first : first + int(n_u * n_v)].reshape(int(n_u), int(n_v))
            u, v, through = f.along_u**power, f.along_v**power, f.through**power
            total.index_add_(0, f.sites, through * (u * (image @ v)).sum(0))
        return self._grid(total)

    def adjoint(self, pixels: Float[np.ndarray, " p"]) -> Float[np.ndarray, "nx ny nz"]:
        """A^T r."""
        return self._transposed(pixels, 1)

    def squared_adjoint(self, pixels: Float[np.ndarray, " p"]) -> Float[np.ndarray, "nx ny nz"]:
        """(A * A)^T r."""
        return self._transposed(pixels, 2)
