"""Whether stacks and their masks make sense together, before any of them is reconstructed."""

from __future__ import annotations

import numpy as np

from gsvr.errors import InputError
from gsvr.masks.first import StackMasks
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume

# mm^3; the brain of a fetus of 14 weeks has some 4 ml, and a pregnant uterus at term less than 10 l.
_SMALLEST_ANATOMY, _LARGEST_ANATOMY = 1e3, 3e7
# Of the pixels of a mask, those that show anything.
_SMALLEST_SHARE = 0.02


def check_content(stacks: list[Stack], masks: StackMasks) -> None:
    """Every mask must show something, and together they must show enough to be a brain.

    Raises
    ------
    InputError
        If a mask is (nearly) empty of signal, or the typical one is too small for a brain or too large for anything.
    """
    volumes = []
    for stack, mask in zip(stacks, masks.masks, strict=True):
        n_shown = np.count_nonzero(stack.data[mask])
        if n_shown < _SMALLEST_SHARE * mask.sum():
            nearly = "nearly " if n_shown else ""
            raise InputError(
                f"{stack.name} is zero {nearly}everywhere inside its mask: give another mask, or leave it out"
            )
        volumes.append(mask.sum() * float(np.prod(stack.spacing)))
    if np.median(volumes) < _SMALLEST_ANATOMY:
        raise InputError(
            f"the masks of {stacks[0].name} and the others hold {np.median(volumes) / 1000:.2g} ml, too little for a "
            "brain: draw them around all of it, or leave them out"
        )
    if np.median(volumes) > _LARGEST_ANATOMY:
        raise InputError(
            f"the masks of {stacks[0].name} and the others hold {np.median(volumes) / 1e6:.0f} litres, which takes "
            "tens of gigabytes: correct the voxel sizes in the headers, or give masks of what is to be reconstructed"
        )


def check_overlap(stacks: list[Stack], masks: StackMasks) -> None:
    """The fields of view of all stacks must hang together in world space.

    Raises
    ------
    InputError
        If they fall apart.
    """
    boxes = []
    for stack, view in zip(stacks, masks.fields_of_view, strict=True):
        placed = Volume(stack.data, stack.affine).outline(view)
        boxes.append((placed.min(axis=0), placed.max(axis=0)))
    low, high = (np.stack(side) for side in zip(*boxes, strict=True))
    meets = np.all((low[:, None] < high) & (low < high[:, None]), axis=2)
    part = np.arange(len(stacks))  # the least number of any stack that hangs together with it
    for _ in stacks:
        part = np.where(meets, part, len(stacks)).min(axis=1)
    if part.any():
        smallest = int(np.argmin(np.bincount(part)[part]))
        names = [stack.name for number, stack in enumerate(stacks) if part[number] == part[smallest]]
        raise InputError(
            f"{' and '.join(names)}: no overlap with the other stacks in scanner coordinates; check that all stacks "
            "are of one examination, or leave out those that are not"
        )
