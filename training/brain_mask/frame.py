"""The sample points of a scene: planes of pixels, each plane where the fetus lay when it was acquired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.brain_mask.fields import small_rotation


@dataclass(frozen=True)
class Frame:
    """Points (planes, rows, columns) in mm: a rigid motion of each plane of a regular grid.

    What is linear or quadratic in the position is the sum of a function of plane and row and one of plane and column:
    no array of positions is needed.
    """

    depths: np.ndarray  # (planes,)
    rows: np.ndarray  # (rows,)
    columns: np.ndarray  # (columns,)
    turns: np.ndarray  # (planes, 3, 3)
    shifts: np.ndarray  # (planes, 3)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, rows and columns."""
        return len(self.depths), len(self.rows), len(self.columns)

    def along(self, direction: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """``direction`` times (position minus ``origin``), float32 (planes, rows, columns)."""
        slope = np.einsum("i,pij->pj", direction, self.turns)
        constant = slope[:, 2] * self.depths + (self.shifts - origin) @ direction
        across = slope[:, 0, None] * self.columns + constant[:, None]
        down = slope[:, 1, None] * self.rows
        return down.astype(np.float32)[:, :, None] + across.astype(np.float32)[:, None, :]

    def squared_distance(self, origin: np.ndarray) -> np.ndarray:
        """Square of the distance to ``origin``, mm^2."""
        own = np.einsum("pji,pj->pi", self.turns, origin - self.shifts)
        across = (self.columns - own[:, 0, None]) ** 2 + ((self.depths - own[:, 2]) ** 2)[:, None]
        down = (self.rows - own[:, 1, None]) ** 2
        return down.astype(np.float32)[:, :, None] + across.astype(np.float32)[:, None, :]


def still_frame(depths: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Frame:
    """Planes that lie where the scanner put them."""
    n = len(depths)
    return Frame(depths, rows, columns, np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3)))


def moved_frame(frame: Frame, centre: np.ndarray, rng: np.random.Generator, planes_per_slice: int) -> Frame:
    """The planes as a fetus that moves between slices sees them: turns about ``centre``, now and then a jump."""
    degrees, shift = rng.uniform(0, 5), rng.uniform(0, 3)
    turns, shifts = frame.turns.copy(), frame.shifts.copy()
    for first in range(0, len(frame.depths), planes_per_slice):
        jump = 4.0 if rng.random() < 0.06 else 1.0
        turn = small_rotation(rng, degrees * jump)
        turns[first : first + planes_per_slice] = turn
        shifts[first : first + planes_per_slice] = centre - turn @ centre + rng.normal(0, shift * jump, 3)
    return Frame(frame.depths, frame.rows, frame.columns, turns, shifts)
