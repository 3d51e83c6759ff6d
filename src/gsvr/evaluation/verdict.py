"""Is a reconstruction to be trusted? A grade with reasons and advice, from what the result itself shows; no truth.

The strongest evidence is prediction: every stack is compared with what the other stacks make of its place
(`gsvr.evaluation.cross_prediction`). What that cannot see is looked at apart: slices of one direction only, a brain
that few stacks cover, one recording under two names. The limits come from simulated acquisitions, good and bad
(``make bench-robustness``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from gsvr.evaluation.cross_prediction import CrossPrediction, cross_prediction
from gsvr.evaluation.views import coverage, directions
from gsvr.model.geometry import invert, nearest_rotation, vector_from_rotation
from gsvr.solver.state import Result

Grade = Literal["good", "doubtful", "failed"]
# From where on (mm, degrees) it is worth saying how far a stack that disagrees lies from the others.
_FAR, _MUCH = 10.0, 20.0
# Stacks that determine each other too little to have failed by what they are moved by.
_PAIR = 2


@dataclass(frozen=True)
class Limits:
    """From where on a number counts as bad.

    Attributes
    ----------
    content
        A slice is compared if it has this share of the pixels of its stack's median slice.
    displacement, believed, displacement_of_doubted
        It does not lie where the others predict it if they want to move it by more (mm); or, where the reconstruction
        itself gave it less than this weight, by more than the second distance.
    unexplained
        Nor does it if they leave more than this share of its variance.
    agreeing
        Shares of slices that lie where the others predict them: below the first a run is doubtful, below the second
        failed.
    typical
        Distances (mm) that the others want to move the typical slice by, as for `agreeing`: stacks that do not fit
        together, such as those of different brains or with strong bias fields, are all moved. Two stacks alone have not
        failed by that.
    ncc
        Correlation of all pixels with their prediction, as for `agreeing`.
    of_stack
        Share of a stack's slices below which the stack is named.
    coverage
        Share of the brain that two stacks see, below which a run is doubtful.
    directions, anisotropy
        So it is if the slices have fewer directions, and are so much thicker than their pixels are wide.
    """

    content: float = 0.25
    displacement: float = 1.5
    believed: float = 0.5
    displacement_of_doubted: float = 0.6
    unexplained: float = 0.3
    agreeing: tuple[float, float] = (0.9, 0.5)
    typical: tuple[float, float] = (0.43, 0.95)
    ncc: tuple[float, float] = (0.7, 0.4)
    of_stack: float = 0.6
    coverage: float = 0.7
    directions: float = 1.2
    anisotropy: float = 1.5


@dataclass(frozen=True)
class StackEvidence:
    """What the other stacks say of one: the numbers of `Evidence` for its slices alone.

    ``predicted_ncc`` is the correlation of its pixels with what the stacks of other directions predict of them;
    ``apart`` (mm) and ``turned`` (degrees) say how far the brain was in it from where it was in the typical other one.
    """

    name: str
    compared: int
    agreeing: float
    displacement: float
    unexplained: float
    predicted_ncc: float = float("nan")
    apart: float = float("nan")
    turned: float = float("nan")


@dataclass(frozen=True)
class Evidence:
    """The numbers behind a verdict; NaN where nothing could be compared.

    Attributes
    ----------
    compared
        Slices with enough content that other stacks reach.
    agreeing
        Share of them that lie where the others predict them.
    displacement
        How far (mm) the others want to move the typical one.
    unexplained
        Share of the variance of the typical one, beyond noise, that the others do not predict.
    predicted_ncc
        Correlation of all pixels with what other stacks predict of them.
    believed
        Share of the slices in use whose robust weight is at least one half.
    pose_deviation
        Standard deviation (mm) of the typical slice's place, see `gsvr.solver.pose_uncertainty`.
    coverage
        Share of the brain that two stacks see.
    directions
        Effective number of directions, see `gsvr.evaluation.views.directions`.
    anisotropy
        Slice thickness over pixel spacing.
    stacks
        By stack.
    copies
        Names of stacks that hold the same recording.
    """

    compared: int
    agreeing: float
    displacement: float
    unexplained: float
    predicted_ncc: float
    believed: float
    pose_deviation: float
    coverage: float
    directions: float
    anisotropy: float
    stacks: tuple[StackEvidence, ...] = ()
    copies: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether a reconstruction is to be trusted.

    Attributes
    ----------
    grade
        ``"good"``; ``"doubtful"``: look at it, part of it may be wrong; ``"failed"``: do not use it.
    reasons
        Why, most important first.
    advice
        What to do about it.
    evidence
        The numbers behind it.
    """

    grade: Grade
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    evidence: Evidence

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        return f"{self.grade}: {'; '.join((*self.reasons, *self.advice))}"


def judge(
    result: Result,
    copies: Sequence[tuple[int, int]] = (),
    limits: Limits | None = None,
) -> Verdict:
    """Judge a result.

    Parameters
    ----------
    copies
        Pairs of stacks that hold the same recording, see `gsvr.model.copies.copies`.
    limits
        What counts as bad.
    """
    limits = limits or Limits()
    return graded(evidence_of(result, copies, limits), limits)


def evidence_of(result: Result, copies: Sequence[tuple[int, int]], limits: Limits) -> Evidence:
    """Collect the numbers."""
    slices, names = result.slices, result.slices.stack_names
    seen = cross_prediction(result)
    used = slices.sum_per_slice(slices.mask) > 0
    believed = used & (result.slice_weights >= limits.believed)
    compared = _compared(result, seen, limits)
    near = np.where(believed, limits.displacement, limits.displacement_of_doubted)
    agrees = (seen.displacement < near) & (seen.unexplained < limits.unexplained)
    apart = _apart(result, used)
    stacks = tuple(
        StackEvidence(
            *(names[stack], *_summary(seen, agrees, compared & (slices.stack_index == stack))),
            *(float(seen.stack_ncc[stack]), *apart.get(stack, (float("nan"), float("nan")))),
        )
        for stack in np.unique(slices.stack_index).tolist()
    )
    compared_in_all, agreeing, displacement, unexplained = _summary(seen, agrees, compared)
    return Evidence(
        compared=compared_in_all,
        agreeing=agreeing,
        displacement=displacement,
        unexplained=unexplained,
        predicted_ncc=seen.pooled_ncc,
        believed=float(believed.sum() / max(used.sum(), 1)),
        pose_deviation=float(np.median(result.pose_deviations[used, 0])) if used.any() else float("nan"),
        coverage=coverage(result, believed),
        directions=directions(result, believed),
        anisotropy=float(np.median(slices.thicknesses / slices.spacings.mean(axis=1))),
        stacks=stacks,
        copies=tuple((names[first], names[second]) for first, second in copies),
    )


def _compared(result: Result, seen: CrossPrediction, limits: Limits) -> Bool[np.ndarray, " n"]:
    """Slices with enough content to be compared, and whose place other stacks reach."""
    slices = result.slices
    pixels = slices.sum_per_slice(slices.mask)
    content = np.zeros(slices.n_slices, bool)
    for stack in np.unique(slices.stack_index):
        members = (slices.stack_index == stack) & (pixels > 0)
        if members.any():
            content[members] = pixels[members] >= limits.content * np.median(pixels[members])
    return content & np.isfinite(seen.displacement)


def _apart(result: Result, used: Bool[np.ndarray, " n"]) -> dict[int, tuple[float, float]]:
    """How far (mm), and by what angle (degrees), the brain was in each stack from where it was in the typical other."""
    assert result.mask.mask is not None
    slices, centre = result.slices, result.mask.centre(result.mask.mask)
    to_scanner = invert(result.poses)
    places, axes = {}, {}
    for stack in np.unique(slices.stack_index[used]).tolist():
        members = to_scanner[used & (slices.stack_index == stack)]
        places[stack] = np.median(members[:, :3, :3] @ centre + members[:, :3, 3], axis=0)
        axes[stack] = nearest_rotation(members[:, :3, :3].mean(axis=0))
    found = {}
    for stack in places if len(places) > 1 else ():
        others = [other for other in places if other != stack]
        away = np.linalg.norm(places[stack] - np.median([places[other] for other in others], axis=0))
        between = [np.linalg.norm(vector_from_rotation(axes[stack] @ axes[other].T)) for other in others]
        found[stack] = float(away), float(np.rad2deg(np.median(between)))
    return found


def _summary(
    seen: CrossPrediction, agrees: Bool[np.ndarray, " n"], members: Bool[np.ndarray, " n"]
) -> tuple[int, float, float, float]:
    """How many slices these are, the share that agrees, their median displacement and unexplained share."""
    count = int(members.sum())
    if count == 0:
        return 0, float("nan"), float("nan"), float("nan")
    displacement, unexplained = np.median(seen.displacement[members]), np.median(seen.unexplained[members])
    return count, float(agrees[members].mean()), float(displacement), float(unexplained)


def graded(evidence: Evidence, limits: Limits | None = None) -> Verdict:
    """The verdict that follows from the numbers."""
    limits = limits or Limits()
    share = f"{100 * evidence.agreeing:.0f} % of the slices lie where the other stacks predict them"
    moved = f"the typical slice lies {evidence.displacement:.1f} mm from where the other stacks predict it"
    failures, doubts, advice = [], [], []
    if evidence.compared == 0:
        failures.append("no two stacks show the same part of the brain")
        advice.append("check that all stacks are of one examination")
    elif not evidence.predicted_ncc >= limits.ncc[1]:
        failures.append(f"stacks and what the others predict of them correlate by {evidence.predicted_ncc:.2f} only")
        advice.append("check that all stacks show the same brain, and not only noise")
    elif evidence.agreeing < limits.agreeing[1]:
        failures.append(f"only {share}")
    elif evidence.displacement > limits.typical[1] and sum(s.compared > 0 for s in evidence.stacks) > _PAIR:
        failures.append(moved)
    elif evidence.agreeing < limits.agreeing[0]:
        doubts.append(f"only {share}")
    elif evidence.displacement > limits.typical[0]:
        doubts.append(moved)
        advice.append("check that all stacks show one brain; add stacks, or correct bias fields (N4)")
    elif evidence.predicted_ncc < limits.ncc[0]:
        doubts.append(f"stacks and what the others predict of them correlate by {evidence.predicted_ncc:.2f} only")
    odd = [stack.name for stack in evidence.stacks if stack.compared and stack.agreeing < limits.of_stack]
    if odd and len(odd) < len(evidence.stacks):
        doubts.append(f"{_listed(odd)} {_verb(odd, 'disagrees', 'disagree')} with the others")
        advice.append(f"look at {_listed(odd)}: repeat or leave out")
    elif (failures or doubts) and not advice:
        advice.append("compare volume and stacks; more stacks, or masks of the brain alone, may help")
    doubts += [_lay_apart(stack) for stack in _far_away(evidence, odd)]
    if evidence.coverage < limits.coverage:
        doubts.append(f"two stacks see only {100 * evidence.coverage:.0f} % of the brain")
        advice.append("add stacks that cover the rest")
    if evidence.directions < limits.directions and evidence.anisotropy > limits.anisotropy:
        doubts.append("all slices are nearly parallel, and the volume is blurred across them")
        advice.append("add a stack at right angles")
    for first, second in evidence.copies:
        doubts.append(f"{second} holds the same recording as {first}")
        advice.append(f"leave {second} out")
    if failures or doubts:
        return Verdict("failed" if failures else "doubtful", (*failures, *doubts), tuple(advice), evidence)
    return Verdict("good", (share,), (), evidence)


def _far_away(evidence: Evidence, odd: Sequence[str]) -> list[StackEvidence]:
    """Those that disagree and lie far from the others; the farthest, where all disagree and one will have caused it."""
    far = [s for s in evidence.stacks if s.name in odd and (s.apart >= _FAR or s.turned >= _MUCH)]
    if len(odd) < len(evidence.stacks) or not far:
        return far
    return [max(far, key=lambda stack: stack.apart)]


def _lay_apart(stack: StackEvidence) -> str:
    how_far = f"{stack.apart:.0f} mm and {stack.turned:.0f} degrees"
    return f"in {stack.name} the brain lay {how_far} from where it lay in the others"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _verb(names: Sequence[str], singular: str, plural: str) -> str:
    return singular if len(names) == 1 else plural
