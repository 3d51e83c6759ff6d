"""What a report tells of: one reconstruction, made just now or read from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from gsvr.evaluation.verdict import Limits
from gsvr.io.transforms import SlicePose
from gsvr.model.slices import Slices, Stack
from gsvr.model.volume import Volume


@dataclass(frozen=True, repr=False)
class Acquisition:
    """What was measured, beside what the field predicts.

    Attributes
    ----------
    stacks
        As they were read; empty if only their slices are known.
    slices
        Some or all of their slices; the mask tells which pixels were used.
    poses
        Acquired world -> volume world, one a slice.
    prediction
        Predicted pixels (flat, as `Slices.values`).
    """

    stacks: Sequence[Stack]
    slices: Slices
    poses: Float[np.ndarray, "n 4 4"]
    prediction: Float32[np.ndarray, " p"]

    @cached_property
    def place(self) -> dict[tuple[str, int], int]:
        """Which of the slices a slice of a stack is."""
        names, slices = self.slices.stack_names, self.slices
        pairs = zip(slices.stack_index, slices.slice_index, strict=True)
        return {(names[stack], int(index)): number for number, (stack, index) in enumerate(pairs)}


@dataclass(frozen=True, repr=False)
class Examination:
    """A reconstruction, and all there is to say about it.

    Attributes
    ----------
    name
        What the reader knows it by.
    record
        Of the run, in plain JSON.
    volume
        With the brain mask, on a grid along the world's axes.
    slices
        Pose of every slice with what became of it, stack by stack.
    acquisition
        None: the stacks are not at hand.
    uncertainty
        Standard deviation of every voxel, on the volume's grid.
    """

    name: str
    record: Mapping[str, Any]
    volume: Volume
    slices: Sequence[SlicePose]
    acquisition: Acquisition | None = None
    uncertainty: Volume | None = None

    @property
    def mask(self) -> Bool[np.ndarray, "x y z"]:
        """The brain, or else where the volume is not zero."""
        return self.volume.data != 0 if self.volume.mask is None else self.volume.mask

    @cached_property
    def turn(self) -> Float[np.ndarray, "4 4"]:
        """World of the scanner -> world of the volume (mm)."""
        return np.array((self.record.get("orientation") or {}).get("matrix", np.eye(4)), np.float64)

    @property
    def anatomical(self) -> bool:
        """Whether the axes of the volume are those of the brain."""
        return (self.record.get("orientation") or {}).get("space") == "anatomical"

    @cached_property
    def turned_stacks(self) -> list[Stack]:
        """The stacks as they were acquired, in the world of the volume."""
        if self.acquisition is None:
            return []
        return [replace(stack, affine=self.turn @ stack.affine) for stack in self.acquisition.stacks]

    @cached_property
    def centre(self) -> Float[np.ndarray, " 3"]:
        """Middle of the brain (mm, volume world)."""
        return self.volume.centre(self.mask)

    @cached_property
    def stack_names(self) -> list[str]:
        """In the order of the record."""
        return list(dict.fromkeys(pose.stack for pose in self.slices))

    def of_stack(self, name: str) -> list[SlicePose]:
        """Its slices."""
        return [pose for pose in self.slices if pose.stack == name]


def is_used(pose: SlicePose) -> bool:
    """Whether the slice shows any of the brain."""
    return bool(pose.details.get("used", True))


def weight_of(pose: SlicePose) -> float:
    """How much a slice counts: one, or less."""
    return float(pose.details.get("weight", 1.0))


def is_doubted(pose: SlicePose) -> bool:
    """Whether the slice shows the brain and counts less than half."""
    return is_used(pose) and weight_of(pose) < Limits.believed
