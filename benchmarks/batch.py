"""What a batch costs beyond its reconstructions: small examinations as one batch, against one command each.

``python -m benchmarks.batch`` writes `results/batch.json`; `--cluster` measures the batch on a cluster.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import Cost, run_command
from benchmarks.machine import REPOSITORY, provenance
from gsvr.io.nifti import write_volume
from gsvr.io.record import write_record
from gsvr.model.volume import Volume
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import SimulationOptions, simulate

RESULT = REPOSITORY / "benchmarks" / "results" / "batch.json"
# So many acquisitions are simulated; the examinations are copies of them.
_DIFFERENT = 4
_OPTIONS = ("--preset", "fast")


def write_dataset(root: Path, n_examinations: int) -> list[str]:
    """A BIDS dataset of the phantom at half its size: three stacks of 1.5 x 1.5 x 3 mm; names of the subjects."""
    phantom = brain_phantom(spacing=1.6)
    affine = phantom.affine.copy()
    affine[:3] *= 0.5
    brain = Volume(phantom.data, affine, phantom.mask)
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "phantoms", "BIDSVersion": "1.9.0"}))
    (root / "T2w.json").write_text(json.dumps({"SliceThickness": 3.0}))
    names = [f"sub-{number:03d}" for number in range(n_examinations)]
    for seed in range(min(_DIFFERENT, n_examinations)):
        simulation = simulate(brain, SimulationOptions(n_stacks=3, in_plane_spacing=1.5, motion="mild", seed=seed))
        for name in names[seed::_DIFFERENT]:
            for number, stack in enumerate(simulation.stacks, 1):
                stem = root / name / "anat" / f"{name}_run-{number}"
                write_volume(f"{stem}_T2w.nii.gz", stack.data, stack.affine)
                write_volume(f"{stem}_desc-brain_mask.nii.gz", np.asarray(stack.mask), stack.affine)
    return names


def single(root: Path, name: str, folder: Path) -> Cost:
    """One command for one examination, with everything that the batch writes as well."""
    stacks = [root / name / "anat" / f"{name}_run-{number}_T2w.nii.gz" for number in (1, 2, 3)]
    masks = [stack.with_name(stack.name.replace("_T2w", "_desc-brain_mask")) for stack in stacks]
    output = folder / name / "brain.nii.gz"
    words = ["gsvr", "reconstruct", "--input-stacks", *stacks, "--stack-masks", *masks, "--thicknesses", 3.0]
    words += ["--output-volume", output, "--output-report", folder / f"{name}.html", *_OPTIONS]
    return run_command(_python(words), folder / "single.log", {"GSVR_THREADS": "1"})


def _python(words: list[Any]) -> list[Any]:
    return [sys.executable, "-m", *words]


def measure(n_examinations: int, at_once: int, more: list[str]) -> dict[str, Any]:
    """Half of the single runs, the batch, the other half, so that a machine that changes changes both."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        root = folder / "dataset"
        names = write_dataset(root, n_examinations)
        middle = len(names) // 2
        singles = [single(root, name, folder) for name in names[:middle]]
        words = ["gsvr", "bids", root, folder / "out", "participant", "--skip-bids-validation", "--n-procs", at_once]
        batch = run_command(_python([*words, *_OPTIONS, *more]), folder / "batch.log", {"GSVR_THREADS": str(at_once)})
        again = run_command(_python([*words, *_OPTIONS]), folder / "again.log", {"GSVR_THREADS": str(at_once)})
        singles += [single(root, name, folder) for name in names[middle:]]
        same = sum(
            (folder / name / "brain.nii.gz").read_bytes()
            == (folder / "out" / name / "anat" / f"{name}_rec-gsvr_T2w.nii.gz").read_bytes()
            for name in names
        )
    cpu = sum(cost.cpu_seconds for cost in singles)
    return {
        "examinations": n_examinations,
        "at_once": at_once,
        "options": [*_OPTIONS, *more],
        "single_cpu_seconds": cpu,
        "single_wall_seconds": sum(cost.wall_seconds for cost in singles),
        "batch_cpu_seconds": batch.cpu_seconds,
        "batch_wall_seconds": batch.wall_seconds,
        "overhead": batch.cpu_seconds / cpu - 1,
        "again_cpu_seconds": again.cpu_seconds,
        "volumes_equal": same,
    }


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examinations", type=int, default=100)
    parser.add_argument("--n-procs", type=int, default=2)
    parser.add_argument("--cluster", help="as for gsvr bids; its CPU seconds are not those of the command")
    parser.add_argument("--cluster-options", nargs="*", default=[])
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args()
    more = [] if given.cluster is None else ["--cluster", given.cluster]
    more += ["--cluster-options", *given.cluster_options] if given.cluster_options else []
    row = measure(given.examinations, given.n_procs, more)
    write_record(given.output, {**provenance(), **row})
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
