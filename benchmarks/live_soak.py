"""A node of ``gsvr live`` under a hundred short examinations, one after the other, and what its memory does.

Each examination is played as DICOM by a simulated scanner (a localiser, two stacks of a small moving phantom); in every
seventh the connection is lost in the middle of a stack. After the verdict on each the memory of the node is noted.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import REPOSITORY, provenance
from gsvr.io.dicom.peers import Peer
from gsvr.io.json_lines import read_json_lines
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import SimulationOptions, simulate
from gsvr.workflows.simulated_scanner import ScannerOptions, play

RESULTS = REPOSITORY / "benchmarks" / "results" / "live_soak.json"
_PATIENCE = 300.0
_LOST_EVERY = 7
# Growth is looked for after these: pools and caches fill first.
_SETTLED = 20


def main() -> None:
    """Play them, and write what the memory did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examinations", type=int, default=100)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = soaked(arguments.examinations)
    result = {"provenance": provenance(), "growth": growth(rows), "examinations": rows}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(result["growth"])


def soaked(count: int) -> list[dict[str, Any]]:
    """Memory (MiB), threads and open files of the node after each examination, and the verdict on it."""
    stacks = small_stacks()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        words = ["live", "--output-dir", output, "--dicom-port", port, "--output-resolution", 2]
        node = subprocess.Popen([sys.executable, "-m", "gsvr", *map(str, words)], stdout=subprocess.PIPE, text=True)
        assert node.stdout is not None
        node.stdout.readline()  # it listens
        rows: list[dict[str, Any]] = []
        try:
            for number in range(count):
                began, known = time.monotonic(), set(output.glob("study-*"))
                lost = 1 if number % _LOST_EVERY == _LOST_EVERY - 1 else 0
                play(stacks, Peer("GSVR", "127.0.0.1", port), ScannerOptions(pace=0.0, lost=lost))
                verdict = _verdict(output, known, began + _PATIENCE, len(stacks))
                row = {"number": number + 1, "lost": bool(lost), "seconds": round(time.monotonic() - began, 2)}
                rows.append(row | verdict | _state_of(node.pid))
                print(rows[-1], flush=True)
        finally:
            node.terminate()
            node.wait()
    return rows


def growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Slope of the memory by examination (MiB) once caches are full, and the most that it was."""
    later = [row["memory_mib"] for row in rows[_SETTLED:]] or [row["memory_mib"] for row in rows]
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0]) if len(later) > 1 else 0.0
    return {"mib_per_examination": round(slope, 3), "most_mib": max(row["memory_mib"] for row in rows)}


def small_stacks() -> list[Stack]:
    """Two stacks of a phantom of half size."""
    phantom = brain_phantom(spacing=2.0)
    affine = phantom.affine.copy()
    affine[:3] *= 0.5
    brain = Volume(phantom.data, affine, phantom.mask)
    return simulate(brain, SimulationOptions(n_stacks=2, in_plane_spacing=2.0, thickness=4.0, motion="mild")).stacks


def _verdict(output: Path, known: set[Path], until: float, n_stacks: int) -> dict[str, Any]:
    """Wait for that on all stacks of the examination that is new."""
    while time.monotonic() < until:
        for folder in set(output.glob("study-*")) - known:
            events = read_json_lines(folder / "events.jsonl")
            verdicts = [event for event in events if event["event"] == "verdict"]
            volumes = [event for event in events if event["event"] == "volume"]
            if verdicts and len(volumes[-1]["stacks"]) == n_stacks and events[-1]["event"] == "advice":
                errors = [event["reason"] for event in events if event["event"] == "error"]
                return {"grade": verdicts[-1]["grade"], "errors": errors}
        time.sleep(0.1)
    raise SystemExit("no verdict came")


def _state_of(process: int) -> dict[str, Any]:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in status)
    files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    memory = round(int(values["VmRSS"].split()[0]) / 1024, 1)
    return {"memory_mib": memory, "threads": int(values["Threads"]), "files": files}


if __name__ == "__main__":
    main()
