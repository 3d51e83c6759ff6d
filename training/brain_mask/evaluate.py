"""How good the masks are: on real stacks, also degraded ones, and on atlas brains in surroundings of their own.

``python -m training.brain_mask.evaluate --data SHARED --output results.json`` prints the tables and writes the
numbers. SHARED holds ``fetal-mial-sub-01`` and ``atlas-crl``; neither was trained on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gsvr.masks.automatic import FindOptions, find_brains
from training.brain_mask.scene import SceneOptions
from training.brain_mask.surroundings import Head, acquire, draw_volume, read_head

FAILED = 0.8  # Dice


@dataclass(frozen=True)
class Row:
    """One stack of one table."""

    table: str
    stack: str
    dice: float
    centroid_mm: float
    volume_ratio: float
    confidence: float
    doubt: str | None
    cpu_seconds: float


Stack = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, drawn mask, affine


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks."""
    return 2 * float((a & b).sum()) / max(float(a.sum() + b.sum()), 1.0)


def _centroid(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ np.array(ndimage.center_of_mass(mask)) + affine[:3, 3]


def score(table: str, names: list[str], stacks: list[Stack]) -> list[Row]:
    """Finds the brain in stacks of one fetus and compares with the drawn masks."""
    since = time.process_time()
    found = find_brains([(image, affine) for image, _, affine in stacks], names, FindOptions())
    seconds = (time.process_time() - since) / len(stacks)
    rows = []
    for name, (_, drawn, affine), one in zip(names, stacks, found, strict=True):
        away = float("nan")
        if one.mask.any() and drawn.any():
            away = float(np.linalg.norm(_centroid(one.mask, affine) - _centroid(drawn, affine)))
        ratio = float(one.mask.sum() / max(drawn.sum(), 1))
        rows.append(Row(table, name, dice(one.mask, drawn), away, ratio, one.confidence, one.doubt, seconds))
    return rows


# ---------------------------------------------------------------------------------------------- real stacks


def read_real(folder: Path) -> list[Stack]:
    """The six stacks of ``fetal-mial-sub-01`` with the masks that come with them."""
    stacks = []
    for path in sorted(folder.glob("sub-01_run-*_T2w.nii.gz")):
        image, mask = nib.load(path), nib.load(str(path).replace("_T2w", "_desc-brain_mask"))
        data = np.asarray(image.dataobj, np.float32)  # type: ignore[attr-defined]
        stacks.append((data, np.asarray(mask.dataobj) > 0, image.affine))  # type: ignore[attr-defined]
    return stacks


def _gamma(stack: Stack, rng: np.random.Generator) -> Stack:
    del rng
    image, mask, affine = stack
    return (image / image.max()) ** 0.7 * image.max(), mask, affine


def _bias(stack: Stack, rng: np.random.Generator) -> Stack:
    image, mask, affine = stack
    field = np.asarray(ndimage.zoom(rng.standard_normal((4, 4, 3)), np.array(image.shape) / (4, 4, 3), order=3))
    return image * (1 + 0.15 * field / np.abs(field).max()).astype(np.float32), mask, affine


def _noise(stack: Stack, rng: np.random.Generator) -> Stack:
    image, mask, affine = stack
    sigma = float(image[mask].mean()) / 20
    noisy = np.hypot(image + rng.normal(0, sigma, image.shape), rng.normal(0, sigma, image.shape))
    return noisy.astype(np.float32), mask, affine


def _larger_pixels(stack: Stack, rng: np.random.Generator) -> Stack:
    del rng
    image, mask, affine = stack
    old = np.linalg.norm(affine[:3, 0])
    shape = [int(n * old / 1.5) for n in image.shape[:2]]
    index = [(np.arange(m) + 0.5) * 1.5 / old - 0.5 for m in shape]
    where = np.stack(np.meshgrid(*index, np.arange(image.shape[2]), indexing="ij"))
    smooth = ndimage.gaussian_filter(image, (0.5, 0.5, 0))
    new = affine.copy()
    new[:3, :2] *= 1.5 / old
    new[:3, 3] = affine[:3, 3] + affine[:3, :2] @ np.array([index[0][0], index[1][0]])
    return (
        ndimage.map_coordinates(smooth, where, order=1),
        ndimage.map_coordinates(mask.astype(np.float32), where, order=1) > 0.5,
        new,
    )


def _cropped(stack: Stack, rng: np.random.Generator) -> Stack:
    """Cut to 15 to 50 mm around the brain on each side in the plane, and the end slices off."""
    image, mask, affine = stack
    part = []
    for axis in (0, 1):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = rng.uniform(15, 50, 2) / np.linalg.norm(affine[:3, axis])
        part.append(slice(max(int(used[0] - margin[0]), 0), int(used[-1] + margin[1]) + 1))
    part.append(slice(1, -1))
    new = affine.copy()
    new[:3, 3] += affine[:3, :3] @ [p.start for p in part]
    return image[tuple(part)], mask[tuple(part)], new


DEGRADED: dict[str, Callable[[Stack, np.random.Generator], Stack]] = {
    "gamma 0.7": _gamma,
    "bias 15 %": _bias,
    "noise, SNR 20": _noise,
    "1.5 mm pixels": _larger_pixels,
    "cropped": _cropped,
}


def evaluate_real(folder: Path) -> list[Row]:
    """Real stacks: as they are, each alone, and degraded."""
    stacks = read_real(folder)
    names = [f"run-{k + 1}" for k in range(len(stacks))]
    rows = score("real", names, stacks)
    for name, stack in zip(names, stacks, strict=True):
        rows += score("real, each stack alone", [name], [stack])
    for what, degrade in DEGRADED.items():
        rng = np.random.default_rng(7)
        rows += score(f"real, {what}", names, [degrade(stack, rng) for stack in stacks])
    return rows


# --------------------------------------------------------------------------------------------- atlas brains


def evaluate_atlas(folder: Path, acquisitions: int, kept: Path | None = None) -> list[Row]:
    """Acquisitions of three stacks of CRL brains, weeks 27 and 33 in turn; then some of twins, some without a brain.

    They are kept in the folder ``kept``, if one is given, and read from there the next time.
    """
    margin = SceneOptions().margin
    heads = {week: read_head(folder / f"STA{week}.nii.gz", margin) for week in (27, 33)}
    rows = []
    few = max(acquisitions // 10, 1)
    for number in range(acquisitions + 2 * few):
        week = (27, 33)[number % 2]
        if number < acquisitions:
            table, present = f"atlas, week {week}", [heads[week]]
        elif number < acquisitions + few:
            table, present = "atlas, twins", [heads[27], heads[27]]
        else:
            table, present = "no brain", []
        path = None if kept is None else kept / f"{number}.npz"
        if path is not None and path.exists():
            with np.load(path) as read:
                stacks = [
                    (read[f"image{k}"].astype(np.float32), read[f"mask{k}"], read[f"affine{k}"]) for k in range(3)
                ]
        else:
            stacks = acquire_three(np.random.default_rng([2026, number]), present)
        if path is not None and not path.exists():
            arrays = {}
            for k, (image, mask, affine) in enumerate(stacks):
                arrays |= {f"image{k}": np.rint(image).astype(np.uint16), f"mask{k}": mask, f"affine{k}": affine}
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **arrays)
        rows += score(table, [f"{number}-{k}" for k in range(3)], stacks)
    return rows


def acquire_three(rng: np.random.Generator, heads: list[Head]) -> list[Stack]:
    """Three stacks at right angles to each other, in a random direction."""
    volume, mask = draw_volume(rng, heads)
    base = Rotation.from_quat(rng.standard_normal(4))
    thickness, pixel = rng.uniform(2.5, 5.0), rng.uniform(0.9, 1.6)
    views = [Rotation.from_euler("xyz", view, degrees=True) for view in ([0, 0, 0], [90, 0, 0], [0, 90, 0])]
    return [acquire(rng, volume, mask, base * view, thickness, pixel) for view in views]


def print_table(rows: list[Row], each: bool) -> None:
    """One line a table; with ``each``, the Dice of every stack."""
    for table in dict.fromkeys(row.table for row in rows):
        part = [row for row in rows if row.table == table]
        values = np.array([row.dice for row in part])
        doubtful = sum(row.doubt is not None for row in part)
        unnoticed = sum(row.doubt is None and row.dice < FAILED for row in part)
        line = f"{table:24s} mean {values.mean():.3f} least {values.min():.3f} doubtful {doubtful} of {len(part)}"
        line += f" failed unnoticed {unnoticed} CPU s {np.mean([row.cpu_seconds for row in part]):.2f}"
        print(line + ("  " + " ".join(f"{v:.3f}" for v in values) if each else ""), flush=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--acquisitions", type=int, default=50)
    parser.add_argument("--kept", type=Path, help="folder to keep the acquisitions of atlas brains in")
    parser.add_argument("--only", choices=["real", "atlas"])
    given = parser.parse_args()
    rows = []
    if given.only != "atlas":
        rows += evaluate_real(given.data / "fetal-mial-sub-01")
        print_table(rows, each=True)
    if given.only != "real":
        atlas = evaluate_atlas(given.data / "atlas-crl", given.acquisitions, given.kept)
        print_table(atlas, each=False)
        rows += atlas
    if given.output:
        given.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
