"""What keeps a reconstruction with known poses from the truth: noise, prior, slice profile, density of Gaussians.

``python -m benchmarks.gap``: nothing moves and all gains are one; one thing is changed at a time. Results go to
benchmarks/results/gap.json.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from benchmarks.acquisitions import acquire
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.methods import Change, change_prior, on_lattice, run_gsvr, unchanged, with_final_spacing, without_motion
from benchmarks.problem import read_problem
from benchmarks.recorder import Recorder
from benchmarks.subjects import SubjectMissingError, find_subject
from benchmarks.tables import table
from gsvr.io.record import write_record
from gsvr.model.point_spread import ProfileName

RESULTS = REPOSITORY / "benchmarks" / "results" / "gap.json"
SUBJECTS = ("phantom", "atlas-33", "ch2bet")
_STILL = {"gain": 0.0, "signal-loss": 0.0}


def _assuming(profile: ProfileName) -> Change:
    return lambda options: replace(options, profile=profile)


@dataclass(frozen=True)
class Variant:
    """One change: of what is simulated, or of how it is reconstructed."""

    description: str
    change: Change = unchanged
    settings: Mapping[str, str | float] = field(default_factory=dict)


_NO_NOISE = {"noise": 0.0}
VARIANTS = (
    Variant("as it is"),
    Variant("no noise", settings=_NO_NOISE),
    Variant("no prior", partial(change_prior, factor=1e-4)),
    Variant("no noise, no prior", partial(change_prior, factor=1e-4), _NO_NOISE),
    Variant("no noise, final spacing 0.8 times as large", partial(with_final_spacing, 0.8), _NO_NOISE),
    Variant("one Gaussian with a slab's variance assumed", _assuming("slab-gaussian")),
    Variant("Gaussian with FWHM = thickness assumed", _assuming("gaussian")),
    Variant("slices with a Gaussian profile, known to be", _assuming("gaussian"), {"profile": "gaussian"}),
    Variant("lattice", on_lattice),
    Variant("lattice, no noise", on_lattice, _NO_NOISE),
)


def measure(subject: str, variant: Variant) -> dict[str, float]:
    """Scores of the volume with true poses."""
    problem = read_problem(acquire(find_subject(subject), "none", settings={**_STILL, **variant.settings}))
    volume, poses = run_gsvr(
        problem,
        Recorder(problem, every_point=False),
        lambda options: variant.change(without_motion(options)),
        known_poses=True,
    )
    return problem.score(volume, poses)


def gap_table(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """PSNR / SSIM of every variant, a column for each subject."""
    columns = {subject: f"{{{subject}[psnr]:.2f}} / {{{subject}[ssim]:.4f}}" for subject in rows}
    names = [variant.description for variant in VARIANTS]
    found = [(name, {subject: row.get(name) for subject, row in rows.items()}) for name in names]
    return table("PSNR (dB) / SSIM", columns, found)


def main() -> None:
    """Measure every variant of every subject at hand."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for subject in SUBJECTS:
        for variant in VARIANTS:
            try:
                row = measure(subject, variant)
            except SubjectMissingError as missing:
                print(f"{subject}: skipped, {missing}", file=sys.stderr)
                break
            rows.setdefault(subject, {})[variant.description] = row
            print(f"{subject}, {variant.description}: {row['psnr']:.2f} dB, {row['ssim']:.4f}", flush=True)
            write_record(RESULTS, {"rows": rows, "measured": provenance()})
    print(gap_table(rows))


if __name__ == "__main__":
    main()
