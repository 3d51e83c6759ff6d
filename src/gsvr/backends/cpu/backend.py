"""The CPU: NumPy arrays, and kernels in C on all cores."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from threadpoolctl import threadpool_limits

from gsvr.backends.cpu.bonds import CpuBonds
from gsvr.backends.cpu.gaussians import CpuGaussianKernel
from gsvr.backends.cpu.lattice import CpuLatticeKernel
from gsvr.backends.cpu.links import CpuLinks
from gsvr.backends.cpu.planes import splat_on_planes
from gsvr.backends.planes import ParallelPlanes
from gsvr.backends.protocol import Backend, GaussianKernel, Kernel, LatticeBonds, NeighbourLinks, Pixels
from gsvr.backends.views import SliceViews
from gsvr.backends.windows import SliceWindows
from gsvr.compiled import run
from gsvr.model.fields import GaussianField, Lattice, LatticeField, lattice_values
from gsvr.model.neighbours import Neighbours
from gsvr.model.slices import Slices

# Numbers that one thread takes at a time.
_CHUNK = 16384
_PAIRS = np.array([(i, j) for i in range(6) for j in range(i, 6)])


class CpuPixels:
    """Pixels as NumPy arrays, see `gsvr.backends.protocol.Pixels`."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self.values: Float32[np.ndarray, " p"] = slices.values
        self.coverage: Float32[np.ndarray, " p"] = slices.coverage * slices.mask

    def per_pixel(self, per_slice: Float[np.ndarray, " n"]) -> Float32[np.ndarray, " p"]:
        return self._slices.per_pixel(per_slice.astype(np.float32))

    def sum_per_slice(self, flat: Float32[np.ndarray, " p"]) -> Float[np.ndarray, " n"]:
        return self._slices.sum_per_slice(flat)

    def pose_equations(
        self,
        planes: Float32[np.ndarray, "7 p"],
        gains: Float[np.ndarray, " n"],
        values: Float32[np.ndarray, " p"],
        weights: Float32[np.ndarray, " p"],
    ) -> tuple[Float[np.ndarray, "n 6 6"], Float[np.ndarray, "n 6"]]:
        """Made, multiplied and summed pixel by pixel (``compiled/c/pose_equations.c``): no Jacobian in memory."""
        slices = self._slices
        n = slices.n_slices
        sums, gradients = np.zeros((n, len(_PAIRS))), np.zeros((n, 6))
        run(
            "sum_pose_equations", n, planes, planes.shape[1], slices.shapes, slices.offsets, slices.pixel_spacings,
            gains, values, weights, sums, gradients,
        )  # fmt: skip
        curvature = np.empty((n, 6, 6))
        curvature[:, _PAIRS[:, 0], _PAIRS[:, 1]] = curvature[:, _PAIRS[:, 1], _PAIRS[:, 0]] = sums
        return curvature, gradients


class CpuBackend:
    """See `gsvr.backends.protocol.Backend`."""

    name = "cpu"

    def array(self, values: np.ndarray) -> Float32[np.ndarray, ...]:
        """The array itself, where it is float32."""
        return np.ascontiguousarray(values, np.float32)

    def host(self, values: np.ndarray) -> np.ndarray:
        """The array itself."""
        return values

    def pixels(self, slices: Slices) -> Pixels:
        return CpuPixels(slices)

    def lattice_kernel(self, lattice: Lattice, windows: SliceWindows) -> Kernel:
        return CpuLatticeKernel(lattice, windows)

    def gaussian_kernel(self, field: GaussianField, views: SliceViews) -> GaussianKernel:
        return CpuGaussianKernel(field, views)

    def lattice_bonds(self, lattice: Lattice, amplitudes: Float32[np.ndarray, "nx ny nz"], edge: float) -> LatticeBonds:
        return CpuBonds.between(lattice, amplitudes, edge)

    def neighbour_links(
        self, neighbours: Neighbours, amplitudes: Float32[np.ndarray, " n"], scale: float
    ) -> NeighbourLinks:
        return CpuLinks.between(neighbours, amplitudes, scale)

    def normalised_laplacian(self, neighbours: Neighbours) -> NeighbourLinks:
        return CpuLinks.normalised(neighbours)

    def step(
        self,
        size: float,
        direction: Float32[np.ndarray, "*sites"],
        curved: Float32[np.ndarray, "*sites"],
        amplitudes: Float32[np.ndarray, "*sites"],
        gradient: Float32[np.ndarray, "*sites"],
    ) -> None:
        """Both updates in one pass over memory (``compiled/c/conjugate_gradients.c``)."""
        n = direction.size
        run("step_conjugate_gradients", -(-n // _CHUNK), _CHUNK, n, size, direction, curved, amplitudes, gradient)

    def sample_planes(
        self, field: GaussianField, planes: ParallelPlanes, cutoff: float
    ) -> Float32[np.ndarray, "planes rows columns"]:
        amplitudes = field.amplitudes.astype(np.float32)
        if field.normalisation is None:
            return splat_on_planes(field, amplitudes, planes, cutoff, exact=True)
        values = splat_on_planes(field, amplitudes, planes, cutoff, exact=False)
        density = splat_on_planes(field, np.ones_like(amplitudes), planes, cutoff, exact=False)
        return values / (density + np.float32(field.normalisation))

    def sample_lattice(
        self, field: LatticeField, axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> Float32[np.ndarray, "nx ny nz"]:
        # products this short are slower on two threads than on one as soon as the machine does anything else
        with threadpool_limits(1, "blas"):
            return lattice_values(field, axes)


_: Backend = CpuBackend()  # the type checker compares it with the protocol
