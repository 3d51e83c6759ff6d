"""Pose steps of `gsvr.solver.motion` on a device: all slices, and all stacks, at once.

The time prior's systems, one a stack, are assembled as dense matrices of equal size (padded with ones on the
diagonal) and solved by one batched Cholesky factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from gsvr.device_solver.device_slices import DeviceSlices
from gsvr.device_solver.order_statistics import masked_median, median
from gsvr.device_solver.rigid import (
    cross_matrix,
    pose_about,
    transform_points,
    vector_from_rotation,
)
from gsvr.solver.motion import LEVER, MotionOptions


@dataclass(frozen=True)
class DeviceEquations:
    """As `gsvr.solver.motion.NormalEquations`."""

    curvature: Float[Tensor, "n 6 6"]
    gradient: Float[Tensor, "n 6"]


def pose_normal_equations(
    slices: DeviceSlices,
    residual: Float32[Tensor, " p"],
    jacobian: Float32[Tensor, "6 p"],
    weights: Float32[Tensor, " p"],
) -> DeviceEquations:
    """Sum J^T W J and J^T W r over the pixels of every slice."""
    jacobian, weights, residual = slices.padded(jacobian), slices.padded(weights), slices.padded(residual)
    curvature, gradient = [], []
    for group in slices.groups():
        rows = slices.rows[group]
        part = jacobian[:, rows].transpose(0, 1)
        weighted = part * weights[rows][:, None]
        curvature.append(weighted @ part.transpose(1, 2))
        gradient.append(weighted @ residual[rows][:, :, None])
    curvatures, gradients = torch.cat(curvature).to(slices.exact), torch.cat(gradient)[:, :, 0].to(slices.exact)
    units = torch.ones(6, dtype=slices.exact, device=curvatures.device)
    units[:3].fill_(1 / LEVER)
    return DeviceEquations(curvatures * units[:, None] * units, gradients * units)


def to_world(slices: DeviceSlices, poses: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 6 6"]:
    """Linear map from slice-frame steps to changes of (rotation vector, translation) about the stack centre."""
    turn = poses[:, :3, :3] @ slices.frames[:, :3, :3]
    lever = transform_points(poses, slices.stack_centres) - transform_points(poses, slices.centres)
    world = torch.zeros((len(poses), 6, 6), dtype=poses.dtype, device=poses.device)
    world[:, :3, :3] = turn
    world[:, 3:, 3:] = turn
    world[:, 3:, :3] = -cross_matrix(lever) @ turn / LEVER
    return world


def pose_parameters(slices: DeviceSlices, poses: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 6"]:
    """Rotation (as mm at `LEVER`) and translation (mm) of each pose about its stack's centre."""
    translation = transform_points(poses, slices.stack_centres) - slices.stack_centres
    return torch.cat([LEVER * vector_from_rotation(poses[:, :3, :3]), translation], 1)


def displacements(
    slices: DeviceSlices, before: Float[Tensor, "n 4 4"], after: Float[Tensor, "n 4 4"]
) -> Float[Tensor, " n"]:
    """How far (mm) each slice moved between two sets of poses."""
    turn = vector_from_rotation(after[:, :3, :3] @ before[:, :3, :3].transpose(1, 2))
    shift = transform_points(after, slices.centres) - transform_points(before, slices.centres)
    return torch.hypot(shift.norm(dim=1), LEVER * turn.norm(dim=1))


def moved_poses(
    slices: DeviceSlices, poses: Float[Tensor, "n 4 4"], steps: Float[Tensor, "n 6"]
) -> Float[Tensor, "n 4 4"]:
    """Apply pose steps (rotation vector in rad, translation in mm, slice frame, about the slice's centre)."""
    step = pose_about(steps[:, :3], steps[:, 3:], slices.local_centres)
    return poses @ slices.frames @ step @ slices.to_frame


def solve_steps(
    slices: DeviceSlices,
    poses: Float[Tensor, "n 4 4"],
    equations: DeviceEquations,
    noise_variance: Float[Tensor, ""],
    options: MotionOptions,
) -> Float[Tensor, "n 6"]:
    """Pose steps that the data and the time prior ask for, see `gsvr.solver.motion.solve_steps`."""
    scale = 1 / (options.model_noise * noise_variance)
    curvature, gradient = equations.curvature * scale, equations.gradient * scale
    level = torch.diagonal(curvature, dim1=1, dim2=2).sum(1) / 6
    typical = median(level)
    ridge = options.damping * level + 0.01 * options.damping * typical + 1e-12
    curvature = curvature + _ones(6, curvature) * ridge[:, None, None]
    steps = _solve(curvature, gradient)
    if options.prior_share > 0:
        trusted = level > options.trusted_share * typical
        linked = _linked_steps(slices, poses, curvature, gradient, steps, trusted, options)
        # a stack of one slice has no neighbours in time and keeps the step that its own pixels ask for
        alone = (slices.members.sum(1) < 2)[slices.stack_of]
        steps = torch.where(alone[:, None], steps, linked)
    steps = (options.relaxation * steps).clamp(-options.step_limit, options.step_limit)
    return torch.cat([steps[:, :3] / LEVER, steps[:, 3:]], 1)


def _linked_steps(
    slices: DeviceSlices,
    poses: Tensor,
    curvature: Tensor,
    gradient: Tensor,
    free: Tensor,
    trusted: Tensor,
    options: MotionOptions,
) -> Float[Tensor, "n 6"]:
    """Steps with the random walk in time: a block-tridiagonal system of each stack."""
    world, parameters = to_world(slices, poses), pose_parameters(slices, poses)
    wanted = parameters + (world @ free.clamp(-options.step_limit, options.step_limit)[:, :, None])[:, :, 0]
    order = slices.in_time.clamp(min=0)
    kept = slices.in_time >= 0
    linked = kept[:, 1:]  # slices of a stack stand first, padding last
    both = linked & trusted[order][:, 1:] & trusted[order][:, :-1]
    variance = _step_variance(wanted[order].diff(dim=1), linked, both, options) / options.prior_share
    between = parameters[order].diff(dim=1)
    jump = (between**2 / variance[:, None]).mean(2, keepdim=True)
    precision = linked[:, :, None] / variance[:, None] / (1 + jump / 4)
    first, second = world[order][:, :-1], world[order][:, 1:]
    held, held_too = precision[..., None] * first, precision[..., None] * second
    stacks, longest = order.shape
    one = _ones(6, curvature)
    diagonal = torch.where(kept[..., None, None], curvature[order], one)
    diagonal[:, :-1] += first.transpose(2, 3) @ held
    diagonal[:, 1:] += second.transpose(2, 3) @ held_too
    right = gradient[order] * kept[..., None]
    pull = (precision * between)[..., None]
    right[:, :-1] += (first.transpose(2, 3) @ pull)[..., 0]
    right[:, 1:] -= (second.transpose(2, 3) @ pull)[..., 0]
    upper = -first.transpose(2, 3) @ held_too
    matrix = torch.zeros((stacks, longest, 6, longest, 6), dtype=one.dtype, device=one.device)
    at = torch.arange(longest, device=one.device)
    # indexed axes come first: (slice, stack, 6, 6)
    matrix[:, at, :, at] = diagonal.transpose(0, 1)
    matrix[:, at[:-1], :, at[1:]] = upper.transpose(0, 1)
    matrix[:, at[1:], :, at[:-1]] = upper.permute(1, 0, 3, 2)
    solved = _solve(matrix.reshape(stacks, 6 * longest, 6 * longest), right.reshape(stacks, 6 * longest))
    # padding is written to one more row, which is dropped
    steps = torch.zeros((len(poses) + 1, 6), dtype=one.dtype, device=one.device)
    steps[slices.in_time.masked_fill(~kept, len(poses)).reshape(-1)] = solved.reshape(-1, 6)
    return steps[:-1]


def _step_variance(
    between: Float[Tensor, "k l 6"], linked: Tensor, trusted: Tensor, options: MotionOptions
) -> Float[Tensor, "k 6"]:
    """Robust variance of each parameter's change between successive slices; rotations and translations pooled."""
    enough = trusted.sum(1, keepdim=True) >= 4
    used = torch.where(enough, trusted, linked)
    stacks = len(between)
    pooled = [
        1.4826
        * masked_median(
            between[:, :, part].abs().reshape(stacks, -1), used[:, :, None].expand(-1, -1, 3).reshape(stacks, -1)
        )
        for part in (slice(0, 3), slice(3, 6))
    ]
    return torch.stack(pooled, 1).clamp(min=options.least_step).repeat_interleave(3, dim=1) ** 2


def solve_stack_steps(
    slices: DeviceSlices, poses: Float[Tensor, "n 4 4"], equations: DeviceEquations, options: MotionOptions
) -> Float[Tensor, "n 4 4"]:
    """Move every stack as one rigid body; the new poses of all slices."""
    local = torch.linalg.inv_ex(to_world(slices, poses)).inverse
    curvature = local.transpose(1, 2) @ equations.curvature @ local
    gradient = (local.transpose(1, 2) @ equations.gradient[:, :, None])[:, :, 0]
    stacks = len(slices.members)
    total = (slices.members @ curvature.reshape(-1, 36)).reshape(stacks, 6, 6)
    level = torch.diagonal(total, dim1=1, dim2=2).sum(1) / 6
    total = total + _ones(6, total) * (options.damping * level + 1e-12)[:, None, None]
    step = _solve(total, slices.members @ gradient)
    largest = step.abs().amax(1, keepdim=True).clamp(min=1e-12)
    step = step * (options.step_limit / largest).clamp(max=1)
    counts = slices.members.sum(1, keepdim=True)
    pivot = slices.members @ transform_points(poses, slices.stack_centres) / counts
    return pose_about(step[:, :3] / LEVER, step[:, 3:], pivot)[slices.stack_of] @ poses


def _ones(n: int, like: Tensor) -> Tensor:
    return torch.eye(n, dtype=like.dtype, device=like.device)


def _solve(matrix: Float[Tensor, "b m m"], right: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    """Symmetric positive definite systems; nobody asks the device whether they were."""
    factor = torch.linalg.cholesky_ex(matrix).L
    return torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
