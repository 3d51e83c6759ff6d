"""``make bench-uncertainty``: whether the standard deviation of a voxel is what its error turns out to be.

Coverage of the 1- and 2-sigma bands and error against stated deviation, in the brain, for simulated acquisitions.
Results go to benchmarks/results/uncertainty.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.acquisitions import acquire
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.scoring import read_truth
from benchmarks.subjects import BRAINS, SubjectMissingError, find_subject
from gsvr.evaluation import compare
from gsvr.io.record import write_record
from gsvr.model.geometry import invert, transform_points
from gsvr.model.point_spread import FWHM_PER_SIGMA, IN_PLANE_FWHM_PER_SPACING
from gsvr.model.volume import Volume
from gsvr.render.volume import render_deviation
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.outputs import UNCERTAINTY_SAMPLES
from gsvr.workflows.pipeline import StackInputs, prepare, run

RESULTS = REPOSITORY / "benchmarks" / "results" / "uncertainty.json"
PICTURE = REPOSITORY / "docs" / "images" / "uncertainty.png"
_BINS = 8
# mm from what is not brain.
_DEEP = 4.0


def on_truth_grid(volume: Volume, pose: np.ndarray, truth: Volume) -> np.ndarray:
    """Linear interpolation of a volume that `pose` (volume world -> truth world) brings onto the truth's grid."""
    index = np.moveaxis(np.indices(truth.data.shape), 0, -1).reshape(-1, 3).astype(np.float64)
    matrix = np.linalg.inv(volume.affine) @ invert(pose) @ truth.affine
    values = ndimage.map_coordinates(volume.data, transform_points(matrix, index).T, order=1)
    return values.reshape(truth.data.shape)


def measure(subject: str, motion: str, seed: int) -> dict[str, Any]:
    """Coverage and the error in groups of voxels of growing stated deviation."""
    acquisition = acquire(find_subject(subject), motion, seed)
    truth = read_truth(acquisition)
    options = replace(SolverOptions(), uncertainty_samples=UNCERTAINTY_SAMPLES)
    reconstruction = run(prepare(StackInputs(acquisition.stacks, acquisition.masks, []), options))
    comparison = compare(reconstruction.volume, truth)
    result = reconstruction.result
    deviation = render_deviation(result.deviations, reconstruction.volume, result.difference)
    mask = comparison.mask & (truth.data > 0.05 * truth.data[comparison.mask].max())
    everywhere = comparison.gain * on_truth_grid(deviation, comparison.pose, truth).astype(np.float64)
    stated = everywhere[mask]
    error = np.abs(comparison.aligned - truth.data)[mask].astype(np.float64)
    order = np.argsort(stated)
    groups = np.array_split(order, _BINS)
    return {
        "coverage_1_sigma": float((error < stated).mean()),
        "coverage_2_sigma": float((error < 2 * stated).mean()),
        **_as_pixels_see_it(comparison.aligned, truth, mask, everywhere, float(np.median(result.slices.spacings))),
        "stated_rms": float(np.sqrt((stated**2).mean())),
        "error_rms": float(np.sqrt((error**2).mean())),
        "groups_stated_rms": [float(np.sqrt((stated[group] ** 2).mean())) for group in groups],
        "groups_error_rms": [float(np.sqrt((error[group] ** 2).mean())) for group in groups],
    }


def _as_pixels_see_it(
    aligned: np.ndarray, truth: Volume, mask: np.ndarray, stated: np.ndarray, spacing: float
) -> dict[str, float]:
    """Coverage deep in the brain of the truth seen through a pixel; what is finer no slice shows."""
    width = IN_PLANE_FWHM_PER_SPACING / FWHM_PER_SIGMA * spacing
    seen = ndimage.gaussian_filter(truth.data.astype(np.float64), width / truth.spacing)
    deep = np.asarray(ndimage.distance_transform_edt(mask, sampling=truth.spacing)) > _DEEP
    gain, offset = np.polyfit(aligned[deep].astype(np.float64), seen[deep], 1)
    error, within = np.abs(gain * aligned[deep] + offset - seen[deep]), gain * stated[deep]
    return {
        "coverage_1_sigma_as_seen": float((error < within).mean()),
        "coverage_2_sigma_as_seen": float((error < 2 * within).mean()),
    }


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Error against stated deviation, groups of voxels, both as shares of the acquisition's error (rms)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4.4), layout="constrained")
    most = 0.0
    for name, row in rows.items():
        stated, error = (np.array(row[f"groups_{kind}_rms"]) / row["error_rms"] for kind in ("stated", "error"))
        axes.plot(stated, error, "o-", label=name.removesuffix(", seed 0"), markersize=4)
        most = max(most, float(error.max()), float(stated.max()))
    axes.plot([0, most], [0, most], color="0.5", linestyle=":", label="error as stated")
    axes.set(xlabel="stated deviation (rms)", ylabel="error (rms)", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Measure all subjects at hand."""
    rows: dict[str, dict[str, Any]] = {}
    for subject in BRAINS:
        for motion in ("none", "moderate"):
            try:
                rows[f"{subject}, {motion}, seed 0"] = row = measure(subject, motion, 0)
            except SubjectMissingError as missing:
                print(f"{subject}: skipped, {missing}", file=sys.stderr)
                continue
            print(
                f"{subject:9s} {motion:9s} within 1 sigma {row['coverage_1_sigma']:.3f} (normal: 0.683), "
                f"within 2 sigma {row['coverage_2_sigma']:.3f} (0.954); "
                f"deep, as pixels see it, {row['coverage_1_sigma_as_seen']:.3f}, {row['coverage_2_sigma_as_seen']:.3f}"
            )
    write_record(RESULTS, {"rows": rows, "measured": provenance()})
    draw(rows, PICTURE)


if __name__ == "__main__":
    main()
