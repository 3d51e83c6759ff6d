"""The functions of `plain_tiles`, run by Triton kernels.

Without a card they run in Triton's interpreter, if TRITON_INTERPRET=1 is set before this module is imported.
"""

# pyright: reportIndexIssue=false, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float32
from torch import Tensor

from gsvr.backends.torch.lattice_tiles import TileLists
from gsvr.backends.triton.lattice_derivatives import differentiate_kernel
from gsvr.backends.triton.lattice_products import adjoint_kernel, normal_kernel, predict_kernel
from gsvr.backends.triton.lattice_tiles import fill_kernel


@dataclass(frozen=True)
class Launch:
    """How a kernel is compiled: sites a chunk, warps a tile, and how matrix products round their inputs.

    ``"ieee"`` is float32; ``"tf32"`` uses tensor cores with ten bits of mantissa.
    """

    sites: int = 32
    warps: int = 1
    precision: str = "ieee"


USUAL = Launch()
# Seven sums in registers are too many for one warp.
DERIVATIVES = Launch(warps=4)
# Lattice rows looked at together when lists are filled.
_ROWS = 128


def _arrays(lists: TileLists) -> tuple[Tensor, ...]:
    return lists.frames, lists.boxes, lists.constants, lists.pixels, lists.first, lists.count, lists.sites


def _sizes(lists: TileLists) -> tuple[int, int, int]:
    return lists.shape[1], lists.shape[2], lists.constants.shape[1]


def _constants(lists: TileLists, launch: Launch) -> dict:
    return {
        "MIXTURE": lists.n_components,
        "SITES": launch.sites,
        "PRECISION": launch.precision,
        "num_warps": launch.warps,
    }


def fill(lists: TileLists) -> None:
    """Find the sites of every tile."""
    fill_kernel[(lists.n_tiles,)](
        lists.frames, lists.boxes, lists.extents, lists.row_ends, lists.first, lists.count, lists.sites,
        lists.shape[1], ROWS=_ROWS,
    )  # fmt: skip


def predict(
    lists: TileLists,
    amplitudes: Float32[Tensor, "nx ny nz"],
    out: Float32[Tensor, " p"],
    launch: Launch = USUAL,
) -> None:
    """A c into `out`, for the pixels of all tiles."""
    predict_kernel[(lists.n_tiles,)](
        *_arrays(lists), amplitudes.contiguous(), out, *_sizes(lists), **_constants(lists, launch)
    )


def differentiate(
    lists: TileLists,
    amplitudes: Float32[Tensor, "nx ny nz"],
    out: Float32[Tensor, "7 p"],
    launch: Launch = DERIVATIVES,
) -> None:
    """Pixels, derivative by d = pixel - Gaussian (mm), and d x derivative, in the slice frame."""
    differentiate_kernel[(lists.n_tiles,)](
        *_arrays(lists), amplitudes.contiguous(), out, out.shape[1], *_sizes(lists), **_constants(lists, launch)
    )


def adjoint(
    lists: TileLists,
    pixels: Float32[Tensor, " p"],
    weights: Float32[Tensor, " p"] | None,
    out: Tensor,
    power: int = 1,
    scale: Tensor | None = None,
    launch: Launch = USUAL,
) -> None:
    """Add A^T (weights pixels) to `out`; for `power` 2 with squared factors; with a `scale` as whole numbers."""
    values = pixels.contiguous()
    adjoint_kernel[(lists.n_tiles,)](
        *_arrays(lists), values, values if weights is None else weights, values if scale is None else scale, out,
        *_sizes(lists), POWER=power, EXACT=scale is not None, WEIGHTED=weights is not None,
        **_constants(lists, launch),
    )  # fmt: skip


def normal(
    lists: TileLists,
    amplitudes: Float32[Tensor, "nx ny nz"],
    weights: Float32[Tensor, " p"],
    along: Float32[Tensor, " p"],
    out: Float32[Tensor, "nx ny nz"],
    launch: Launch = USUAL,
) -> None:
    """A c into `along`, and add A^T (weights A c) to `out`, in one pass over the tiles."""
    normal_kernel[(lists.n_tiles,)](
        *_arrays(lists), amplitudes.contiguous(), weights, along, out, *_sizes(lists), **_constants(lists, launch)
    )
