"""CPU backend of the lattice operator: calls the splat kernels on all cores."""

# Numba's intrinsics and star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from gsvr.field import Lattice
from gsvr.kernels import splat
from gsvr.kernels.culling import SliceWindows
from gsvr.kernels.simd import LANES
from gsvr.kernels.threads import parallel_for


class CpuKernel:
    """Prediction, derivatives and adjoint for one lattice and one set of poses (float32)."""

    name = "cpu"

    def __init__(self, lattice: Lattice, windows: SliceWindows) -> None:
        if lattice.shape[2] + LANES > splat.ROW_CAPACITY or windows.n_rows + LANES > splat.WINDOW_CAPACITY:
            raise ValueError(
                f"lattice rows of {lattice.shape[2]} sites or windows of {windows.n_rows} pixels are too long for the "
                "CPU kernels: use larger spacings"
            )
        self.lattice = lattice
        self.windows = windows
        occupied = lattice.support.any(axis=2)
        self._row_first = np.where(occupied, lattice.support.argmax(axis=2), 0)
        self._row_last = np.where(occupied, lattice.support.shape[2] - lattice.support[:, :, ::-1].argmax(axis=2), 0)
        width = -(-windows.n_columns // LANES) * LANES
        padded_sizes = (windows.shapes[:, 0] + 2 * windows.n_rows + 2) * (windows.shapes[:, 1] + 2 * width + 1)
        self._padded_first = np.concatenate([[0], np.cumsum(padded_sizes)]).astype(np.int64)

    def _geometry(self, sharpness: np.ndarray) -> tuple[np.ndarray, ...]:
        w = self.windows
        return (w.from_lattice, sharpness, w.reach, w.depth, w.peaks, w.offsets, w.depth_sharpness, w.shapes)

    def _predict(self, amplitudes: np.ndarray, n_planes: int) -> np.ndarray:
        windows = self.windows
        out = np.zeros((n_planes, int(windows.first_pixel[-1])), np.float32)
        amplitudes = np.ascontiguousarray(amplitudes, np.float32)
        geometry = self._geometry(windows.sharpness)

        def body(s: int) -> None:
            splat.predict_slice(
                s, amplitudes, self._row_first, self._row_last, *geometry, windows.first_pixel,
                windows.pixel_spacing, windows.n_rows, windows.n_columns, n_planes, out,
            )  # fmt: skip

        parallel_for(body, len(windows.shapes))
        return out

    def predict(self, amplitudes: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, " p"]:
        """Every pixel of every slice, A c."""
        return self._predict(amplitudes, 1)[0]

    def derivatives(self, amplitudes: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, "7 p"]:
        """Pixels and their derivatives in the slice frame.

        Rows: value; derivative with respect to d = pixel - Gaussian along u, v, w (intensity per mm);
        sum of the torques d x derivative about u, v, w (intensity).
        """
        return self._predict(amplitudes, splat.N_DERIVATIVE_PLANES)

    def _adjoint(self, pixels: np.ndarray, square: bool) -> np.ndarray:
        windows = self.windows
        padded = np.zeros(int(self._padded_first[-1]), np.float32)
        splat.pad_slices(
            np.ascontiguousarray(pixels, np.float32), windows.shapes, windows.first_pixel,
            windows.n_rows, windows.n_columns, padded, self._padded_first,
        )  # fmt: skip
        out = np.zeros(self.lattice.shape, np.float32)
        geometry = self._geometry(windows.sharpness * (2 if square else 1))

        def body(ix: int) -> None:
            splat.adjoint_plane(
                ix, padded, self._padded_first, self._row_first, self._row_last, *geometry,
                windows.n_rows, windows.n_columns, square, out,
            )  # fmt: skip

        parallel_for(body, self.lattice.shape[0])
        out *= self.lattice.support
        return out

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        """A^T r on the lattice's support."""
        return self._adjoint(pixels, square=False)

    def squared_adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        """(A * A)^T r: with pixel weights for r, the diagonal of A^T W A."""
        return self._adjoint(pixels, square=True)
