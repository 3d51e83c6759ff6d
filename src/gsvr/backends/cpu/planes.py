"""Free Gaussians on parallel planes, such as those of a volume: added one by one, and nothing is planned in advance.

A slice of an acquisition is predicted again and again, so its splats are planned once (see `gaussian_plan`). A picture
is made once: planning it would take longer than making it, and for the many planes of a volume the plan would be large.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float32

from gsvr.backends.planes import ParallelPlanes
from gsvr.compiled import Structure, constant, run
from gsvr.model.fields import GaussianField

# Planes that one thread works on at a time.
_SLAB = 8
# A single plane is cut into so many strips, which share the threads.
_STRIPS = 8
# Gaussians that one thread looks at in turn.
_CHUNK = 4096
# Side of the cells (mm) that Gaussians are sorted into, so that neighbours in memory are neighbours in space.
_CELL = 4.0


def splat_on_planes(
    field: GaussianField, amplitudes: Float32[np.ndarray, " n"], planes: ParallelPlanes, cutoff: float, exact: bool
) -> Float32[np.ndarray, "planes rows columns"]:
    """Sum of the field's Gaussians, with these amplitudes, at all points.

    A term is left out where it is below exp(-cutoff^2 / 2) of its peak. `exact`: see `gsvr.backends.views.SliceViews`.
    """
    structure = Structure(
        "parallel_planes",
        n_components=len(planes.weights),
        exact=int(exact),
        cutoff=float(cutoff),
        shape=np.array(planes.shape, np.int64),
        spacing=np.array(planes.spacing, np.float64),
        to_planes=np.ascontiguousarray(planes.to_planes, np.float64),
        weights=np.ascontiguousarray(planes.weights, np.float64),
        offsets=np.ascontiguousarray(planes.offsets, np.float64),
        variances=np.ascontiguousarray(planes.variances, np.float64),
    )
    n = len(amplitudes)
    turned, counts = np.empty((n, constant("TURNED_SIZE"))), np.zeros(-(-n // _CHUNK), np.int64)
    numbers = (field.means, field.log_scales, field.quaternions, amplitudes)
    arrays = (np.ascontiguousarray(values, np.float32) for values in numbers)
    run("turn_gaussians", len(counts), _CHUNK, n, structure, *arrays, turned, counts)
    # the Gaussians of every chunk stand at its beginning
    chosen = np.arange(counts.sum()) + np.repeat(np.arange(len(counts)) * _CHUNK - np.cumsum(counts) + counts, counts)
    chosen, parts = _strips(planes, chosen) if planes.shape[0] == 1 else _slabs(planes, turned, chosen)
    out = np.empty(planes.shape, np.float32)
    run("add_to_planes", len(parts), structure, turned, chosen, parts, out)
    return out


def _strips(planes: ParallelPlanes, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians and parts (see `gaussian_kernels.h`) of a single plane: nothing has to be sorted."""
    n_rows = planes.shape[1]
    n_strips = min(_STRIPS, n_rows)
    edges = np.arange(n_strips + 1) * n_rows // n_strips
    parts = [(0, 1, row, end - row, 0, len(chosen)) for row, end in pairwise(edges)]
    return chosen, np.array(parts, np.int64)


def _slabs(planes: ParallelPlanes, turned: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians sorted by cells, planes upon planes, and parts of some planes each."""
    most = float(turned[chosen, constant("TURNED_REACH")].max(initial=0.0))
    places = np.floor(turned[chosen, :3] / _CELL).astype(np.int64)
    u, v, heights = (places - places.min(axis=0, initial=0)).T
    order = np.argsort((heights * (v.max(initial=0) + 1) + v) * (u.max(initial=0) + 1) + u, kind="stable")
    cells = places[order, 2]
    first = np.arange(0, planes.shape[0], _SLAB)
    count = np.minimum(_SLAB, planes.shape[0] - first)
    low, high = first * planes.spacing[0], (first + count - 1) * planes.spacing[0]
    begin = np.searchsorted(cells, np.floor((low - most) / _CELL), "left")
    end = np.searchsorted(cells, np.floor((high + most) / _CELL), "right")
    rows = np.full_like(first, planes.shape[1])
    return chosen[order], np.column_stack([first, count, np.zeros_like(first), rows, begin, end])
