"""Quality without a truth: how well a volume predicts a stack that it was not made from.

Each stack in turn is left out, a volume is made of the others, only the poses (and gains) of the left-out slices are
fitted to it, coarse to fine, and its prediction is compared with what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from gsvr.evaluation.agreement import SliceAgreement, slice_agreement
from gsvr.model.fields import Field
from gsvr.model.geometry import identity_poses
from gsvr.model.slices import Slices
from gsvr.operators.any_field import operator_of, predicted
from gsvr.solver.gains import intensity_scale
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, Stage

# Times that poses are refined against the field of the last stage, whose own iterations are for that.
_AT_LAST = 3

Fields = dict[Stage, Field]


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
    prediction: Float32[np.ndarray, " p"]
    slices: Slices


def leave_one_stack_out(
    slices: Slices,
    options: SolverOptions,
    callback: Callable[[str, Progress], None] | None = None,
) -> list[HoldoutScore]:
    """Score every stack by what the others predict of it.

    Parameters
    ----------
    slices
        Of at least three stacks.
    callback
        Told which stack is left out, and the progress of its reconstruction.

    Raises
    ------
    ValueError
        For fewer than three stacks.
    """
    if len(slices.stack_names) < 3:
        raise ValueError("leaving one stack out takes at least three")
    scores = []
    for number, stack in enumerate(slices.stack_names):
        held_out = slices.subset(slices.stack_index == number)
        rest = slices.subset(slices.stack_index != number)
        fields: Fields = {}

        def keep(progress: Progress, name: str = stack, fields: Fields = fields) -> None:
            fields[progress.stage] = progress.state.field
            if callback:
                callback(name, progress)

        result = reconstruct(rest, options, keep)
        looks = result.thickness
        factor = looks.factor if looks is not None and looks.used else 1.0
        scale = np.float32(intensity_scale(rest))
        scaled = replace(held_out, values=held_out.values / scale, thicknesses=factor * held_out.thicknesses)
        prediction = predict_unseen(scaled, list(fields.items()), replace(options, profile=result.profile)) * scale
        owner = held_out.per_pixel(np.arange(held_out.n_slices))
        agreement = slice_agreement(prediction, held_out.values, held_out.mask, owner)
        scores.append(HoldoutScore(stack, agreement, prediction, held_out))
    return scores


def predict_unseen(
    slices: Slices, fields: Sequence[tuple[Stage, Field]], options: SolverOptions
) -> Float32[np.ndarray, " p"]:
    """Fit only poses and gains of `slices` to fields that stay as they are, coarse to fine, and predict them.

    Parameters
    ----------
    slices
        With intensities in units of the fields.
    fields
        Each with the stage that it comes from, coarse to fine.
    """
    poses, gains = identity_poses(slices.n_slices), None
    for stage, field in fields:
        binned = slices.binned(stage.binning)
        for _ in range(_AT_LAST if stage.motion == "none" else stage.outer_iterations):
            poses, gains = _fit_unseen(binned, stage, field, options, poses, gains)
    field = fields[-1][1]
    return predicted(field, slices, poses, gains, options.profile, options.backend)


def _fit_unseen(
    slices: Slices,
    stage: Stage,
    field: Field,
    options: SolverOptions,
    poses: np.ndarray,
    gains: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights, gains, then poses. Without gains so far, all pixels are believed alike."""
    operator = operator_of(field, slices, poses, None, options.profile, options.backend)
    amplitudes, pixels, intensity = operator.backend.array(field.amplitudes), operator.pixels, options.intensity
    plain = operator.predict(amplitudes)
    if gains is None:
        gains = intensity.gains(operator, plain, pixels.coverage, mean_one=False)
    weights = options.loss.weights(operator, plain * pixels.per_pixel(gains))
    gains = intensity.gains(operator, plain, weights.pixels, mean_one=False)
    equations = operator.with_gains(gains).pose_equations(amplitudes, pixels.values, weights.pixels)
    # also in the last stage, which moves nothing in a reconstruction: these slices are new to its field
    motion = options.stack_motion if stage.motion == "stacks" else options.motion
    return motion.moved(slices, poses, equations, weights.noise**2), gains
