"""A stack that is being acquired: each slice is placed as it comes, against the volume that there is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from gsvr.masks.consensus import project_mask
from gsvr.model.morphology import bounding_box
from gsvr.model.slices import SliceKey, Slices, Stack, slices_from_stacks
from gsvr.solver.online.reconstruction import OnlineState, place_slices
from gsvr.solver.schedule import SolverOptions

# mm around the mask, where it is predicted to be, that are kept of a slice; it may move as far.
_REACH = 15.0
# Pixels along each side that are kept of a slice far from the anatomy, to have its place in time.
_TOKEN = 8
# mm up to which a slice of the complete stack is the one that came before.
_SAME_PLACE = 0.05


@dataclass(frozen=True)
class PlacedSlice:
    """Where a slice was when it was acquired.

    Attributes
    ----------
    number
        In the order of arrival, from 0.
    pose
        Acquired world -> volume world.
    movement
        See `gsvr.solver.motion.movements`; NaN for the first.
    agreement
        See `gsvr.solver.placement.Placement`.
    """

    number: int
    pose: Float[np.ndarray, "4 4"]
    movement: float
    agreement: float


class ArrivingStack:
    """The slices of one stack so far.

    Parameters
    ----------
    name
        What the stack is called, by which the solver knows its poses.
    begin
        Pose of the slice that was acquired last before this stack, since the head is still about there.
    """

    def __init__(self, name: str, begin: Float[np.ndarray, "4 4"]) -> None:
        self.name, self._begin = name, begin
        self._origins: list[np.ndarray] = []
        self._cropped: list[Stack] = []
        self._times: list[float] = []
        self._poses: list[np.ndarray] = []

    @property
    def n_slices(self) -> int:
        """How many came so far."""
        return len(self._cropped)

    def place(
        self, state: OnlineState, images: list[Stack], times: list[float], options: SolverOptions
    ) -> list[PlacedSlice]:
        """Place slices that arrived.

        Parameters
        ----------
        state
            What to place them against.
        images
            Of one slice each.
        times
            When each was acquired (s).

        Returns
        -------
        list[PlacedSlice]
            Of the slices that arrived; those before are placed better as well, see `poses_of`.
        """
        before = self.n_slices
        for image, time in zip(images, times, strict=True):
            self._cropped.append(_cropped(image, state, self._predicted(time)))
            self._origins.append(image.affine[:3, 3])
            self._times.append(time)
        slices = self._slices()
        known: dict[SliceKey, np.ndarray] = dict(zip(slices.keys, self._poses, strict=False))
        if not known:  # the first one in time starts where the head was last
            known[slices.keys[int(np.argmin(slices.times))]] = self._begin
        placed = place_slices(state, slices, known, options)
        self._poses = list(placed.poses)
        return [
            PlacedSlice(number, placed.poses[number], float(placed.movement[number]), float(placed.agreement[number]))
            for number in range(before, self.n_slices)
        ]

    def poses_of(self, stack: Stack) -> dict[SliceKey, Float[np.ndarray, "4 4"]]:
        """Poses of the slices of the complete stack, by what the solver calls them; of those that were placed."""
        if not self._origins:
            return {}
        found: dict[SliceKey, np.ndarray] = {}
        for index in range(stack.n_slices):
            origin = stack.affine[:3, 2] * index + stack.affine[:3, 3]
            distances = np.linalg.norm(np.array(self._origins) - origin, axis=1)
            nearest = int(np.argmin(distances))
            if distances[nearest] < _SAME_PLACE:
                found[stack.name, index] = self._poses[nearest]
        return found

    def _predicted(self, time: float) -> Float[np.ndarray, "4 4"]:
        if not self._poses:
            return self._begin
        return self._poses[int(np.argmin(np.abs(np.array(self._times[: len(self._poses)]) - time)))]

    def _slices(self) -> Slices:
        """All slices so far as those of one stack, numbered in the order of arrival."""
        slices = slices_from_stacks(self._cropped)
        n = self.n_slices
        return replace(
            slices,
            stack_index=np.zeros(n, np.int64),
            slice_index=np.arange(n),
            stack_names=(self.name,),
            times=np.array(self._times, np.float64),
        )


def _cropped(image: Stack, state: OnlineState, pose: Float[np.ndarray, "4 4"]) -> Stack:
    """The part of a slice where the anatomy may be."""
    whole = slices_from_stacks([replace(image, mask=None)])
    near = project_mask(state.mask, whole, pose[None], _REACH).reshape(image.data.shape[:2])
    if near.any():
        box = bounding_box(near)
    else:
        middle = [max(side // 2 - _TOKEN // 2, 0) for side in image.data.shape[:2]]
        box = tuple(slice(first, first + _TOKEN) for first in middle)
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, 0] * box[0].start + affine[:3, 1] * box[1].start
    return replace(image, data=image.data[box], affine=affine, mask=None)
