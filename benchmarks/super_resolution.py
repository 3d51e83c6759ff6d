"""Several anisotropic volumes of a subject at rest to one isotropic volume: ``python -m benchmarks.super_resolution``.

Three orthogonal stacks of 1 x 1 x 5 mm without motion or gains of slices, by averaging interpolated stacks, with total
variation (`benchmarks.total_variation`), and with ``--motion none``. Results go to
benchmarks/results/super_resolution.json, pictures to benchmarks/output/super_resolution.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.acquisitions import acquire
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.scoring import read_truth
from benchmarks.subjects import OUTPUT, SubjectMissingError, find_subject
from benchmarks.tables import table
from benchmarks.total_variation import TotalVariationOptions, total_variation
from examples.super_resolution import averaged
from gsvr.evaluation import compare
from gsvr.io.record import write_record
from gsvr.model.volume import Volume
from gsvr.report.picture import PictureOptions, save_mid_slices
from gsvr.workflows.pipeline import StackInputs, prepare, read_stacks, run
from gsvr.workflows.presets import chosen_options

RESULTS = REPOSITORY / "benchmarks" / "results" / "super_resolution.json"
SUBJECTS = ("ch2bet-adult", "atlas-33", "atlas-27", "phantom")
_PROTOCOL = {"n-stacks": 3, "in-plane-spacing": 1.0, "thickness": 5.0, "gain": 0.0, "signal-loss": 0.0}
_STRENGTHS = (0.001, 0.002, 0.005, 0.01, 0.02)
_RESOLUTION = 1.0


def measure(subject: str) -> dict[str, dict[str, float]]:
    """PSNR, SSIM and CPU seconds of every method, in the world that all of them share."""
    acquisition = acquire(find_subject(subject), "none", settings=_PROTOCOL)
    truth = read_truth(acquisition)
    inputs = StackInputs(acquisition.stacks, acquisition.masks, [])
    stacks = read_stacks(inputs)
    volumes: dict[str, Volume] = {}
    seconds: dict[str, float] = {}

    def make(name: str, method: Callable[[], Volume]) -> None:
        started = time.process_time()
        volumes[name] = method()
        seconds[name] = time.process_time() - started

    for preset in ("default", "fast"):
        options = chosen_options(preset, None, "cpu", 0, 0, motion="none")
        make(f"gsvr, {preset}", lambda chosen=options: run(prepare(inputs, chosen), _RESOLUTION).volume)
    grid = volumes["gsvr, default"]
    make("interpolated and averaged", lambda: averaged(stacks, grid))
    masks = [stack.mask for stack in stacks if stack.mask is not None]
    for strength in _STRENGTHS:
        options = TotalVariationOptions(strength)
        make(f"total variation, {strength}", lambda chosen=options: total_variation(stacks, masks, grid, chosen))
    rows = {}
    for name, volume in volumes.items():
        quality = compare(volume, truth, align=False).quality
        rows[name] = {"psnr": quality.psnr, "ssim": quality.ssim, "cpu_seconds": seconds[name]}
        print(f"{subject}, {name}: {quality.psnr:.2f} dB, {quality.ssim:.4f}, {seconds[name]:.1f} CPU s", flush=True)
    best = max((name for name in rows if name.startswith("total")), key=lambda name: rows[name]["psnr"])
    shown = ("interpolated and averaged", best, "gsvr, default")
    path = OUTPUT / "super_resolution" / f"{subject}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [(name, volumes[name]) for name in shown]
    save_mid_slices(path, [*pictures, ("truth", truth)], PictureOptions(shared_window=False))
    return rows


def result_table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """PSNR / SSIM / CPU seconds of every method, a column for each subject."""
    columns = {name: f"{{{name}[psnr]:.2f}} / {{{name}[ssim]:.4f}} / {{{name}[cpu_seconds]:.0f}}" for name in rows}
    methods = list(next(iter(rows.values())))
    return table(
        "PSNR (dB) / SSIM / CPU s", columns, [(m, {name: row[m] for name, row in rows.items()}) for m in methods]
    )


def main(output: Path = RESULTS) -> None:
    """Measure every subject at hand, or those that are asked for; rows of the others stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    asked = parser.parse_args()
    rows: dict[str, dict[str, dict[str, float]]] = {}
    if output.exists():
        rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    for subject in asked.subjects:
        try:
            rows[subject] = measure(subject)
        except SubjectMissingError as missing:
            print(f"{subject}: skipped, {missing}", file=sys.stderr)
            continue
        write_record(output, {"rows": rows, "measured": provenance()})
    print(result_table(rows))


if __name__ == "__main__":
    main()
