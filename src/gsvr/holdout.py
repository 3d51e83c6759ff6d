"""Quality without a truth: how well a volume predicts a stack that it was not made from.

Each stack in turn is left out, a volume is made of the others, only the poses (and gains) of the left-out slices are
fitted to it, coarse to fine, and its prediction is compared with what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gsvr.acquisition import Slices, Stack
from gsvr.field import LatticeField
from gsvr.forward import AcquisitionOperator, moved_poses
from gsvr.geometry import identity_poses
from gsvr.quality import SliceAgreement, slice_agreement
from gsvr.solver.motion import pose_normal_equations, solve_stack_steps, solve_steps
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.rounds import first_gains
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.weights import fit_gains, robust_weights


@dataclass(frozen=True)
class HoldoutScore:
    """How well one stack is predicted by the others.

    Attributes
    ----------
    stack
        Its name.
    agreement
        NCC and PSNR of its predicted slices.
    prediction
        Predicted pixels of its slices (flat, as `Slices.values`).
    slices
        Its slices.
    """

    stack: str
    agreement: SliceAgreement
    prediction: np.ndarray
    slices: Slices


def leave_one_stack_out(
    stacks: list[Stack],
    prepare: Callable[[list[Stack]], Slices],
    options: SolverOptions,
    callback: Callable[[str, Progress], None] | None = None,
) -> list[HoldoutScore]:
    """Score every stack by what the others predict of it.

    Parameters
    ----------
    stacks
        At least three.
    prepare
        Makes slices of stacks (masks included), such as `gsvr.pipeline.prepare_slices`.
    callback
        Told which stack is left out, and the progress of its reconstruction.

    Raises
    ------
    ValueError
        For fewer than three stacks.
    """
    if len(stacks) < 3:
        raise ValueError("leaving one stack out takes at least three")
    everything = prepare(stacks)
    scores = []
    for number, stack in enumerate(stacks):
        held_out = everything.subset(everything.stack_index == number)
        rest = everything.subset(everything.stack_index != number)
        fields: dict[str, tuple[Stage, LatticeField]] = {}

        def keep(progress: Progress, name: str = stack.name, fields: dict = fields) -> None:
            field = progress.state.field
            scaled = LatticeField(field.lattice, field.amplitudes * np.float32(progress.scale))
            fields[progress.stage.name] = (progress.stage, scaled)
            if callback:
                callback(name, progress)

        reconstruct(rest, options, keep)
        prediction = predict_unseen(held_out, list(fields.values()), options)
        owner = np.repeat(np.arange(held_out.n_slices), np.diff(held_out.offsets))
        agreement = slice_agreement(prediction, held_out.values, held_out.mask, owner)
        scores.append(HoldoutScore(stack.name, agreement, prediction, held_out))
    return scores


def predict_unseen(
    slices: Slices, fields: list[tuple[Stage, LatticeField]], options: SolverOptions
) -> Float[np.ndarray, " p"]:
    """Fit only poses and gains of `slices` to fields that stay as they are, coarse to fine, and predict them."""
    poses, gains = identity_poses(slices.n_slices), first_gains(slices)
    for stage, field in fields:
        binned = slices.binned(stage.binning)
        for _ in range(stage.rounds):
            operator = AcquisitionOperator(field.lattice, binned, poses, gains, options.profile, options.backend)
            prediction, jacobian = operator.pose_derivatives(field.amplitudes)
            weights = robust_weights(binned, prediction, options.weights)
            equations = pose_normal_equations(binned, binned.values - prediction, jacobian, weights.pixels)
            plain = prediction / binned.per_pixel(gains.astype(np.float32))
            gains = fit_gains(binned, plain, weights.pixels, options.weights, mean_one=False)
            if stage.motion == "stacks":
                poses = solve_stack_steps(binned, poses, equations, options.motion)
            else:  # also in the last stage, which moves nothing in a reconstruction: these slices are new to its field
                steps = solve_steps(binned, poses, equations, weights.noise**2, options.motion)
                poses = moved_poses(binned, poses, steps)
    field = fields[-1][1]
    operator = AcquisitionOperator(field.lattice, slices, poses, gains, options.profile, options.backend)
    return operator.predict(field.amplitudes)
