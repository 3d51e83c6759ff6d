"""The benchmark of a card says when there is none and checks kernels without one; its parts run on a pretended one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gsvr.model.fields import LatticeField
from gsvr.model.volume import Volume
from gsvr.solver.schedule import Stage
from tests.acquisitions import small_lattice

torch = pytest.importorskip("torch", reason="the benchmark of a card needs PyTorch")
pytest.importorskip("triton", reason="the benchmark of a card needs Triton")
from tests.backends.tiled_kernels import CARD, DEVICE, HAS_TRITON  # noqa: E402

from benchmarks import (  # noqa: E402
    gpu,
    gpu_ceilings,
    gpu_free_kernels,
    gpu_kernels,
    gpu_parts,
    gpu_reconstruction,
    speed_acquisitions,
)
from benchmarks.speed_acquisitions import SpeedAcquisition  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
# Names that a machine with nothing but the needed packages lacks.
ABSENT = ("jaxtyping", "threadpoolctl", "nibabel", "PIL", "rich", "typer", "safetensors", "matplotlib")
needs_interpreter = pytest.mark.skipif(CARD or not HAS_TRITON, reason="only without a card")


@pytest.mark.skipif(CARD, reason="there is a card")
def test_without_a_card_it_says_so_and_exits_with_status_2(capsys: pytest.CaptureFixture, caplog):
    assert gpu.main([]) == 2
    assert "nothing was measured" in caplog.text
    assert "--device cpu" in caplog.text


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


def test_wrong_kernels_stop_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    found = {"errors": {"predict": 0.1}, "tolerance": 1e-5, "passed": False}
    monkeypatch.setattr("benchmarks.gpu_correctness.measure_correctness", lambda *_: found)
    assert gpu.main(["--interpret"]) == 1
    assert "WRONG" in caplog.text


def wall_milliseconds(work: Callable[[], object], repeats: int = 1) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


@pytest.fixture
def pretended_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A card that is a CPU, and an acquisition of a few pixels; the path of the results."""
    properties = SimpleNamespace(name="Pretended", major=9, minor=0, multi_processor_count=1, total_memory=1e9)
    pretended = {
        "synchronize": lambda *_: None,
        "reset_peak_memory_stats": lambda *_: None,
        "max_memory_allocated": lambda *_: 5_000_000,
        "get_device_name": lambda *_: "Pretended",
        "get_device_properties": lambda *_: properties,
        "set_device": lambda *_: None,
    }
    for name, function in pretended.items():
        monkeypatch.setattr(torch.cuda, name, function)
    for module in (gpu_ceilings, gpu_kernels, gpu_free_kernels):
        monkeypatch.setattr(module, "milliseconds", wall_milliseconds)
    monkeypatch.setattr(gpu_ceilings, "_launches_in_a_graph", lambda *_: 1e6)
    monkeypatch.setattr(gpu_ceilings, "_STEPS", 2)
    monkeypatch.setattr(
        gpu_parts, "measure_ceilings", lambda device: gpu_ceilings.measure_ceilings(device, 1, 1000, 32, 20)
    )
    monkeypatch.setattr(gpu_kernels, "_CHUNKS", (32,))
    monkeypatch.setattr(gpu_kernels, "_WARPS", (1,))
    monkeypatch.setattr(gpu_kernels, "_PRECISIONS", ("ieee",))
    stages = (
        Stage("stacks", 9.0, 1, 2, 2, "stacks", 0.8),
        Stage("final", 8.0, 1, 1, 2, "none", 0.6),
        Stage("free", 5.0, 1, 1, 2, "none", 0.6, free=True),
    )
    monkeypatch.setattr(gpu_reconstruction, "default_stages", lambda _: stages)
    lattice = small_lattice(2.0, 1.5, 20.0)
    affine = np.eye(4)
    affine[:3, 3] = -20
    ball = np.linalg.norm(np.indices((41, 41, 41)) - 20, axis=0) < 18
    bright = 6.6 + 0.1 * np.indices((41, 41, 41))[0]
    phantom = Volume((ball * bright).astype(np.float32), affine, ball)
    field = LatticeField(lattice, lattice.support.astype(np.float32))
    for module in (speed_acquisitions, gpu_reconstruction, gpu_free_kernels):
        monkeypatch.setattr(module, "phantom_field", lambda: (field, phantom))
    tiny = SpeedAcquisition("tiny", 3, 5.0, 8.0)
    monkeypatch.setattr(gpu_parts, "USUAL", tiny)
    monkeypatch.setattr(gpu_parts, "SIZES", (tiny,))
    monkeypatch.setattr(
        gpu_parts, "measure_throughput", lambda *_: [{"processes": 1, "subjects": 1, "subjects_per_hour": 1.0}]
    )
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "gpu.json")
    return tmp_path / "gpu.json"


@needs_interpreter
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_every_part_runs_and_is_kept_under_the_cards_name(pretended_card: Path, caplog, capsys):
    parts = [part for part in gpu.PARTS if part != "correctness"]
    assert gpu._measure(str(DEVICE), parts) == 0
    record = json.loads(pretended_card.read_text(encoding="utf-8"))["Pretended"]
    assert set(record) == {"card", *parts}
    assert record["card"]["triton"]
    stage = record["kernels"]["stages"][0]
    assert 0 < stage["pairs"] <= stage["room_for_pairs"]
    assert set(stage["share_of_what_binds"]) < set(stage["milliseconds"])
    (free,) = record["kernels"]["free"]
    assert 0 < free["gaussians"] < free["listed_splats"] <= min(free["splats"], free["pairs"])
    assert {"predict", "moments", "splats and lists", "neighbours, prior"} < set(free["share_of_what_binds"])
    assert set(free["share_of_what_binds"]) < set(free["milliseconds"])
    assert {"seeds", "neighbours, search", "neighbours, columns"} < set(free["milliseconds"])
    assert [row["precision"] for row in record["kernels"]["launches"]] == ["ieee"]
    made = record["reconstruction"]
    assert [entry["stage"] for entry in made["stages"]] == ["stacks", "final", "free"]
    assert made["equal_bits"]  # as always on a CPU
    assert abs(made["quality"]["difference"]) < 1e-6
    rounds = [(entry["stage"], entry["graphs"]) for entry in record["rounds"]]
    assert rounds == [
        ("stacks", True),
        ("stacks", False),
        ("final", True),
        ("final", False),
        ("free", True),
        ("free", False),
    ]
    assert record["paper"]["seconds_an_epoch"] > 0
    assert record["large"]["pixels"] > 0


@needs_interpreter
def test_parts_measured_before_are_kept(pretended_card: Path, capsys):
    gpu._measure(str(DEVICE), ["throughput"])
    gpu._measure(str(DEVICE), ["paper"])
    assert {"throughput", "paper"} < set(json.loads(pretended_card.read_text(encoding="utf-8"))["Pretended"])


@needs_interpreter
def test_a_part_that_fails_does_not_stop_the_others(pretended_card: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu_parts, "measure_throughput", broken)
    assert gpu._measure(str(DEVICE), ["throughput", "paper"]) == 1
    record = json.loads(pretended_card.read_text(encoding="utf-8"))["Pretended"]
    assert record["throughput"] == {"failed": "RuntimeError: out of memory"}
    assert "paper" in record
