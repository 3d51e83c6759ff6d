"""``make bench-core``: quality, speed and memory of ``gsvr`` from files to files, and whether they got worse.

Every reconstruction is a process of its own, so that CPU seconds (user and system, imports included), wall seconds and
peak memory are those of the whole command. Results go to benchmarks/results/core.json, case by case.

To compare with another gsvr, such as an older checkout that was built, name its interpreter (``--python``), its path
(``--pythonpath``), or both. The two then take turns on the same files, pairs go to benchmarks/output/core_pairs.json,
and the exit status is 1 if anything became worse by more than `TOLERANCES`.

Pictures of subjects that may not be published go to benchmarks/output/.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.acquisitions import Acquisition, acquire
from benchmarks.command import Cost, Gsvr, beside, stack_words
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.scoring import read_truth, scores
from benchmarks.subjects import OUTPUT, SubjectMissingError, data_folder, find_subject
from benchmarks.tables import core_tables
from gsvr.io.nifti import read_volume
from gsvr.io.record import write_record
from gsvr.model.volume import Volume
from gsvr.report.picture import save_mid_slices

logger = logging.getLogger("benchmarks.core")  # also when run as a program

RESULTS = REPOSITORY / "benchmarks" / "results"
SIMULATED = ("phantom", "atlas-33", "atlas-27")
REAL = ("fetal-mial-sub-01", "svrtk-simulated", "fetpype-simu001")
LEFT_OUT = "leave-one-out"  # of the first of the real ones
PRESETS = ("default", "fast")
# How much worse than the other gsvr counts as worse: a difference, or for costs a ratio.
TOLERANCES = {
    "psnr": -0.02,
    "ssim": -0.0005,
    "pose_median": 0.005,
    "pose_mean": 0.005,
    "pose_p90": 0.005,
    "left_out_ncc": -0.0005,
    "cpu_seconds": 1.03,
    "peak_megabytes": 1.05,
}


@dataclass(frozen=True)
class Examination:
    """Stacks and masks; what is known of the truth if they are simulated; whether pictures of it may be published."""

    name: str
    stacks: Sequence[Path]
    masks: Sequence[Path]
    acquisition: Acquisition | None = None
    free: bool = False


def find_examination(name: str, motion: str, seed: int) -> Examination:
    """A simulated or a real examination.

    Raises
    ------
    SubjectMissingError
        If its files are not at hand.
    """
    if name in SIMULATED:
        subject = find_subject(name)
        made = acquire(subject, motion, seed)
        return Examination(f"{name}, {motion}, seed {seed}", made.stacks, made.masks, made, subject.free)
    folder = data_folder() / name
    if name == "svrtk-simulated":
        return Examination(name, sorted(folder.glob("stack-?.nii.gz")), [folder / "mask-for-stack-2.nii.gz"])
    masks = sorted(folder.glob("*run-*_desc-brain_mask.nii.gz")) or sorted(folder.glob("*run-*_mask.nii.gz"))
    return Examination(name, sorted(folder.glob("*run-*_T2w.nii.gz")), masks)


def measure_preset(
    examination: Examination, preset: str, runners: Mapping[str, Gsvr], repeats: int
) -> dict[str, dict[str, Any]]:
    """A row for each gsvr, which take turns: the least of their costs, and how good the volume and the poses are."""
    costs: dict[str, list[Cost]] = {runner: [] for runner in runners}
    rows: dict[str, dict[str, Any]] = {}
    folder = OUTPUT / "core" / examination.name.replace(", ", "_").replace(" ", "-")
    for _ in range(repeats):
        for runner, gsvr in runners.items():
            volume = folder / runner / f"{preset}.nii.gz"
            cost, record = gsvr.reconstruct(examination.stacks, examination.masks, volume, preset)
            costs[runner].append(cost)
            used = [entry for entry in record["slices"] if entry["used"]]
            rows[runner] = {
                "pixels": record["pixels"],
                "gaussians": record["gaussians"],
                "slices": len(used),
                "slices_weighed_down": sum(entry["weight"] < 0.5 for entry in used),
                **_score(examination, volume, publish=(runner, preset) == ("now", "default")),
            }
    return {runner: row | asdict(Cost.least(costs[runner])) for runner, row in rows.items()}


def _score(examination: Examination, volume: Path, publish: bool) -> dict[str, Any]:
    """Against the truth, if there is one; and a picture."""
    if examination.acquisition is None:
        return {}
    truth = read_truth(examination.acquisition)
    found, comparison = scores(read_volume(volume), beside(volume, "_poses.json"), truth, examination.acquisition)
    if publish:
        folder = RESULTS if examination.free else OUTPUT
        shown = [("truth", truth), ("reconstruction", Volume(comparison.aligned, truth.affine))]
        save_mid_slices(folder / f"core_{examination.acquisition.name}.png", shown)
    return found


def measure_left_out(examination: Examination, gsvr: Gsvr) -> dict[str, Any]:
    """Each stack predicted from the others (``gsvr evaluate --input-stacks``)."""
    output = OUTPUT / "core" / LEFT_OUT / "scores.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    words = ["evaluate", *stack_words(examination.stacks, examination.masks), "--output-json", output]
    cost = gsvr.run(words, output.with_name("log.txt"))
    found = json.loads(output.read_text(encoding="utf-8"))
    return {
        "left_out_ncc": found["mean"]["ncc"],
        "left_out_psnr": found["mean"]["psnr"],
        "stacks": {entry["stack"]: {key: entry[key] for key in ("ncc", "psnr")} for entry in found["stacks"]},
        **asdict(cost),
    }


def became_worse(row: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Sentences about what is worse than in the other row by more than `TOLERANCES`."""
    found = []
    for name, tolerance in TOLERANCES.items():
        if name not in row or name not in other:
            continue
        is_ratio = tolerance > 1
        change = row[name] / other[name] if is_ratio else row[name] - other[name]
        if (change < tolerance) if tolerance < 0 else (change > tolerance):
            by = f"{100 * change - 100:+.1f} %" if is_ratio else f"{change:+.4f}"
            found.append(f"{name} {other[name]:.4g} -> {row[name]:.4g} ({by})")
    return found


def _tell(title: str, row: Mapping[str, Any]) -> None:
    """One line, at once: what follows takes minutes."""
    units = {"cpu_seconds": ("CPU s", 1), "wall_seconds": ("wall s", 1), "peak_megabytes": ("MB", 0)}
    units |= {"psnr": ("dB", 2), "ssim": ("SSIM", 4), "pose_median": ("mm", 3), "pose_p90": ("mm (p90)", 3)}
    units |= {"left_out_ncc": ("NCC", 4)}
    shown = [f"{row[name]:.{digits}f} {unit}" for name, (unit, digits) in units.items() if name in row]
    logger.info("%s: %s", title, ", ".join(shown))


def _keep(path: Path, case: str, rows: Mapping[str, Any]) -> None:
    """Write one case into the file at once: what follows may fail or be interrupted. Other rows of it stay."""
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    record[case] = {"rows": record.get(case, {}).get("rows", {}) | dict(rows), "measured": provenance()}
    write_record(path, record)


def _other(asked: argparse.Namespace) -> dict[str, Gsvr]:
    """The other gsvr, if one is asked for; it must not be this one."""
    if not (asked.python or asked.pythonpath):
        return {}
    environment = {"PYTHONPATH": asked.pythonpath} if asked.pythonpath else {}
    other = Gsvr(asked.python or sys.executable, environment)
    homes = [gsvr.home(OUTPUT / "logs" / "home.txt") for gsvr in (Gsvr(), other)]
    if homes[0] == homes[1]:
        raise SystemExit(f"both are {homes[0]}: give the --python or the --pythonpath of another gsvr")
    logger.info("%s after %s", *homes)
    return {"before": other}


def main() -> None:
    """Measure, keep, and show as tables."""
    cases = (*SIMULATED, *REAL, LEFT_OUT)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=cases, default=list(cases))
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--motion", default="moderate", help="of the simulated cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; the least of their costs counts")
    parser.add_argument("--python", help="interpreter of another gsvr, to compare with")
    parser.add_argument("--pythonpath", help="PYTHONPATH of another gsvr, to compare with")
    asked = parser.parse_args()
    logging.basicConfig(format="bench-core: %(message)s")
    logger.setLevel(logging.INFO)
    others = _other(asked)
    path = OUTPUT / "core_pairs.json" if others else RESULTS / "core.json"
    runners, worse = {"now": Gsvr(), **others}, []
    for case in asked.cases:
        try:
            examination = find_examination(REAL[0] if case == LEFT_OUT else case, asked.motion, asked.seed)
        except SubjectMissingError as missing:
            logger.warning("%s left out: %s", case, missing)
            continue
        for preset in (LEFT_OUT,) if case == LEFT_OUT else asked.presets:
            if preset == LEFT_OUT:
                rows = {runner: measure_left_out(examination, gsvr) for runner, gsvr in runners.items()}
            else:
                rows = measure_preset(examination, preset, runners, asked.repeats)
            named = {preset if runner == "now" else f"{preset}, {runner}": row for runner, row in rows.items()}
            for name, row in named.items():
                _tell(f"{examination.name}, {name}", row)
            _keep(path, examination.name, named)
            for row in list(rows.values())[1:]:
                worse += [f"{examination.name}, {preset}: {what}" for what in became_worse(rows["now"], row)]
    print(core_tables(json.loads(path.read_text(encoding="utf-8"))))
    for sentence in worse:
        logger.warning("worse: %s", sentence)
    if others and not worse:
        logger.info("nothing became worse")
    raise SystemExit(1 if worse else 0)


if __name__ == "__main__":
    main()
