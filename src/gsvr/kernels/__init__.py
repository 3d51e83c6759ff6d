"""Backends of the acquisition operator. The choice is explicit and logged; nothing falls back silently."""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from gsvr.errors import InputError
from gsvr.field import Lattice
from gsvr.kernels.culling import SliceWindows

logger = logging.getLogger(__name__)


@runtime_checkable
class LatticeKernel(Protocol):
    """What every backend computes for a lattice of equal isotropic Gaussians (without slice gains)."""

    name: str

    def predict(self, amplitudes: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, " p"]:
        """Pixels A c."""
        ...

    def derivatives(self, amplitudes: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, "7 p"]:
        """Pixels, derivative by d = pixel - Gaussian (3), and d x derivative (3), in the slice frame."""
        ...

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        """A^T r."""
        ...

    def squared_adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        """(A * A)^T r."""
        ...


# Numba on the CPU; plain PyTorch on the CPU without tiles; Triton (cuda, cuda:1, ...); plain PyTorch on an Apple GPU
BACKENDS = ("cpu", "reference", "cuda", "mps")


def on_device(backend: str) -> bool:
    """Whether a backend keeps its arrays on a graphics card."""
    return backend.partition(":")[0] in ("cuda", "mps")


def lattice_kernel(backend: str, lattice: Lattice, windows: SliceWindows) -> LatticeKernel:
    """Build the kernel of a backend.

    Raises
    ------
    InputError
        If the backend is unknown or needs a package that is not installed.
    """
    logger.debug("operator on backend %r: %d Gaussians, %d slices", backend, lattice.n_sites, len(windows.shapes))
    if backend == "cpu":
        from gsvr.kernels.cpu import CpuKernel

        return CpuKernel(lattice, windows)
    if backend == "reference":
        try:
            from gsvr.kernels.reference import ReferenceKernel
        except ImportError as error:
            raise InputError(
                "the reference backend needs PyTorch: install it with `pip install gsvr[torch]`"
            ) from error
        return ReferenceKernel(lattice, windows)
    if on_device(backend):
        from gsvr.kernels.tiled import HostTiledKernel

        return HostTiledKernel(lattice, windows, backend)
    raise InputError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
