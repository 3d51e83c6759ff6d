"""``gsvr live`` under measurement: how long after each slice and stack there is a result, and how good it is.

For each case three things. Stacks are copied into a watched folder, each as soon as the verdict on those before is
there: every volume is kept, and scored afterwards. The same stacks are sent slice by slice by DICOM at the scanner's
pace (a slice a second): when each slice had its place, and each volume was there. And the end is compared with the
reconstruction of all stacks at once: against the truth where it is known, and pose by pose; next to it, how far that
reconstruction is from itself when it starts half a millimetre elsewhere. The wall times hold for the cores that were
free: the load of the machine is kept with them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.acquisitions import Acquisition, acquire
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.scoring import read_truth, scores
from benchmarks.subjects import SubjectMissingError, data_folder, find_subject
from gsvr.evaluation import pose_errors
from gsvr.io.dicom.peers import Peer
from gsvr.io.json_lines import read_json_lines
from gsvr.io.nifti import read_stack, read_volume, write_volume
from gsvr.io.sidecar import sidecar_path
from gsvr.io.transforms import read_poses_json, write_poses_json
from gsvr.render import VOXEL_SIZE
from gsvr.render.volume import render_volume
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.stack_alignment import first_poses
from gsvr.solver.state import Result
from gsvr.workflows.inputs import StackInputs
from gsvr.workflows.outputs import slice_records
from gsvr.workflows.pipeline import prepare
from gsvr.workflows.simulated_scanner import ScannerOptions, play

RESULTS = REPOSITORY / "benchmarks" / "results" / "live.json"
IMAGE = REPOSITORY / "docs" / "images" / "live.png"
_PATIENCE = 300.0
# mm, and pixels of a slice that shows brain.
_ELSEWHERE = np.array([0.7, -0.4, 0.5])
_LEAST_PIXELS = 150


def main() -> None:
    """Measure, write the results and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["phantom", "fetal-mial-sub-01"])
    parser.add_argument("--data", type=Path, help="folder of real stacks (default: GSVR_DATA)")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds a slice; 0: not sent by DICOM")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.data is not None:
        os.environ["GSVR_DATA"] = str(arguments.data)
    rows: list[dict[str, Any]] = []
    slices: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for case in arguments.cases:
        try:
            stacks, masks, acquisition = _files(case)
        except SubjectMissingError as error:
            print(f"{case}: {error}")
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows += played(case, stacks, masks, acquisition, folder)
            ends.append(end_of(case, stacks, masks, acquisition, folder))
            print(ends[-1], flush=True)
            if arguments.pace > 0:
                slices += sent(case, stacks, arguments.pace, folder)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    results = {"provenance": provenance(), "volumes": rows, "ends": ends, "pace": arguments.pace, "sent": slices}
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(draw(results))


def _files(case: str) -> tuple[list[Path], list[Path], Acquisition | None]:
    if case == "fetal-mial-sub-01":
        stacks = sorted((data_folder() / case).glob("*_run-*_T2w.nii.gz"))
        if not stacks:
            raise SubjectMissingError("no stacks in the shared data")
        return stacks, [path.with_name(path.name.replace("_T2w", "_desc-brain_mask")) for path in stacks], None
    acquisition = acquire(find_subject(case))
    return acquisition.stacks, acquisition.masks, acquisition


def played(
    case: str, stacks: list[Path], masks: list[Path], acquisition: Acquisition | None, folder: Path
) -> list[dict[str, Any]]:
    """Latency, CPU time and, where the truth is known, quality of every volume; the outputs stay in ``out``."""
    watched, output = folder / "in", folder / "out"
    watched.mkdir()
    process = _node(["--output-dir", output, "--watch", watched])
    rows: list[dict[str, Any]] = []
    try:
        for number, (stack, mask) in enumerate(zip(stacks, masks, strict=True), 1):
            for path in (sidecar_path(stack), mask, stack):
                if path.exists():
                    shutil.copy(path, watched)
            _listen(output / "in", rows, number)
    finally:
        process.terminate()
        process.wait()
    for row in rows:
        row["case"] = case
        kept = row.pop("kept", None)
        if kept is not None and acquisition is not None:
            row |= _scored(kept, acquisition)
        print(row, flush=True)
    return rows


def _node(words: list[Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gsvr", "live", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it listens
    return process


def _scored(folder: Path, acquisition: Acquisition) -> dict[str, Any]:
    volume = read_volume(folder / "volume.nii.gz", folder / "mask.nii.gz")
    found = scores(volume, folder / "poses.json", read_truth(acquisition), acquisition)[0]
    return {key: found[key] for key in ("psnr", "ssim", "pose_median")}


def end_of(
    case: str, stacks: list[Path], masks: list[Path], acquisition: Acquisition | None, folder: Path
) -> dict[str, Any]:
    """The end of `played` next to all stacks at once."""
    job = prepare(StackInputs(stacks, masks))
    assert isinstance(job.options, SolverOptions)
    began = time.process_time()
    batch = reconstruct(job.slices, job.options)
    seconds = time.process_time() - began
    shifted = first_poses(job.slices)
    shifted[:, :3, 3] += _ELSEWHERE
    again = reconstruct(job.slices, job.options, None, shifted)
    records = {
        (one.stack, one.slice_index): one.matrix for one in read_poses_json(folder / "out" / "in" / "poses.json")
    }
    online = np.stack([records[key] for key in job.slices.keys])
    row: dict[str, Any] = {"case": case, "batch_cpu_seconds": seconds, "poses_from_batch_mm": _apart(online, batch)}
    row["batch_from_itself_mm"] = _apart(again.poses, batch)
    if acquisition is not None:
        row["live"] = _scored(folder / "out" / "in", acquisition)
        at_once = folder / "batch"
        at_once.mkdir()
        volume = render_volume(batch.field, VOXEL_SIZE, batch.mask)
        assert volume.mask is not None
        write_volume(at_once / "volume.nii.gz", volume.data, volume.affine)
        write_volume(at_once / "mask.nii.gz", volume.mask, volume.affine)
        write_poses_json(at_once / "poses.json", slice_records(batch))
        row["batch"] = _scored(at_once, acquisition)
    return row


def _apart(poses: np.ndarray, batch: Result) -> float:
    """Median distance (mm) of the slices that show brain, but for a motion that all have in common."""
    slices, positions = batch.slices, batch.slices.pixel_positions()
    shown = np.flatnonzero(slices.sum_per_slice(slices.mask) > _LEAST_PIXELS).tolist()
    points = [positions[slices.pixels_of(n)][slices.mask[slices.pixels_of(n)]] for n in shown]
    return pose_errors(poses[shown], batch.poses[shown], points).median


def sent(case: str, stacks: list[Path], pace: float, folder: Path) -> list[dict[str, Any]]:
    """When each slice had its place and each volume was there, sent as DICOM without masks at a scanner's pace."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = folder / "sent"
    process = _node(["--output-dir", output, "--dicom-port", port])
    try:
        play([read_stack(path) for path in stacks], Peer("GSVR", "127.0.0.1", port), ScannerOptions(pace=pace))
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            events = [event for path in output.glob("study-*/events.jsonl") for event in read_json_lines(path)]
            volumes = [event for event in events if event["event"] == "volume"]
            done = volumes and len(volumes[-1]["stacks"]) == len(stacks) and events[-1]["event"] == "advice"
            if done:
                break
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait()
    placed = [event["latency_seconds"] for event in events if event.get("arriving") and event["pose"] is not None]
    latencies: list[dict[str, Any]] = [
        {"case": case, "event": "slices", "count": len(placed), "load": os.getloadavg()[0]}
    ]
    latencies[0] |= {f"p{share}": float(np.percentile(placed, share)) for share in (50, 90, 99, 100)}
    for event in volumes:
        row = {key: event[key] for key in ("event", "quality", "latency_seconds", "cpu_seconds")}
        latencies.append({"case": case, **row, "stacks": len(event["stacks"])})
    print(*latencies, sep="\n", flush=True)
    return latencies


def _listen(folder: Path, rows: list[dict[str, Any]], stacks: int) -> None:
    """Keep what comes until the verdict on so many stacks is there (on one there is none)."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        events = [e for e in read_json_lines(folder / "events.jsonl") if e["event"] in ("volume", "verdict", "error")]
        for event in events[len(rows) :]:
            row = {key: event.get(key) for key in ("event", "quality", "grade", "latency_seconds", "cpu_seconds")}
            row |= {"stacks": stacks, "load": os.getloadavg()[0], "reason": event.get("reason")}
            row = {key: value for key, value in row.items() if value is not None}
            if event["event"] == "volume":
                kept = folder.parent.parent / f"kept-{len(rows)}"
                kept.mkdir()
                for name in ("volume.nii.gz", "mask.nii.gz", "poses.json"):
                    shutil.copy(folder / name, kept)
                row["kept"] = kept
            rows.append(row)
        if rows and rows[-1]["stacks"] == stacks and (rows[-1]["event"] == "verdict" or stacks == 1):
            return
        time.sleep(0.1)


def draw(results: dict[str, Any]) -> Path:
    """Latency of every volume, and PSNR where the truth is known, stack by stack."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    volumes = [row for row in results["volumes"] if row["event"] == "volume"]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for case, line in zip(dict.fromkeys(row["case"] for row in volumes), ("-", "--"), strict=False):
        for quality, colour in (("quick", "#d1603d"), ("final", "#0b6e99")):
            rows = [row for row in volumes if row["case"] == case and row["quality"] == quality]
            stacks = [row["stacks"] for row in rows]
            style = {"color": colour, "linestyle": line, "marker": "o", "markersize": 4, "label": f"{case}, {quality}"}
            left.plot(stacks, [row["latency_seconds"] for row in rows], **style)
            if rows and "psnr" in rows[0]:
                right.plot(stacks, [row["psnr"] for row in rows], **style)
    for level, colour in ((3, "#d1603d"), (10, "#0b6e99")):
        left.axhline(level, color=colour, linewidth=0.8, linestyle=":")
    left.set(xlabel="stacks so far", ylabel="seconds after the last image", ylim=(0, None))
    right.set(xlabel="stacks so far", ylabel="PSNR (dB)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(IMAGE, dpi=130)
    return IMAGE


if __name__ == "__main__":
    main()
