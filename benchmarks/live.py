"""``gsvr live`` under measurement: how long after each stack there is a volume, and how good it is.

Plays the stacks of an acquisition into a watched folder, at the scanner's pace (a second a slice) or as soon as the
verdict on those before is there; keeps every volume, and scores it afterwards. The wall times hold for the cores that
were free: the load of the machine is kept with them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel

from benchmarks.acquisitions import Acquisition, acquire
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.scoring import read_truth, scores
from benchmarks.subjects import SubjectMissingError, data_folder, find_subject
from gsvr.io.json_lines import read_json_lines
from gsvr.io.nifti import read_volume
from gsvr.io.sidecar import sidecar_path

RESULTS = REPOSITORY / "benchmarks" / "results" / "live.json"
_PATIENCE = 300.0


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["phantom", "fetal-mial-sub-01"])
    parser.add_argument("--pace", choices=["scanner", "fast"], default="scanner")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for case in arguments.cases:
        try:
            stacks, masks, acquisition = _files(case)
        except SubjectMissingError as error:
            print(f"{case}: {error}")
            continue
        rows += played(case, stacks, masks, acquisition, arguments.pace)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"provenance": provenance(), "pace": arguments.pace, "volumes": rows}, indent=1)
    arguments.output.write_text(text + "\n", encoding="utf-8")


def _files(case: str) -> tuple[list[Path], list[Path], Acquisition | None]:
    if case == "fetal-mial-sub-01":
        stacks = sorted((data_folder() / case).glob("*_run-*_T2w.nii.gz"))
        if not stacks:
            raise SubjectMissingError("no stacks in the shared data")
        return stacks, [path.with_name(path.name.replace("_T2w", "_desc-brain_mask")) for path in stacks], None
    acquisition = acquire(find_subject(case))
    return acquisition.stacks, acquisition.masks, acquisition


def played(
    case: str, stacks: list[Path], masks: list[Path], acquisition: Acquisition | None, pace: str
) -> list[dict[str, Any]]:
    """Latency, CPU time and, where the truth is known, quality of every volume."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watched, output = folder / "in", folder / "out"
        watched.mkdir()
        words = ["live", "--output-dir", output, "--watch", watched]
        process = subprocess.Popen([sys.executable, "-m", "gsvr", *map(str, words)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        rows: list[dict[str, Any]] = []
        for number, (stack, mask) in enumerate(zip(stacks, masks, strict=True), 1):
            began = time.monotonic()
            for path in (sidecar_path(stack), mask, stack):
                if path.exists():
                    shutil.copy(path, watched)
            last = number == len(stacks)
            slices = nibabel.load(stack).shape[2]  # pyright: ignore[reportAttributeAccessIssue]
            until = began + (float(slices) if pace == "scanner" and not last else _PATIENCE)
            _listen(output / "in", rows, until, pace == "fast" or last, number)
        process.terminate()
        process.wait()
        for row in rows:
            row["case"] = case
            kept = row.pop("kept", None)
            if kept is not None and acquisition is not None:
                truth = read_truth(acquisition)
                volume = read_volume(kept / "volume.nii.gz", kept / "mask.nii.gz")
                found = scores(volume, kept / "poses.json", truth, acquisition)[0]
                row |= {key: found[key] for key in ("psnr", "ssim", "pose_median")}
            print(row, flush=True)
        return rows


def _listen(folder: Path, rows: list[dict[str, Any]], until: float, to_verdict: bool, stacks: int) -> None:
    """Keep what comes until the time is over or, if that is enough, the verdict on so many stacks is there."""
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
        done = rows and rows[-1]["stacks"] == stacks and (rows[-1]["event"] == "verdict" or stacks == 1)
        if to_verdict and done:
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main()
