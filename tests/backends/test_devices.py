"""Devices by name: found cheaply, refused with advice, and never silently another than the one asked for."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from gsvr.backends import devices
from gsvr.backends.devices import choose_device
from gsvr.errors import InputError


class System:
    """A pretended system: which packages there are, and which cards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packages = {"torch", "triton"}
        self.capabilities: list[tuple[int, int]] = []
        self.shown: bool | None = None  # whether the system knows of a card; None: if there is one
        self.mps = False
        self.imports = 0
        monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name if name in self.packages else None)
        monkeypatch.setattr(
            devices, "_system_knows_a_card", lambda: bool(self.capabilities) if self.shown is None else self.shown
        )
        monkeypatch.setattr(devices, "_torch", self._torch)

    def _torch(self) -> ModuleType:
        self.imports += 1
        cuda = SimpleNamespace(
            is_available=lambda: bool(self.capabilities),
            device_count=lambda: len(self.capabilities),
            get_device_capability=lambda number: self.capabilities[number],
            get_device_name=lambda number: f"Card {number}",
        )
        mps = SimpleNamespace(is_available=lambda: self.mps)
        torch = ModuleType("torch")
        vars(torch).update(cuda=cuda, backends=SimpleNamespace(mps=mps))
        return torch


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    return System(monkeypatch)


def test_auto_takes_the_first_card_that_is_new_enough(system: System):
    system.capabilities = [(6, 1), (7, 0), (9, 0)]
    chosen = choose_device("auto")
    assert chosen.backend == "cuda:1"
    assert "Card 1" in chosen.reason
    assert "compute capability 7.0" in chosen.reason


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ({"torch", "triton"}, "PyTorch and Triton are not installed"),
        ({"triton"}, "Triton is not installed"),
        (set(), "the system shows no Nvidia card"),
    ],
)
def test_auto_takes_the_cpu_otherwise_says_why_and_imports_nothing(system: System, missing: set[str], reason: str):
    system.packages -= missing
    chosen = choose_device("auto")
    assert chosen.backend == "cpu"
    assert reason in chosen.reason
    assert system.imports == 0


def test_auto_does_without_a_card_that_is_too_old_or_not_usable(system: System):
    system.capabilities = [(6, 1)]
    assert "no card has compute capability 7.0 or more" in choose_device("auto").reason
    system.capabilities, system.shown = [], True
    assert "without CUDA, or the driver is too old" in choose_device("auto").reason


def test_what_is_asked_for_is_taken(system: System):
    system.capabilities, system.mps = [(8, 6), (9, 0)], True
    assert [choose_device(name).backend for name in ("cpu", "torch", "cuda", "cuda:1", "mps")] == [
        *("cpu", "torch", "cuda:0", "cuda:1", "mps")
    ]


@pytest.mark.parametrize(
    ("name", "capabilities", "message"),
    [
        ("cuda", [], "no Nvidia card; install the driver, PyTorch and Triton .docs/gpu.md.*`device` cpu"),
        ("cuda:2", [(8, 0), (8, 0)], "there are 2 cards, from cuda:0 on"),
        ("cuda:1", [(8, 0)], "there is 1 card, from cuda:0 on"),
        ("cuda", [(6, 1)], "Card 0 has compute capability 6.1, and 7.0 is needed"),
        ("mps", [], "no Apple GPU; take `device` cpu"),
        ("cuda:x", [(8, 0)], "choose one of auto, cpu, cuda"),
        ("cuda:", [(8, 0)], "choose one of auto, cpu, cuda"),
        ("cpu:0", [(8, 0)], "choose one of auto, cpu, cuda"),
        ("tpu", [(8, 0)], "choose one of auto, cpu, cuda"),
    ],
)
def test_what_cannot_be_had_is_refused_with_advice(
    system: System, name: str, capabilities: list[tuple[int, int]], message: str
):
    system.capabilities = capabilities
    with pytest.raises(InputError, match=message):
        choose_device(name)


def test_without_pytorch_its_devices_are_refused(system: System):
    system.packages = set()
    for name in ("cuda", "mps", "torch"):
        with pytest.raises(InputError, match=r"PyTorch.*(pip install torch|PyTorch and Triton \(docs/gpu.md\))"):
            choose_device(name)


def test_choosing_the_cpu_imports_no_pytorch():
    code = "import sys, gsvr.backends.devices as d; d.choose_device('cpu'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
