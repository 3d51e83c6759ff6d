"""What a card can do at most: exponentials, multiply-adds, matrix products, bytes moved, and launches."""

# Triton compiles functions whose arguments have no types.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import time

import torch
import triton
import triton.language as tl

from benchmarks.gpu_clock import milliseconds

_BLOCK = 1024
_PROGRAMS = 8192
_STEPS = 256


@triton.jit
def exponential_kernel(out, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """Chains of powers of two; each result is the next argument, so nothing can be left out."""
    values = tl.arange(0, BLOCK).to(tl.float32) * -1e-4
    for _ in range(STEPS):
        values = tl.exp2(-values)
    tl.store(out + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), values)


@triton.jit
def multiply_add_kernel(out, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """Four independent chains of multiply-adds."""
    one = tl.arange(0, BLOCK).to(tl.float32) * 1e-4
    two, three, four = one + 1, one + 2, one + 3
    for _ in range(STEPS):
        one, two = one * 0.999 + 0.1, two * 0.999 + 0.1
        three, four = three * 0.999 + 0.1, four * 0.999 + 0.1
    tl.store(out + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), one + two + three + four)


def measure_ceilings(
    device: torch.device, programs: int = _PROGRAMS, size: int = 2**28, matrix: int = 4096, launches: int = 20_000
) -> dict[str, float]:
    """Billions a second, and launches a second."""
    out = torch.empty(programs * _BLOCK, device=device)
    exponentials = milliseconds(lambda: exponential_kernel[(programs,)](out, STEPS=_STEPS, BLOCK=_BLOCK))
    added = milliseconds(lambda: multiply_add_kernel[(programs,)](out, STEPS=_STEPS, BLOCK=_BLOCK))
    source = torch.ones(size, device=device)
    target = torch.empty_like(source)
    moved = milliseconds(lambda: target.copy_(source))
    work = programs * _BLOCK * _STEPS
    return {
        "exponentials_1e9_per_second": 1e-6 * work / exponentials,
        "multiply_add_gflops": 1e-6 * 8 * work / added,
        "matrix_product_float32_gflops": _matrix_product(device, False, matrix),
        "matrix_product_tf32_gflops": _matrix_product(device, True, matrix),
        "memory_gigabytes_per_second": 1e-6 * 8 * len(source) / moved,
        "launches_per_second": _launches(device, launches),
        "launches_per_second_in_a_graph": _launches_in_a_graph(device, launches // 20),
    }


def card_bounds(
    ceilings: dict[str, float], moved: float, exponentials: float = 0.0, multiply_adds: float = 0.0
) -> dict[str, float]:
    """Milliseconds that the ceilings allow at least for so many bytes, exponentials and multiply-adds."""
    return {
        "exponentials": 1e-6 * exponentials / ceilings["exponentials_1e9_per_second"],
        "multiply-adds": 2e-6 * multiply_adds / ceilings["multiply_add_gflops"],
        "memory": 1e-6 * moved / ceilings["memory_gigabytes_per_second"],
    }


def _matrix_product(device: torch.device, tf32: bool, size: int) -> float:
    a = torch.rand((size, size), device=device)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        return 2e-6 * size**3 / milliseconds(lambda: a @ a)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _launches(device: torch.device, count: int) -> float:
    """Small operations that the host can hand over in a second."""
    small = torch.zeros(1, device=device)
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(count):
        small.add_(1)
    torch.cuda.synchronize(device)
    return count / (time.perf_counter() - started)


def _launches_in_a_graph(device: torch.device, count: int) -> float:
    small = torch.zeros(1, device=device)
    small.add_(1)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            small.add_(1)
    return 1e3 * count / milliseconds(graph.replay)
