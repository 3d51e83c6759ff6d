"""The kernels compile for cards that are not there, from the oldest to the newest, and stay within their registers."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs Triton's compiler")
if platform.system() != "Linux" or platform.machine() != "x86_64":
    pytest.skip("Triton's compiler comes with its tools for Linux on x86-64 only", allow_module_level=True)

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = """
import json
from benchmarks.gpu_compile import compile_all
print(json.dumps({capability: compile_all(capability) for capability in (70, 90)}))
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Counts by capability and kernel, from a process in which Triton compiles and does not interpret."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
    }
    finished = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_every_kernel_compiles_for_the_oldest_card_and_a_new_one(compiled: dict[str, dict]):
    assert set(compiled) == {"70", "90"}
    assert len(compiled["90"]) == 16
    assert set(compiled["70"]) == set(compiled["90"])
    # of a block's 48 kB at least four fit beside each other
    assert all(counts["shared_bytes"] < 12_000 for kernels in compiled.values() for counts in kernels.values())


def test_nothing_of_the_loops_is_kept_in_memory_for_want_of_registers(compiled: dict[str, dict]):
    assert {name: counts["spills"] for name, counts in compiled["90"].items() if counts["spills"]} == {}


def test_the_counts_in_the_documentation_are_these(compiled: dict[str, dict]):
    if f"triton=={version('triton')}\n" not in (REPOSITORY / "constraints.txt").read_text():
        pytest.skip("another version of Triton compiles to other counts")
    page = (REPOSITORY / "docs" / "gpu.md").read_text(encoding="utf-8")
    columns = ("registers", "multiply_adds", "exponentials", "shared_memory", "barriers", "spills", "shared_bytes")
    for name, counts in compiled["90"].items():
        assert f"| {name} | {' | '.join(f'{counts[column]:,}' for column in columns)} |" in page


def test_a_chunk_costs_what_was_designed(compiled: dict[str, dict]):
    """32 sites: 16 x 16 x 32 multiply-adds and 2 x 16 x 32 exponentials are 256 and 32 instructions of 32 lanes."""
    for name, products in (("predict", 1), ("adjoint", 1), ("normal product", 2)):
        counts = compiled["90"][name]
        assert 256 * products <= counts["multiply_adds"] <= 256 * products + 40, name
        # and one for each of the two components of the slab
        assert counts["exponentials"] == 34 * products, name


def test_free_gaussians_cost_their_exponentials(compiled: dict[str, dict]):
    """Four splats at 256 pixels, two components: 64 exponentials of 32 lanes, and nothing passes through memory."""
    for name in ("free, predict", "free, adjoint"):
        counts = compiled["90"][name]
        assert counts["exponentials"] == 64, name
        assert counts["multiply_adds"] < 4 * 64, name
        assert counts["shared_memory"] == counts["barriers"] == 0, name
