"""Backends of the acquisition operator. The choice is explicit and logged; nothing falls back silently."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from gsvr.errors import InputError
from gsvr.field import GaussianField, Lattice
from gsvr.kernels.culling import SliceWindows
from gsvr.kernels.gaussian_views import SliceViews

logger = logging.getLogger(__name__)


@runtime_checkable
class Kernel(Protocol):
    """What every backend computes for some Gaussians and some slices (without slice gains).

    Amplitudes, and all that is one number a Gaussian, have the lattice's shape or are flat for free Gaussians.
    """

    name: str

    def predict(self, amplitudes: Float32[np.ndarray, "*sites"]) -> Float32[np.ndarray, " p"]:
        """Pixels A c."""
        ...

    def derivatives(self, amplitudes: Float32[np.ndarray, "*sites"]) -> Float32[np.ndarray, "7 p"]:
        """Pixel, its derivative by d = pixel - Gaussian (3), and the torques (3), in the slice frame.

        A slice that turns about a point sees the derivative (pixel - point) x (derivative by d) - torque.
        """
        ...

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "*sites"]:
        """A^T r."""
        ...

    def squared_adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "*sites"]:
        """(A * A)^T r."""
        ...


@dataclass(frozen=True)
class GeometryGradient:
    """Gradient of sum_p r_p (A c)_p by the geometry of free Gaussians and by the poses of the slices.

    Attributes
    ----------
    means
        By mu_j (per mm).
    covariances
        By Sigma_j (per mm^2): symmetric, such that a change D of Sigma_j changes the sum by the trace of gradient x D.
    poses
        By each slice's pose: rotation vector about its centre (per rad) and translation (per mm), in its frame, as in
        `gsvr.forward.moved_poses`.
    """

    means: Float[np.ndarray, "n 3"]
    covariances: Float[np.ndarray, "n 3 3"]
    poses: Float[np.ndarray, "slices 6"]


@runtime_checkable
class GaussianKernel(Kernel, Protocol):
    """A kernel of free Gaussians can be differentiated by their geometry."""

    def gradient(
        self,
        amplitudes: Float32[np.ndarray, " n"],
        pixels: Float32[np.ndarray, " p"],
        density_pixels: Float32[np.ndarray, " p"] | None = None,
    ) -> GeometryGradient:
        """Gradient of <r, A c> by geometry and poses, and of <t, A 1> on top if `density_pixels` t are given."""
        ...


# C on the CPU; plain PyTorch on the CPU without tiles; Triton (cuda, cuda:1, ...); plain PyTorch on an Apple GPU
BACKENDS = ("cpu", "reference", "cuda", "mps")


def on_device(backend: str) -> bool:
    """Whether a backend keeps its arrays on a graphics card."""
    return backend.partition(":")[0] in ("cuda", "mps")


def rendering_device(backend: str) -> str | None:
    """Device on which a field is rendered that was fitted by a backend, or None: the host, as for all but cards.

    Raises
    ------
    InputError
        If the backend is unknown.
    """
    if backend not in ("cpu", "reference") and not on_device(backend):
        raise _unknown(backend)
    return backend if on_device(backend) else None


def _unknown(backend: str) -> InputError:
    return InputError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")


def lattice_kernel(backend: str, lattice: Lattice, windows: SliceWindows) -> Kernel:
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
    raise _unknown(backend)


def backend_with_free_gaussians(backend: str) -> str:
    """The backend itself or, where it has no kernels for free Gaussians, the CPU's, which is logged."""
    if backend != "reference":
        return backend
    logger.info("free Gaussians are for the CPU's kernels, not for backend %r", backend)
    return "cpu"


def gaussian_kernel(backend: str, field: GaussianField, views: SliceViews) -> GaussianKernel:
    """Build the kernel of a backend for free Gaussians.

    Raises
    ------
    InputError
        If the backend has none.
    """
    logger.debug("operator on backend %r: %d free Gaussians, %d slices", backend, len(field.means), len(views.shapes))
    if backend == "cpu":
        from gsvr.kernels.gaussian_cpu import CpuGaussianKernel

        return CpuGaussianKernel(field, views)
    if on_device(backend):
        from gsvr.kernels.gaussian_tiled import HostGaussianKernel

        return HostGaussianKernel(field, views, backend)
    raise InputError(f"backend {backend!r} has no kernels for free Gaussians: choose cpu, cuda or mps")
