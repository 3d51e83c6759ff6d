"""How well the axes of brains are found that lie in any way: ``python -m benchmarks.orientation DATA``.

``DATA`` holds ``atlas-fidon-cc0`` and ``atlas-crl``. Every brain is turned at random, as it is and with faults that a
reconstruction may have: noise, uneven brightness, and a mask that is too wide or too narrow and misses a piece. The
average brains are made without the brain that is looked at. Writes ``benchmarks/results/orientation.json``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gsvr.evaluation.anatomical_axes import anatomical_axes, average_brains, axes_of_template
from gsvr.io.nifti import read_volume
from gsvr.io.record import write_record
from gsvr.model.geometry import pose_from_parts
from gsvr.model.volume import Volume
from training.average_brains import atlas_paths, averages, normalised_atlas

RESULTS = Path(__file__).parent / "results" / "orientation.json"
# Rotations of each brain; mm of a voxel; degrees beyond which an axis is a wrong one.
TURNS, SPACING, WRONG = 24, 1.5, 45.0


def main(data: Path, n_turns: int = TURNS) -> None:
    """Turn all brains and print how far off the axes are."""
    paths = atlas_paths(data / "atlas-fidon-cc0")
    normalised = [normalised_atlas(path) for path in paths]
    brains = {path.name.split("_srr")[0]: read_volume(path, Path(str(path).replace("_srr", "_mask"))) for path in paths}
    subject = average_brains()[-1]
    without = [averages([None if other is brain else other for other in normalised], subject) for brain in normalised]
    without += [averages(normalised, subject)] * 2
    for week in ("27", "33"):
        path = data / "atlas-crl" / f"STA{week}.nii.gz"
        brains[f"CRL{week}"] = read_volume(path, path.with_name(f"STA{week}_mask_dil.nii.gz"))
    rows, generator = [], np.random.default_rng(0)
    for (name, brain), known in zip(brains.items(), without, strict=True):
        coarse = resampled(brain)
        for number in range(n_turns):
            turn = Rotation.random(rng=generator).as_matrix()
            kind = "plain" if number % 2 == 0 else "faulty"
            seen = coarse if kind == "plain" else faulty(coarse, generator)
            pose = pose_from_parts(turn, generator.normal(size=3) * 20)
            turned = replace(seen, affine=pose @ seen.affine)
            found = anatomical_axes(turned, known)
            rows.append({"brain": name, "kind": kind, **errors(found.pose[:3, :3] @ turn)})
            rows[-1] |= {"likeness": found.likeness, "margin": found.margin, "resolved": found.resolved}
        print(name, summary([row for row in rows if row["brain"] == name]), flush=True)
    for kind in ("plain", "faulty"):
        for family in ("GA", "CRL"):
            print(kind, family, summary([r for r in rows if r["kind"] == kind and r["brain"].startswith(family)]))
    template = template_rows(brains, generator)
    print("template", summary(template))
    write_record(RESULTS, {"turns": n_turns, "rows": rows, "template": template})


def template_rows(brains: dict[str, Volume], generator: np.random.Generator) -> list[dict]:
    """The CRL brains onto each other, as they are: how far off the axes are that were common."""
    rows = []
    for name, other in (("CRL27", "CRL33"), ("CRL33", "CRL27")):
        brain = resampled(brains[name])
        for _ in range(4):
            turn = Rotation.random(rng=generator).as_matrix()
            turned = replace(brain, affine=pose_from_parts(turn, generator.normal(size=3) * 20) @ brain.affine)
            found = axes_of_template(turned, resampled(brains[other]))
            rows.append({"brain": name, "kind": "template", **errors(found.pose[:3, :3] @ turn)})
            rows[-1] |= {"likeness": found.likeness, "margin": found.margin, "resolved": found.resolved}
    return rows


def errors(left: np.ndarray) -> dict[str, float]:
    """What is left of a rotation that should be none: angle of the plane of symmetry and of all axes (degrees)."""
    plane = np.degrees(np.arccos(min(1.0, abs(float(left[0, 0])))))
    return {"plane": float(plane), "all": float(np.degrees(Rotation.from_matrix(left).magnitude()))}


def resampled(volume: Volume) -> Volume:
    """In voxels of the size that a reconstruction is looked at in."""
    factors = volume.spacing / SPACING
    assert volume.mask is not None
    data = ndimage.zoom(ndimage.gaussian_filter(volume.data, 0.4 / factors), factors, order=1, grid_mode=False)
    mask = ndimage.zoom(volume.mask.astype(np.float32), factors, order=1, grid_mode=False) > 0.5
    steps = (np.array(volume.data.shape) - 1) / (np.array(data.shape) - 1)
    return Volume(np.asarray(data), volume.affine @ np.diag([*steps, 1.0]), np.asarray(mask))


def faulty(volume: Volume, generator: np.random.Generator) -> Volume:
    """With noise, uneven brightness, and a mask of another width that misses a piece."""
    assert volume.mask is not None
    change = generator.integers(-2, 3)
    mask = volume.mask
    if change:
        operation = ndimage.binary_dilation if change > 0 else ndimage.binary_erosion
        mask = np.asarray(operation(mask, iterations=abs(int(change))), bool)
    spot = generator.uniform(0, 1, 3) * volume.data.shape
    index = np.moveaxis(np.indices(volume.data.shape), 0, -1)
    mask &= np.linalg.norm(index - spot, axis=-1) > generator.uniform(3, 10)
    field = ndimage.gaussian_filter(generator.normal(size=volume.data.shape), 14)
    bias = np.exp(0.25 * field / field.std())
    bright = np.percentile(volume.data[volume.mask], 95)
    noisy = volume.data * bias + 0.06 * bright * generator.normal(size=volume.data.shape)
    # what is around a brain: skull, fluid, the mother
    around = bright * np.abs(ndimage.gaussian_filter(generator.normal(size=volume.data.shape), 2)) * 4
    return Volume(np.where(volume.data > 0, noisy, around).clip(0).astype(np.float32), volume.affine, mask)


def summary(rows: list[dict]) -> str:
    """Degrees of the plane, and the share with all axes right."""
    planes, angles = np.array([row["plane"] for row in rows]), np.array([row["all"] for row in rows])
    resolved = np.array([row["resolved"] for row in rows])
    right = angles < WRONG
    margin = np.array([row["margin"] for row in rows])
    return (
        f"n {len(rows)}; plane: median {np.median(planes):.2f}, 95 % {np.percentile(planes, 95):.2f}, most "
        f"{planes.max():.1f} degrees; all axes: median {np.median(angles):.1f}; right {right.mean():.3f}; said to be "
        f"resolved {resolved.mean():.3f}, of these right {right[resolved].mean() if resolved.any() else np.nan:.3f}; "
        f"least margin {margin[right].min() if right.any() else np.nan:.3f}, of wrong ones at most "
        f"{margin[~right].max() if (~right).any() else np.nan:.3f}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
