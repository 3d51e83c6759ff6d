"""Slice poses by Gauss-Newton, with a random-walk prior along acquisition time.

For a fixed field each slice's six pose parameters are a small least-squares problem with an exact Jacobian. Slices of
one stack that follow one another in time are linked: their poses about the stack's centre differ by steps whose
size is estimated from the data, so that smooth motion is held smooth and independent motion is left alone. The
links make the problem block-tridiagonal along time; it is solved exactly, stack by stack.

Rotations are measured as the displacement in mm they cause at `LEVER` from the centre, so that all six parameters
share one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solveh_banded

from gsvr.model.geometry import parts_about, pose_about, transform_points, vector_from_rotation
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import PoseEquations, moved_poses

LEVER = 35.0
_UNITS = np.array([1 / LEVER] * 3 + [1.0] * 3)


@runtime_checkable
class MotionModel(Protocol):
    """How poses follow from their normal equations."""

    def moved(
        self, slices: Slices, poses: Float[np.ndarray, "n 4 4"], equations: PoseEquations, noise_variance: float
    ) -> Float[np.ndarray, "n 4 4"]:
        """Better poses (acquired world -> volume world).

        Parameters
        ----------
        poses
            Where the equations hold.
        noise_variance
            Variance of the residuals (intensity^2): turns curvature into information.
        """
        ...


@dataclass(frozen=True)
class _Damped:
    """Levenberg-Marquardt.

    Attributes
    ----------
    damping
        Share of the mean curvature that is added to the diagonal.
    step_limit
        Largest step of one parameter in one update (mm).
    """

    damping: float = 0.02
    step_limit: float = 4.0


@dataclass(frozen=True)
class StackMotion(_Damped):
    """Every stack moves as one rigid body.

    The first stack moves like the others; the common freedom of all stacks stays where it is, since a field fitted to
    them all resists it.
    """

    def moved(
        self, slices: Slices, poses: Float[np.ndarray, "n 4 4"], equations: PoseEquations, noise_variance: float
    ) -> Float[np.ndarray, "n 4 4"]:
        """See `MotionModel`."""
        world = _to_world(slices, poses, stack_centres(slices))
        local = np.linalg.inv(world)
        all_curvatures, all_gradients = in_mm(equations)
        curvature = np.einsum("nji,njk,nkl->nil", local, all_curvatures, local)
        gradient = np.einsum("nji,nj->ni", local, all_gradients)
        moved = poses.copy()
        for order in time_links(slices):
            total = curvature[order].sum(axis=0)
            total += np.eye(6) * (self.damping * np.trace(total) / 6 + 1e-12)
            step = np.linalg.solve(total, gradient[order].sum(axis=0))
            step *= min(1.0, self.step_limit / max(float(np.abs(step).max()), 1e-12))
            pivot = transform_points(poses[order], stack_centres(slices)[order]).mean(axis=0)
            moved[order] = pose_about(step[:3] / LEVER, step[3:], pivot) @ poses[order]
        return moved


@dataclass(frozen=True)
class SliceMotion(_Damped):
    """Every slice moves by itself, and is linked to those before and after it in time.

    Attributes
    ----------
    damping, step_limit
        As above.
    relaxation
        Factor on every step. The field was fitted to the slices where they stood and holds them back, so the step that
        lowers the residual most for a fixed field is too short; below 2 a quadratic still decreases.
    prior_share
        Strength of the random-walk prior relative to the estimated variance of steps; 0 turns it off.
    least_step
        Floor (mm) of the estimated step size: even a still subject is not held more tightly than this.
    model_noise
        Factor on the residual variance: pixels of one slice share model errors and are not independent.
    trusted_share
        Share of the median curvature above which a slice's own estimate counts as known.
    """

    relaxation: float = 1.5
    prior_share: float = 1.0
    least_step: float = 0.05
    model_noise: float = 10.0
    trusted_share: float = 0.3

    def moved(
        self, slices: Slices, poses: Float[np.ndarray, "n 4 4"], equations: PoseEquations, noise_variance: float
    ) -> Float[np.ndarray, "n 4 4"]:
        """See `MotionModel`."""
        return moved_poses(slices, poses, self.steps(slices, poses, equations, noise_variance))

    def steps(
        self, slices: Slices, poses: Float[np.ndarray, "n 4 4"], equations: PoseEquations, noise_variance: float
    ) -> Float[np.ndarray, "n 6"]:
        """Pose steps (rotation in rad, translation in mm, slice frame) that the data and the time prior ask for."""
        curvature, gradient = (part / (self.model_noise * noise_variance) for part in in_mm(equations))
        level = np.trace(curvature, axis1=1, axis2=2) / 6
        typical = float(np.median(level))
        ridge = self.damping * level + 0.01 * self.damping * typical + 1e-12
        curvature = curvature + np.eye(6) * ridge[:, None, None]
        free = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        world = _to_world(slices, poses, stack_centres(slices))
        parameters = pose_parameters(slices, poses)
        wanted = parameters + np.einsum("nij,nj->ni", world, np.clip(free, -self.step_limit, self.step_limit))
        trusted = level > self.trusted_share * typical
        steps = np.zeros((slices.n_slices, 6))
        for order in time_links(slices):
            both = trusted[order][1:] & trusted[order][:-1]
            if self.prior_share == 0 or len(order) < 2:
                steps[order] = free[order]
                continue
            # how far slices move from one to the next is read off what the data alone ask for: the poses so far
            # may still be all equal
            variance = _step_variance(np.diff(wanted[order], axis=0), both, self.least_step)
            steps[order] = _solve_stack(
                curvature[order], gradient[order], parameters[order], world[order], variance / self.prior_share
            )
        steps = np.clip(self.relaxation * steps, -self.step_limit, self.step_limit)
        steps[:, :3] /= LEVER
        return steps


def in_mm(equations: PoseEquations) -> tuple[Float[np.ndarray, "n 6 6"], Float[np.ndarray, "n 6"]]:
    """Curvature and gradient with rotations as mm at `LEVER`."""
    return equations.curvature * _UNITS[:, None] * _UNITS, equations.gradient * _UNITS


def _to_world(slices: Slices, poses: np.ndarray, stack_centres: np.ndarray) -> Float[np.ndarray, "n 6 6"]:
    """Linear map from slice-frame steps to changes of (rotation vector, translation) about the stack centre."""
    turn = poses[:, :3, :3] @ slices.frames[:, :3, :3]
    lever = transform_points(poses, stack_centres) - transform_points(poses, slices.centres)
    cross = np.zeros((slices.n_slices, 3, 3))  # displacement of the stack centre by w: w x lever = -[lever]x w
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = lever[:, 2], -lever[:, 1], lever[:, 0]
    cross -= np.swapaxes(cross, 1, 2)
    world = np.zeros((slices.n_slices, 6, 6))
    world[:, :3, :3] = turn
    world[:, 3:, 3:] = turn
    world[:, 3:, :3] = cross @ turn / LEVER
    return world


def stack_centres(slices: Slices) -> Float[np.ndarray, "n 3"]:
    """For every slice the mean centre of its stack's slices (acquired world, mm)."""
    centres = np.empty((slices.n_slices, 3))
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        centres[members] = slices.centres[members].mean(axis=0)
    return centres


def pose_parameters(slices: Slices, poses: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 6"]:
    """Rotation (as mm at `LEVER`) and translation (mm) of each pose about its stack's centre."""
    rotation, translation = parts_about(poses, stack_centres(slices))
    return np.concatenate([rotation * LEVER, translation], axis=1)


def displacements(
    slices: Slices, before: Float[np.ndarray, "n 4 4"], after: Float[np.ndarray, "n 4 4"]
) -> Float[np.ndarray, " n"]:
    """How far (mm) each slice moved between two sets of poses: its centre, and its turn at `LEVER`."""
    turn = vector_from_rotation(after[:, :3, :3] @ np.swapaxes(before[:, :3, :3], -1, -2))
    shift = transform_points(after, slices.centres) - transform_points(before, slices.centres)
    return np.hypot(np.linalg.norm(shift, axis=1), LEVER * np.linalg.norm(turn, axis=1))


def movements(slices: Slices, poses: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, " n"]:
    """How far (mm) the subject moved since the slice of the same stack acquired before; NaN for a stack's first."""
    movement = np.full(slices.n_slices, np.nan)
    for order in (order for order in time_links(slices) if len(order) > 1):
        now, before = order[1:], order[:-1]
        movement[now] = displacements(slices.subset(now), poses[before], poses[now])
    return movement


def time_links(slices: Slices) -> list[np.ndarray]:
    """Per stack, the slices in the order of acquisition."""
    return [
        members[np.argsort(slices.times[members], kind="stable")]
        for members in (np.flatnonzero(slices.stack_index == k) for k in np.unique(slices.stack_index))
    ]


def _step_variance(
    between: Float[np.ndarray, "n 6"], trusted: Bool[np.ndarray, " n"], least_step: float
) -> Float[np.ndarray, " 6"]:
    """Robust variance of each parameter's change between successive slices; rotations and translations pooled."""
    steps = between[trusted] if trusted.sum() >= 4 else between
    pooled = [1.4826 * float(np.median(np.abs(steps[:, part]))) for part in (slice(0, 3), slice(3, 6))]
    return np.repeat(np.maximum(pooled, least_step), 3) ** 2


def _solve_stack(
    curvature: np.ndarray,
    gradient: np.ndarray,
    parameters: np.ndarray,
    world: np.ndarray,
    variance: Float[np.ndarray, " 6"],
) -> np.ndarray:
    """Block-tridiagonal system of one stack, slices in time order."""
    between = np.diff(parameters, axis=0)
    # Student-t like links: a jump between two slices breaks their link instead of bending the path
    jump = (between**2 / variance).mean(axis=1)
    precision = 1 / variance / (1 + jump[:, None] / 4)
    # each link adds to the blocks of both its slices, and to the one between them
    diagonal, right = curvature.copy(), gradient.copy()
    first, second, pull = world[:-1], world[1:], precision * between
    diagonal[:-1] += first.transpose(0, 2, 1) @ (precision[:, :, None] * first)
    diagonal[1:] += second.transpose(0, 2, 1) @ (precision[:, :, None] * second)
    right[:-1] += np.einsum("nji,nj->ni", first, pull)
    right[1:] -= np.einsum("nji,nj->ni", second, pull)
    upper = -first.transpose(0, 2, 1) @ (precision[:, :, None] * second)
    return _solve_block_tridiagonal(diagonal, upper, right)


def _solve_block_tridiagonal(diagonal: np.ndarray, upper: np.ndarray, right: np.ndarray) -> np.ndarray:
    n = len(diagonal)
    banded = np.zeros((12, n, 6))  # upper band storage: banded[11 + i - j, block, j] = matrix[i, 6 block + j]
    for i, j in np.ndindex(6, 6):
        if i <= j:
            banded[11 + i - j, :, j] = diagonal[:, i, j]
        banded[5 + i - j, 1:, j] = upper[:, i, j]
    return solveh_banded(banded.reshape(12, 6 * n), right.ravel()).reshape(n, 6)
