"""Nothing in a round waits for the device: seen from the operations, and on a card from CUDA's own check."""

from __future__ import annotations

import types
from collections import Counter
from dataclasses import replace

import pytest

from gsvr.solver.schedule import SolverOptions, Stage
from tests.acquisitions import small_slices

torch = pytest.importorskip("torch", reason="the solver on a device needs PyTorch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from gsvr.device_solver.device_rounds import DeviceChoices, DeviceStage  # noqa: E402
from gsvr.solver.rounds import advance, begin_stage  # noqa: E402
from tests.backends.tiled_kernels import DEVICE, needs_card  # noqa: E402

OPTIONS = SolverOptions()
# What asks the device for a number, or for how long a result is, or brings numbers from the host.
WAITING = {
    *("_local_scalar_dense", "is_nonzero", "equal"),
    *("nonzero", "masked_select", "_unique2", "repeat_interleave"),
    *("lift_fresh", "scalar_tensor"),  # the latter where `torch.where` is given a number
}


class Operations(TorchDispatchMode):
    """Counts operations, and those that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.counts[name] += 1
        if name == "index" and any(part is not None and part.dtype == torch.bool for part in args[1]):
            self.counts["nonzero"] += 1  # an index of booleans is as long as there are ones
        return func(*args, **(kwargs or {}))

    @property
    def waiting(self) -> dict[str, int]:
        return {name: count for name, count in self.counts.items() if name in WAITING}


def nothing(*names: str) -> types.ModuleType:
    """Kernels that do nothing: what they would launch does not wait."""
    module = types.ModuleType("nothing")
    for name in names:
        setattr(module, name, lambda *_, **__: None)
    return module


IDLE = DeviceChoices(
    tiles=nothing("fill", "predict", "differentiate", "adjoint", "normal"),
    prior=nothing("fill_bonds", "apply", "add_diagonal"),
)


def running_stage(motion: str, choices: DeviceChoices, deterministic: bool = False) -> DeviceStage:
    slices, poses = small_slices()
    stage = Stage("test", 3.0, 1, 1, 2, motion, 0.7)
    state = advance(slices, stage, OPTIONS, begin_stage(slices, stage, OPTIONS, None, poses))
    options = replace(OPTIONS, deterministic=deterministic)
    return DeviceStage(slices, stage, options, state, DEVICE, choices)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("motion", ["none", "stacks", "slices"])
def test_no_operation_of_a_round_waits(motion: str, deterministic: bool):
    running = running_stage(motion, IDLE, deterministic)
    with Operations() as operations:
        running.round()
    assert operations.waiting == {}
    assert sum(operations.counts.values()) > 50


def test_a_round_asks_for_one_number():
    running = running_stage("slices", IDLE)
    with Operations() as operations:
        running.advance()
    assert operations.waiting == {"_local_scalar_dense": 1}


def test_waiting_would_be_seen():
    values = torch.arange(4.0)
    with Operations() as operations:
        values[values > 1].sum().item()
        torch.where(values > 1, values, 0)
        torch.repeat_interleave(torch.arange(2), torch.tensor([1, 2]))
    assert set(operations.waiting) == {
        "nonzero",
        "_local_scalar_dense",
        "repeat_interleave",
        "lift_fresh",
        "scalar_tensor",
    }


def test_an_iteration_of_conjugate_gradients_is_a_handful_of_operations():
    """Each is a launch unless the iteration was recorded. Kernels of tiles and prior come on top; views are free."""
    running = running_stage("slices", IDLE)
    running.round()
    with Operations() as operations:
        running.solver._iterate()
    views = {"view", "_unsafe_view", "expand", "detach", "alias"}
    assert sum(count for name, count in operations.counts.items() if name not in views) <= 20


@needs_card
@pytest.mark.parametrize("motion", ["none", "stacks", "slices"])
def test_cuda_sees_no_waiting_either(motion: str):
    running = running_stage(motion, DeviceChoices())
    running.round()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        running.round()
    finally:
        torch.cuda.set_sync_debug_mode("default")
