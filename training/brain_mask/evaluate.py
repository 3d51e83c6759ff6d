"""How good the masks are: on real stacks, also degraded ones, and on atlas brains in surroundings of their own.

``python -m training.brain_mask.evaluate --data SHARED --output results.json`` prints the tables and writes the
numbers. SHARED holds ``fetal-mial-sub-01`` and ``atlas-crl``; neither was trained on. ``--only validation`` takes
brains of ``atlas-fidon-cc0``, which was trained on, in the same surroundings: numbers are chosen there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gsvr.masks.automatic import FindOptions, FoundMask, find_brains
from gsvr.masks.first import StackMasks, fields_of_view
from gsvr.masks.options import MaskOptions
from gsvr.model.slices import Stack
from gsvr.workflows.stack_masks import refined_masks
from training.brain_mask.cases import DEGRADED, Case, read_real
from training.brain_mask.scene import SceneOptions
from training.brain_mask.surroundings import Head, acquire, draw_volume, read_head
from training.brain_mask.volumes import VolumeRow, evaluate_volumes, print_volumes

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


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks."""
    return 2 * float((a & b).sum()) / max(float(a.sum() + b.sum()), 1.0)


def _centroid(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ np.array(ndimage.center_of_mass(mask)) + affine[:3, 3]


def score(table: str, names: list[str], stacks: list[Case]) -> list[Row]:
    """Finds the brain in stacks of one fetus, as a reconstruction does, and compares with the drawn masks."""
    since = time.process_time()
    found = find_brains([(image, affine) for image, _, affine in stacks], names, FindOptions())
    masks = _refined(names, stacks, found)
    seconds = (time.process_time() - since) / len(stacks)
    rows = []
    for name, (_, drawn, affine), one, mask in zip(names, stacks, found, masks, strict=True):
        away = float("nan")
        if mask.any() and drawn.any():
            away = float(np.linalg.norm(_centroid(mask, affine) - _centroid(drawn, affine)))
        ratio = float(mask.sum() / max(drawn.sum(), 1))
        rows.append(Row(table, name, dice(mask, drawn), away, ratio, one.confidence, one.doubt, seconds))
    return rows


def _refined(names: list[str], stacks: list[Case], found: list[FoundMask]) -> list[np.ndarray]:
    """The masks that a reconstruction starts with; those of doubtful stacks, which it does not use, as found."""
    read = [
        Stack(name, image, affine, float(np.linalg.norm(affine[:3, 2])))
        for name, (image, _, affine) in zip(names, stacks, strict=True)
    ]
    masks, trusted = [one.mask for one in found], [one.doubt is None for one in found]
    views = fields_of_view(read, masks, MaskOptions())
    return refined_masks(read, StackMasks(masks, views, trusted, trusted, [one.probability for one in found])).masks


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
        stacks = _kept(path, lambda n=number, heads=present: acquire_three(np.random.default_rng([2026, n]), heads))
        rows += score(table, [f"{number}-{k}" for k in range(3)], stacks)
    return rows


def evaluate_validation(folder: Path, acquisitions: int, kept: Path | None = None) -> list[Row]:
    """Acquisitions of three stacks of the brains in ``atlas-fidon-cc0``, images and labels."""
    labels = sorted(folder.glob("*_parcellation.nii.gz"))
    rows = []
    for number in range(acquisitions):
        parcellation = labels[(4 * number + 3) % len(labels)]
        image = parcellation.with_name(parcellation.name.replace("_parcellation", "_srr"))

        def acquired(number: int = number, image: Path = image, parcellation: Path = parcellation) -> list[Case]:
            head = read_head(image, SceneOptions().margin, parcellation)
            return acquire_three(np.random.default_rng([31, number]), [head])

        stacks = _kept(None if kept is None else kept / f"validation-{number}.npz", acquired)
        rows += score("validation", [f"{number}-{k}" for k in range(3)], stacks)
    return rows


def _kept(path: Path | None, acquired: Callable[[], list[Case]]) -> list[Case]:
    """Stacks as a file keeps them; where there is none yet, they are acquired."""
    if path is not None and path.exists():
        with np.load(path) as read:
            return [(read[f"image{k}"].astype(np.float32), read[f"mask{k}"], read[f"affine{k}"]) for k in range(3)]
    stacks = acquired()
    if path is not None:
        arrays = {}
        for k, (image, mask, affine) in enumerate(stacks):
            arrays |= {f"image{k}": np.rint(image).astype(np.uint16), f"mask{k}": mask, f"affine{k}": affine}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
    return stacks


def acquire_three(rng: np.random.Generator, heads: list[Head]) -> list[Case]:
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
    parser.add_argument("--only", choices=["real", "volumes", "atlas", "validation"])
    given = parser.parse_args()
    rows: list[Row | VolumeRow] = []
    if given.only in (None, "real"):
        real = evaluate_real(given.data / "fetal-mial-sub-01")
        print_table(real, each=True)
        rows += real
    if given.only in (None, "volumes"):
        volumes = evaluate_volumes(given.data / "fetal-mial-sub-01")
        print_volumes(volumes)
        rows += volumes
    if given.only in (None, "atlas"):
        atlas = evaluate_atlas(given.data / "atlas-crl", given.acquisitions, given.kept)
        print_table(atlas, each=False)
        rows += atlas
    if given.only == "validation":
        validation = evaluate_validation(given.data / "atlas-fidon-cc0", given.acquisitions, given.kept)
        print_table(validation, each=True)
        rows += validation
    if given.output:
        given.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
