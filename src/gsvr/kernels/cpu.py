"""CPU backend of the lattice operator: plans and runs the splat kernels on all cores."""

# Numba's intrinsics and star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32

from gsvr.field import Lattice
from gsvr.kernels import plan, splat
from gsvr.kernels.culling import SliceWindows
from gsvr.kernels.lanes import LANES
from gsvr.kernels.threads import parallel_for, thread_count

_TASKS_PER_THREAD = 8


@dataclass(frozen=True)
class _Touched:
    """Sites [first, first + count) of lattice row (ix, iy) touch slice s; where the splats of (s, ix) start."""

    first: np.ndarray
    count: np.ndarray
    splat_first: np.ndarray


class CpuKernel:
    """Prediction, derivatives and adjoint for one lattice and one set of poses (float32)."""

    name = "cpu"

    def __init__(self, lattice: Lattice, windows: SliceWindows) -> None:
        self.lattice = lattice
        self.windows = windows
        self._n_rows, self._n_columns = windows.n_rows, windows.n_columns
        if lattice.shape[2] + LANES > plan.ROW_CAPACITY or self._n_rows + LANES > plan.WINDOW_CAPACITY:
            raise ValueError(
                f"lattice rows of {lattice.shape[2]} sites or windows of {self._n_rows} pixels are too long for the "
                "CPU kernels: use larger spacings"
            )
        width = -(-self._n_columns // LANES) * LANES
        padded_sizes = (windows.shapes[:, 0] + 2 * self._n_rows + 2) * (windows.shapes[:, 1] + 2 * width + 1)
        self._padded_first = np.concatenate([[0], np.cumsum(padded_sizes)]).astype(np.int64)

    @cached_property
    def _touched(self) -> _Touched:
        support, windows = self.lattice.support, self.windows
        nx, ny, nz = support.shape
        occupied = support.any(axis=2)
        row_first = np.where(occupied, support.argmax(axis=2), 0)
        row_last = np.where(occupied, nz - support[:, :, ::-1].argmax(axis=2), 0)
        n = len(windows.shapes)
        first, count = np.zeros((n, nx, ny), np.int16), np.zeros((n, nx, ny), np.int16)

        def body(s: int) -> None:
            plan.find_rows(
                s, row_first, row_last, windows.from_lattice, windows.reach, windows.depth, windows.shapes, nz,
                first, count,
            )  # fmt: skip

        parallel_for(body, n)
        ends = np.cumsum(count.sum(axis=2, dtype=np.int64).ravel()).reshape(n, nx)
        splat_first = np.empty((n, nx + 1), np.int64)
        splat_first[:, 1:] = ends
        splat_first[0, 0], splat_first[1:, 0] = 0, ends[:-1, -1]
        return _Touched(first, count, splat_first)

    @cached_property
    def _splats(self) -> tuple[np.ndarray, ...]:
        """Where each splat's window starts, its two ratios and its scale."""
        touched, w = self._touched, self.windows
        n = int(touched.splat_first[-1, -1])
        starts = np.empty(n, np.int32)
        ratios_u, ratios_v, scales = (np.empty(n + LANES, np.float32) for _ in range(3))

        def body(s: int) -> None:
            plan.fill_plan(
                s, touched.first, touched.count, touched.splat_first, w.from_lattice, w.sharpness, w.reach, w.peaks,
                w.offsets, w.depth_sharpness, w.shapes, self._n_rows, self._n_columns,
                starts, ratios_u, ratios_v, scales,
            )  # fmt: skip

        parallel_for(body, len(w.shapes))
        return starts, ratios_u, ratios_v, scales

    @property
    def n_splats(self) -> int:
        """Pairs of a Gaussian and a slice that touch: what the cost of one application grows with."""
        return int(self._touched.splat_first[-1, -1])

    def predict(self, amplitudes: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, " p"]:
        """Every pixel of every slice, A c."""
        touched, splats, w = self._touched, self._splats, self.windows
        out = np.zeros(int(w.first_pixel[-1]), np.float32)
        amplitudes = np.ascontiguousarray(amplitudes, np.float32)

        def body(s: int) -> None:
            splat.predict_slice(
                s, amplitudes, touched.first, touched.count, touched.splat_first, *splats, w.sharpness, w.reach,
                w.shapes, w.first_pixel, self._n_rows, self._n_columns, out,
            )  # fmt: skip

        parallel_for(body, len(w.shapes))
        return out

    def derivatives(self, amplitudes: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, "7 p"]:
        """Pixels and their derivatives in the slice frame.

        Rows: value; derivative with respect to d = pixel - Gaussian along u, v, w (intensity per mm);
        sum of the torques d x derivative about u, v, w (intensity).
        """
        touched, splats, w = self._touched, self._splats, self.windows
        out = np.zeros((splat.N_DERIVATIVE_PLANES, int(w.first_pixel[-1])), np.float32)
        amplitudes = np.ascontiguousarray(amplitudes, np.float32)

        def body(s: int) -> None:
            splat.differentiate_slice(
                s, amplitudes, touched.first, touched.count, touched.splat_first, *splats, w.from_lattice, w.sharpness,
                w.reach, w.peaks, w.offsets, w.depth_sharpness, w.shapes, w.first_pixel, w.pixel_spacing,
                self._n_rows, self._n_columns, out,
            )  # fmt: skip

        parallel_for(body, len(w.shapes))
        return out

    def _adjoint(self, pixels: np.ndarray, square: bool) -> np.ndarray:
        touched, splats, w = self._touched, self._splats, self.windows
        padded = np.zeros(int(self._padded_first[-1]), np.float32)
        pixels = np.ascontiguousarray(pixels, np.float32)
        splat.pad_slices(pixels, w.shapes, w.first_pixel, self._n_rows, self._n_columns, padded, self._padded_first)
        out = np.zeros(self.lattice.shape, np.float32)
        nx = self.lattice.shape[0]
        n_planes = min(max(nx // (_TASKS_PER_THREAD * thread_count()), 1), 8)
        sharpness = w.sharpness * (2 if square else 1)

        def body(block: int) -> None:
            splat.adjoint_planes(
                block * n_planes, min((block + 1) * n_planes, nx), padded, self._padded_first,
                touched.first, touched.count, touched.splat_first, *splats, sharpness,
                w.reach, w.shapes, self._n_rows, self._n_columns, square, out,
            )  # fmt: skip

        parallel_for(body, -(-nx // n_planes))
        out *= self.lattice.support
        return out

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        """A^T r on the lattice's support."""
        return self._adjoint(pixels, square=False)

    def squared_adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        """(A * A)^T r: with pixel weights for r, the diagonal of A^T W A."""
        return self._adjoint(pixels, square=True)
