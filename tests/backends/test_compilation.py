"""The Triton kernels compile for cards that are not there, the oldest and a new one, and keep to their registers."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs Triton's compiler")
if platform.system() != "Linux" or platform.machine() != "x86_64":
    pytest.skip("Triton's compiler comes with its tools for Linux on x86-64 only", allow_module_level=True)

REPOSITORY = Path(__file__).resolve().parents[2]
# run in a process in which Triton compiles and does not interpret
CODE = """
import json, re, subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gsvr.backends.triton import bonds, gaussians, lattice

INTEGERS = "boxes pixels counts count sites row_ends present offsets corners splats gaussians starts".split()
TYPES = dict.fromkeys(INTEGERS, "*i32") | dict.fromkeys(("ny", "nz", "width", "n_pixels", "n"), "i32")
TYPES |= {"first": "*i64", "edge": "fp32", "factor": "fp32"}
tile = {"MIXTURE": 2, "SITES": lattice.SITES}
free = {"MIXTURE": 2, "CHUNK": gaussians.CHUNK}
graph = {"DIRECTIONS": 13, "SITES": bonds.BLOCK}
kernels = {
    "fill": (lattice.fill_kernel, {"ROWS": lattice.ROWS}, 4),
    "predict": (lattice.predict_kernel, tile, lattice.WARPS),
    "adjoint": (lattice.adjoint_kernel, {**tile, "POWER": 1}, lattice.WARPS),
    "squared adjoint": (lattice.adjoint_kernel, {**tile, "POWER": 2}, lattice.WARPS),
    "derivatives": (lattice.differentiate_kernel, tile, lattice.DERIVATIVE_WARPS),
    "bonds": (bonds.weigh_kernel, graph, 4),
    "bonds, apply": (bonds.apply_kernel, graph, 4),
    "bonds, sums": (bonds.row_sums_kernel, graph, 4),
    "free, predict": (gaussians.predict_kernel, free, gaussians.WARPS),
    "free, adjoint": (gaussians.adjoint_kernel, {**free, "POWER": 1}, gaussians.WARPS),
    "free, squared adjoint": (gaussians.adjoint_kernel, {**free, "POWER": 2}, gaussians.WARPS),
    "free, moments": (gaussians.moments_kernel, free, gaussians.WARPS),
    "free, derivatives": (gaussians.differentiate_kernel, {"MIXTURE": 2}, gaussians.DERIVATIVE_WARPS),
}
found = {}
for name in sys.argv[2:] or kernels:
    kernel, constants, warps = kernels[name]
    types = {**TYPES, "out": "*i64" if "adjoint" in name else "*fp32"}
    signature = {word: "constexpr" if word in constants else types.get(word, "*fp32") for word in kernel.arg_names}
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(word),): value for word, value in constants.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options={"num_warps": warps})
    found[name] = {"shared": compiled.metadata.shared}
    if int(sys.argv[1]) >= 75:  # older machine code is made, but the tools that come with Triton cannot list it
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            words = [triton.knobs.nvidia.nvdisasm.path, "-c", file.name]
            listing = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        found[name]["spills"] = len(re.findall(r"\\b(?:STL|LDL)\\b", listing))
        found[name]["exponentials"] = len(re.findall(r"\\bMUFU\\.EX2\\b", listing))
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "kernels"), [(70, ["fill", "adjoint", "bonds, sums", "free, adjoint"]), (90, [])]
)
def test_kernels_compile_and_keep_to_their_registers(capability: int, kernels: list[str], tmp_path: Path):
    """All of them for a new card; for the oldest those that do what not every card can."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(REPOSITORY / "src"), "TRITON_CACHE_DIR": str(tmp_path)}
    words = [sys.executable, "-c", CODE, str(capability), *kernels]
    finished = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    # of a block's 48 kB at least four fit beside each other
    assert {name: counts for name, counts in found.items() if counts["shared"] >= 12_000} == {}
    assert {name: counts for name, counts in found.items() if counts.get("spills")} == {}
    if capability >= 75:  # the listing was read: an exponential for each component at eight pixels, of four splats
        assert found["free, predict"]["exponentials"] == 64
