"""CPU backend of the lattice operator: plans splats and runs the kernels in C on all cores.

A *splat* is one Gaussian seen by one slice: a window of pixels, an outer product E_u(u) E_v(v) times f(w). Along
pixels a Gaussian is ratio^l times a table, so a splat is four numbers: where its window starts, two ratios, and a
scale. They depend on poses but not on amplitudes: a plan holds them for all applications of the operator at the same
poses (16 bytes a splat). The adjoint is the same loop as prediction with a dot product in place of the outer one, so
that it is the exact transpose.

Prediction is parallel over slices and the adjoint over planes of the lattice, so no two threads write to one
place and the result does not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from gsvr import compiled
from gsvr.backends.windows import SliceWindows
from gsvr.compiled import LANES, Structure
from gsvr.compiled.threads import Lazy, thread_count
from gsvr.model.fields import Lattice

# Order of the derivative planes: value, d/du, d/dv, d/dw, torque about u, v, w.
N_DERIVATIVE_PLANES = 7
_TASKS_PER_THREAD = 8
# Sites of a lattice row are counted in 16 bits.
_LONGEST_ROW = 2**15 - 1


class CpuLatticeKernel:
    """See `gsvr.backends.protocol.Kernel`: one lattice and one set of poses (float32)."""

    def __init__(self, lattice: Lattice, windows: SliceWindows) -> None:
        if lattice.shape[2] > _LONGEST_ROW:
            raise ValueError(f"lattice rows of {lattice.shape[2]} sites are too long: use larger spacings")
        self.lattice = lattice
        self.windows = windows
        # as `frame_size` of lattice_row.h
        width = -(-windows.n_columns // LANES) * LANES
        framed_sizes = (windows.shapes[:, 0] + 2 * windows.n_rows + 2) * (windows.shapes[:, 1] + 2 * width + 1)
        self._frame_first = np.concatenate([[0], np.cumsum(framed_sizes)]).astype(np.int64)
        self._frames: list[np.ndarray] = []
        self._c_windows = _structure(windows)

    @Lazy
    def _touched(self) -> tuple[Structure, np.ndarray]:
        """Sites of every lattice row that touch a slice, and where the splats of each (slice, plane) start."""
        nx, ny, nz = self.lattice.shape
        row_first, row_last = (np.ascontiguousarray(ends) for ends in np.moveaxis(self.lattice.row_ends, 2, 0))
        n = len(self.windows.shapes)
        first, count = np.zeros((n, nx, ny), np.int16), np.zeros((n, nx, ny), np.int16)
        in_planes = np.empty((n, nx), np.int64)
        compiled.run("find_touched_sites", n, self._c_windows, nx, ny, nz, row_first, row_last, first, count, in_planes)
        ends = np.cumsum(in_planes.ravel()).reshape(n, nx)
        splat_first = np.empty((n, nx + 1), np.int64)
        splat_first[:, 1:] = ends
        splat_first[0, 0], splat_first[1:, 0] = 0, ends[:-1, -1]
        sites = Structure("touched_sites", nx=nx, ny=ny, nz=nz, first=first, count=count, splat_first=splat_first)
        return sites, splat_first

    @Lazy
    def _splats(self) -> Structure:
        """Where each splat's window starts, its two ratios and its scale."""
        touched, _ = self._touched
        starts = np.empty(self.n_splats, np.int32)
        ratios_u, ratios_v, scales = (np.empty(self.n_splats + LANES, np.float32) for _ in range(3))
        for numbers in (ratios_u, ratios_v, scales):
            numbers[self.n_splats :] = 0
        n = len(self.windows.shapes)
        compiled.run("plan_lattice", n, self._c_windows, touched, starts, ratios_u, ratios_v, scales)
        return Structure("lattice_splats", starts=starts, ratios_u=ratios_u, ratios_v=ratios_v, scales=scales)

    @property
    def n_splats(self) -> int:
        """Pairs of a Gaussian and a slice that touch: what the cost of one application grows with."""
        return int(self._touched[1][-1, -1])

    def predict(self, amplitudes: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, " p"]:
        out = np.empty(int(self.windows.first_pixel[-1]), np.float32)
        amplitudes = np.ascontiguousarray(amplitudes, np.float32)
        n = len(self.windows.shapes)
        compiled.run("predict_lattice", n, self._c_windows, self._touched[0], self._splats, amplitudes, out)
        return out

    def derivatives(self, amplitudes: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, "7 p"]:
        n, n_pixels = len(self.windows.shapes), int(self.windows.first_pixel[-1])
        out = np.empty((N_DERIVATIVE_PLANES, n_pixels), np.float32)
        amplitudes = np.ascontiguousarray(amplitudes, np.float32)
        compiled.run(
            "differentiate_lattice", n, self._c_windows, self._touched[0], self._splats, amplitudes, n_pixels, out
        )
        return out

    def _adjoint(self, pixels: np.ndarray, square: bool) -> np.ndarray:
        windows, n = self.windows, len(self.windows.shapes)
        pixels = np.ascontiguousarray(pixels, np.float32)
        # kept, since fresh memory costs as much as copying; not shared by threads that come here at once
        framed = self._frames.pop() if self._frames else np.empty(int(self._frame_first[-1]), np.float32)
        compiled.run("frame_lattice_slices", n, self._c_windows, pixels, self._frame_first, framed)
        out = np.zeros(self.lattice.shape, np.float32)
        nx = self.lattice.shape[0]
        n_planes = min(max(nx // (_TASKS_PER_THREAD * thread_count()), 1), 8)
        c_windows = _structure(replace(windows, sharpness=2 * windows.sharpness)) if square else self._c_windows
        compiled.run(
            "adjoint_lattice", -(-nx // n_planes), n_planes, n, c_windows, self._touched[0], self._splats, framed,
            self._frame_first, square, out,
        )  # fmt: skip
        self._frames.append(framed)
        out *= self.lattice.support
        return out

    def adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        """A^T r on the lattice's support."""
        return self._adjoint(pixels, square=False)

    def squared_adjoint(self, pixels: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, "nx ny nz"]:
        return self._adjoint(pixels, square=True)


def _structure(windows: SliceWindows) -> Structure:
    """Windows as the kernels take them."""
    return Structure(
        "slice_windows",
        n_components=windows.peaks.shape[1],
        n_rows=windows.n_rows,
        n_columns=windows.n_columns,
        **{name: np.ascontiguousarray(array) for name, array in vars(windows).items()},
    )
