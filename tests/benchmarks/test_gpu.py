"""The benchmark of a card says when there is none, checks kernels without one, and keeps what it measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the benchmark of a card needs PyTorch")
pytest.importorskip("triton", reason="the benchmark of a card needs Triton")
from benchmarks import gpu, gpu_card  # noqa: E402
from benchmarks.speed_acquisitions import SpeedAcquisition  # noqa: E402
from gsvr.backends.torch.backend import TorchBackend  # noqa: E402
from gsvr.model.volume import Volume  # noqa: E402
from gsvr.operators.gaussians import GaussianOperator  # noqa: E402
from gsvr.operators.lattice import LatticeOperator  # noqa: E402
from gsvr.solver.schedule import default_stages  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
# Names that a machine with nothing but the needed packages lacks.
ABSENT = ("jaxtyping", "threadpoolctl", "nibabel", "PIL", "rich", "typer", "safetensors", "matplotlib")
without_a_card = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")


@without_a_card
def test_without_a_card_it_says_so_and_exits_with_status_2(caplog: pytest.LogCaptureFixture):
    assert gpu.main([]) == 2
    assert "nothing was measured" in caplog.text


@pytest.mark.slow
@without_a_card
def test_kernels_are_checked_in_the_interpreter_with_nothing_but_the_needed_packages():
    """In a process of its own, where other packages cannot be imported."""
    code = (
        "import sys, importlib.util\n"
        f"absent = {ABSENT!r}\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in absent else find(name, *rest)\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "from benchmarks.gpu import main\n"
        "raise SystemExit(main(['--interpret']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")])}
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, finished.stderr
    assert "jaxtyping is not installed: going on without it" in finished.stderr
    assert "kernels are right" in finished.stderr


def test_wrong_kernels_are_found(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    adjoint = gpu_card.LatticeOperator.adjoint
    monkeypatch.setattr(
        gpu_card.LatticeOperator,
        "adjoint",
        lambda self, pixels: adjoint(self, pixels) * (1.001 if self.backend.name == "torch" else 1),
    )
    found = gpu_card.check_kernels(TorchBackend("torch"), 12)
    assert not found["passed"]
    assert [name for name, error in found["errors"].items() if error > found["tolerance"]] == ["lattice: adjoint"]


def cut_off_at_six(made: Callable[..., None]) -> Callable[..., None]:
    """An operator's ``__init__``, whatever cut-off is asked for."""

    def make(*arguments: object, **named: object) -> None:
        made(*arguments, **named | {"cutoff": 6.0})

    return make


@pytest.mark.slow
@without_a_card
def test_every_part_runs_and_is_kept_under_the_cards_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """On a card that is a CPU, and an acquisition of a few pixels."""
    properties = SimpleNamespace(name="Pretended", major=9, minor=0, multi_processor_count=1, total_memory=1e9)
    for name, value in (("get_device_properties", properties), ("synchronize", None), ("max_memory_allocated", 5)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    affine, index = np.eye(4), np.indices((41, 41, 41))
    affine[:3, 3] = -20
    inside = np.linalg.norm((index - 20) / np.reshape([1.0, 0.85, 0.7], (3, 1, 1, 1)), axis=0) < 18
    steps = 0.1 * index[0] + 2 * (index[1] > 22) + 2 * (index[2] > 18)
    phantom = Volume((inside * (6.6 + steps)).astype(np.float32), affine, inside)
    monkeypatch.setattr("benchmarks.speed_acquisitions.brain_phantom", lambda: phantom)
    gpu_card.phantom_field.cache_clear()
    # not the first, which would look for lost stacks where hardly anything can be seen
    stages = tuple(
        replace(stage, spacing=8.0, outer_iterations=1, alternative=None) for stage in default_stages(8.0)[1::5]
    )
    monkeypatch.setattr(gpu_card, "default_stages", lambda *_: stages)
    # with pixels this large the two backends differ by what the usual cut-off leaves out
    for operator in (LatticeOperator, GaussianOperator):
        monkeypatch.setattr(operator, "__init__", cut_off_at_six(operator.__init__))
    monkeypatch.setattr(gpu_card, "VOXEL", 3.0)
    milliseconds = gpu_card.milliseconds
    monkeypatch.setattr(gpu_card, "milliseconds", lambda work: milliseconds(work, repeats=1))
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "gpu.json")
    tiny, card = SpeedAcquisition("tiny", 3, 5.0, 8.0), TorchBackend("torch")
    times, made = gpu_card.time_kernels(card, tiny, 8.0), gpu_card.measure_reconstructions(card, tiny, 8.0)
    gpu_card.phantom_field.cache_clear()
    name = gpu.keep(None, "card", gpu_card.describe_card(card.device))
    gpu.keep(name, "kernels", times)
    gpu.keep(name, "reconstruction", made)
    record = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["Pretended"]
    assert set(record) == {"card", "kernels", "reconstruction"}
    assert all(value > 0 for kind in ("lattice", "free") for value in times[kind]["nanoseconds_a_splat"].values())
    assert made["default"]["equal_bits"]
    assert made["fast"]["equal_bits"]
    assert abs(made["default"]["psnr"]["card"] - made["default"]["psnr"]["cpu"]) < 0.05
