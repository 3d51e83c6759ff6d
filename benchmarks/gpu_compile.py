"""Compile the kernels for cards that are not there: ``python -m benchmarks.gpu_compile 7.0 8.0 9.0``.

That shows that they compile, and what they consist of: registers, bytes of shared memory, and instructions, counted
in the listing of the machine code, of which the body of the loop over chunks is most. No time follows from these
counts.
"""

# Triton's compiler has no types.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gsvr.backends.triton import bonds as triton_prior
from gsvr.backends.triton import gaussians as triton_gaussians
from gsvr.backends.triton import lattice_derivatives as triton_derivatives
from gsvr.backends.triton import lattice_products as triton_products
from gsvr.backends.triton import lattice_tiles as triton_tiles
from gsvr.backends.triton.lattice import DERIVATIVES, USUAL

_FLOATS = (
    "frames",
    "constants",
    "amplitudes",
    "weights",
    "values",
    "scale",
    "along",
    "out",
    "factors",
    "bonds",
    "strength",
    "forms",
    "depths",
    "density",
)
_TYPES = {
    **dict.fromkeys(_FLOATS, "*fp32"),
    **dict.fromkeys(("boxes", "pixels", "counts", "count", "sites", "row_ends", "present", "offsets"), "*i32"),
    **dict.fromkeys(("corners", "splats", "gaussians", "starts"), "*i32"),
    **dict.fromkeys(("ny", "nz", "width", "n_pixels", "n"), "i32"),
    "first": "*i64",
    "extents": "*fp64",
    "edge": "fp32",
}

_WARPS = {
    "derivatives": DERIVATIVES.warps,
    "free, derivatives": triton_gaussians.DERIVATIVE_WARPS,
    # Triton's own choice
    **dict.fromkeys(("fill", "prior", "prior, diagonal", "prior, new weights"), 4),
}
# Older machine code is made, but the tools that come with Triton cannot list it.
_LEAST_LISTED = 75
_OPERATIONS = {
    "multiply_adds": ("FFMA",),
    "exponentials": ("MUFU",),
    "tensor_core_products": ("HMMA",),
    "shared_memory": ("LDS", "STS", "LDSM"),
    "other_lanes": ("SHFL",),
    "barriers": ("BAR",),
    "spills": ("STL", "LDL"),
}


def kernels(precision: str) -> dict[str, tuple[Any, dict[str, Any], dict[str, str]]]:
    """Every kernel with its constants, and types of arguments that differ from the usual."""
    tile = {"MIXTURE": 2, "SITES": USUAL.sites, "PRECISION": precision}
    adjoint = {**tile, "POWER": 1, "EXACT": False, "WEIGHTED": True}
    free = {"WIDTH": 11, "CHUNK": triton_gaussians.CHUNK}
    free_adjoint = {**free, "POWER": 1, "EXACT": False, "WEIGHTED": True}
    prior = {"DIRECTIONS": 13, "SITES": triton_prior.BLOCK}
    return {
        "fill": (triton_tiles.fill_kernel, {"ROWS": 128}, {}),
        "predict": (triton_products.predict_kernel, tile, {}),
        "adjoint": (triton_products.adjoint_kernel, adjoint, {}),
        "squared adjoint": (triton_products.adjoint_kernel, {**adjoint, "POWER": 2, "WEIGHTED": False}, {}),
        "adjoint, deterministic": (triton_products.adjoint_kernel, {**adjoint, "EXACT": True}, {"out": "*i64"}),
        "normal product": (triton_products.normal_kernel, tile, {}),
        "derivatives": (triton_derivatives.differentiate_kernel, tile, {}),
        "prior": (triton_prior.apply_kernel, {**prior, "DIAGONAL": False}, {"values": "*fp32"}),
        "prior, diagonal": (triton_prior.apply_kernel, {**prior, "DIAGONAL": True}, {"values": "*fp32"}),
        "prior, new weights": (triton_prior.bonds_kernel, prior, {}),
        "free, predict": (triton_gaussians.predict_kernel, free, {}),
        "free, adjoint": (triton_gaussians.adjoint_kernel, free_adjoint, {}),
        "free, squared adjoint": (
            triton_gaussians.adjoint_kernel,
            {**free_adjoint, "POWER": 2, "WEIGHTED": False},
            {},
        ),
        "free, adjoint, deterministic": (
            triton_gaussians.adjoint_kernel,
            {**free_adjoint, "EXACT": True},
            {"out": "*i64"},
        ),
        "free, moments": (triton_gaussians.moments_kernel, free, {}),
        "free, derivatives": (triton_gaussians.differentiate_kernel, {"WIDTH": 11, "PEAKS": True}, {}),
    }


def compile_all(capability: int, precision: str = USUAL.precision) -> dict[str, dict[str, int]]:
    """Compile every kernel for a compute capability (90 for 9.0) as it is launched, and count."""
    found = {}
    for name, (kernel, constants, types) in kernels(precision).items():
        signature = {
            argument: "constexpr" if argument in constants else {**_TYPES, **types}[argument]
            for argument in kernel.arg_names
        }
        constexprs = {(kernel.arg_names.index(argument),): value for argument, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
        warps = _WARPS.get(name, USUAL.warps)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
        counts = _counts(compiled.asm["cubin"]) if capability >= _LEAST_LISTED else {}
        found[name] = counts | {"shared_bytes": compiled.metadata.shared}
    return found


def _counts(machine_code: bytes) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(machine_code)
        usage = _run(triton.knobs.nvidia.cuobjdump.path, "-res-usage", path)
        listing = _run(triton.knobs.nvidia.nvdisasm.path, "-c", path)
    registers = re.search(r"REG:(\d+)", usage)
    assert registers
    operations = Counter(
        re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", listing, re.MULTILINE)
    )
    return {"registers": int(registers[1])} | {
        name: sum(operations[code] for code in codes) for name, codes in _OPERATIONS.items()
    }


def _run(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Print the counts for the capabilities given."""
    for word in sys.argv[1:] or ["9.0"]:
        for precision in ("ieee", "tf32x3", "tf32"):
            found = compile_all(int(word.replace(".", "")), precision)
            print(json.dumps({"capability": word, "precision": precision, "kernels": found}, indent=1))


if __name__ == "__main__":
    main()
