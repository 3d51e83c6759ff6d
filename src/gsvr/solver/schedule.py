"""Coarse to fine: the stages of a reconstruction, and its options."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from gsvr.masks.options import MaskOptions
from gsvr.model.point_spread import Profile
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.bias_estimation import BiasOptions
from gsvr.solver.gains import IntensityModel, SliceGains
from gsvr.solver.geometry_refinement import RefinementOptions
from gsvr.solver.loss import Loss, RobustLoss
from gsvr.solver.motion import MotionModel, SliceMotion, StackMotion
from gsvr.solver.priors.lattice import LatticePrior
from gsvr.solver.priors.neighbours import NeighbourPrior
from gsvr.solver.priors.protocol import Prior, PriorOnGaussians, PriorOnLattices
from gsvr.solver.seeding import SeedOptions

Motion = Literal["stacks", "slices", "none"]
Search = Literal["none", "lost", "all"]
# Outer iterations of free Gaussians and of a lattice that come last, with all pixels, where pixels were held out before
# (`gsvr.solver.final_field`). On a lattice the prior takes one to notice what the pixels have added.
_CLOSING_FREE, _CLOSING_LATTICE = 1, 2


@dataclass(frozen=True)
class Stage:
    """One resolution.

    Attributes
    ----------
    name
        Shown to the user.
    spacing
        Distance between Gaussians (mm).
    binning
        Pixels averaged along each in-plane axis.
    outer_iterations
        Of weights, amplitudes and motion, at most: a stage ends early once half of the slices (or stacks) move by less
        than `settled` in one of them, or where it has an alternative, once the prediction of pixels held out no longer
        improves.
    inner_iterations
        Conjugate-gradient steps in each of them.
    motion
        What moves: ``"stacks"`` as a whole, ``"slices"``, or ``"none"``.
    sigma_ratio
        Standard deviation of the Gaussians as a share of the spacing.
    consensus_mask
        Whether to settle first, from the poses so far, which pixels show the anatomy; and where slices move, to look in
        the end for those that went astray (`gsvr.solver.lost_slices`).
    free
        Whether the Gaussians leave the lattice: as many as `SolverOptions.seeds_of` says, seeded from the previous
        stage's field. Only without motion.
    alternative
        A stage on a lattice of the same spacing that comes first: the free Gaussians are seeded from it, and the volume
        is the average of both that best predicts pixels which neither has seen (`gsvr.solver.final_field`). The lattice
        goes on for as long as it predicts them better, the free Gaussians for as long as the average does, but for
        `trial_iterations` at most. Then all pixels are fitted in those that are left.
    settled
        Median motion in an outer iteration, as a share of the spacing, at which the stage has done its work.
    geometry_steps
        Steps that free Gaussians move and change their shape in, before the last outer iteration.
    sharpened
        Whether the preconditioner on a lattice sharpens, so that fewer steps suffice: for the volume, not for motion,
        see `gsvr.solver.priors.lattice`.
    told_apart
        Distance (mm) of what the slices can tell apart: where it exceeds the spacing there are only about as many free
        Gaussians as would be seeded from a lattice of this spacing.
    """

    name: str
    spacing: float
    binning: int
    outer_iterations: int
    inner_iterations: int
    motion: Motion = "slices"
    sigma_ratio: float = 0.65
    consensus_mask: bool = False
    free: bool = False
    alternative: Stage | None = None
    settled: float = 0.02
    geometry_steps: int = 0
    sharpened: bool = False
    told_apart: float = 0.0

    def __post_init__(self) -> None:
        at = f"stage {self.name!r}: "
        if self.motion not in get_args(Motion):
            raise ValueError(f"{at}unknown motion {self.motion!r}: choose one of {', '.join(get_args(Motion))}")
        if not (self.spacing > 0 and self.sigma_ratio > 0):
            raise ValueError(f"{at}spacing and sigma_ratio must be positive")
        if min(self.binning, self.outer_iterations, self.inner_iterations) < 1:
            raise ValueError(f"{at}binning, outer_iterations and inner_iterations must be at least one")
        if self.geometry_steps and not (self.free and self.outer_iterations > 1):
            raise ValueError(f"{at}geometry steps need free Gaussians, and an outer iteration before and after")
        other = self.alternative
        if other is not None and (not self.free or other.free or self.geometry_steps):
            raise ValueError(f"{at}an alternative is on a lattice, to free Gaussians without geometry steps")
        if other is not None and min(self.trial_iterations, other.trial_iterations) < 1:
            most = f"{_CLOSING_FREE} outer iteration, and {_CLOSING_LATTICE} on the lattice"
            raise ValueError(f"{at}a trial needs more than {most}")
        if self.free and self.motion != "none":
            raise ValueError(f"{at}free Gaussians need motion 'none': slices move on a lattice only")

    @property
    def trial_iterations(self) -> int:
        """Outer iterations that may be made with pixels held out, see `alternative`."""
        return self.outer_iterations - (_CLOSING_FREE if self.free else _CLOSING_LATTICE)


def default_stages(
    finest: float = 1.0,
    free: bool = True,
    thickness: float = 3.0,
    geometry_steps: int = 0,
    motion: Motion = "slices",
) -> tuple[Stage, ...]:
    """Stages that end with Gaussians `finest` mm apart (a little less than the in-plane pixel spacing).

    Parameters
    ----------
    free
        Whether the volume is the average of a lattice and free Gaussians, which is sharper and less noisy; without, a
        reconstruction takes 40 % less time.
    thickness
        Of the slices (mm): a third of it is what they can tell apart.
    geometry_steps
        Of free Gaussians in the last stage.
    motion
        What moves: ``"slices"``; ``"stacks"`` as a whole, for subjects that move between stacks only; or ``"none"``,
        for stacks that lie where they belong: super-resolution alone.
    """
    last = Stage("final volume", finest, 1, 7, 2, "none", sigma_ratio=0.6, consensus_mask=True, sharpened=True)
    if free:
        last = replace(
            last,
            outer_iterations=4,
            inner_iterations=4,
            free=True,
            alternative=None if geometry_steps else last,
            told_apart=thickness / 3,
            geometry_steps=geometry_steps,
        )
    fine, finer = max(1.8, 1.5 * finest), max(1.4, 1.2 * finest)
    alignment = Stage("stack alignment", 5.0, 3, 10, 5, "stacks", sigma_ratio=0.8)
    if motion == "none":
        return Stage("field at the given poses", fine, 2, 4, 5, "none"), last
    if motion == "stacks":
        refined = Stage(f"stack alignment, {fine:.2g} mm", fine, 2, 8, 5, "stacks", consensus_mask=True)
        return alignment, replace(alignment, name="stack alignment, 3.5 mm", spacing=3.5), refined, last
    return (
        alignment,
        Stage("motion, 5 mm", 5.0, 3, 20, 5, sigma_ratio=0.8),
        Stage("motion, 3.5 mm", 3.5, 3, 15, 5),
        Stage("motion, 2.5 mm", 2.5, 2, 10, 5, consensus_mask=True),
        Stage(f"motion, {fine:.2g} mm", fine, 2, 8, 5),
        Stage(f"motion, {finer:.2g} mm", finer, 1, 4, 5),
        last,
    )


def moving_parts(stages: tuple[Stage, ...]) -> Motion:
    """What moves in a schedule, see `default_stages`."""
    moving = {stage.motion for stage in stages}
    return "slices" if "slices" in moving else "stacks" if "stacks" in moving else "none"


def restart_stages(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages that go on from good poses: a field at the finest resolution of motion first, then motion there.

    Coarse stages know poses to a few tenths of a millimetre only, and would lose what good poses already have.
    """
    moving = [number for number, stage in enumerate(stages) if stage.motion == "slices"]
    if not moving:
        return stages
    finest = stages[moving[-1]]
    still = replace(finest, name="field at the given poses", motion="none")
    return (still, finest, *stages[moving[-1] + 1 :])


@dataclass(frozen=True)
class SolverOptions:
    """Everything a reconstruction depends on besides the slices. Its parts can be replaced by others of one's own.

    Attributes
    ----------
    stages
        Coarse to fine.
    profile
        Slice profile: a name, see `gsvr.model.point_spread.PROFILES`, or a function of one's own.
    loss
        Residuals -> weights, see `gsvr.solver.loss.Loss`.
    intensity
        Gains of slices, see `gsvr.solver.gains.IntensityModel`.
    motion, stack_motion
        Poses of slices and of whole stacks, see `gsvr.solver.motion.MotionModel`.
    prior, neighbours
        Priors on a lattice and on free Gaussians, see `gsvr.solver.priors.protocol`.
    search
        Which stacks are tried at all orientations and shifts after the first alignment: ``"lost"``, those that others
        do not predict there; ``"all"``; or ``"none"``.
    bias
        How the bias field of each stack is estimated; None: there is none.
    estimate_thickness
        Whether slices are taken for as thick as they look, where that is not what was said
        (`gsvr.solver.thickness`); of three stacks or more, and before a stage with an alternative.
    masks
        How masks are prepared.
    seeds
        Where free Gaussians come from.
    refinement
        How their geometry is optimised, in stages that ask for it.
    backend
        Where to compute, see `gsvr.backends.BACKENDS`; `gsvr.backends.devices` finds one.
    margin
        How far (mm) Gaussians stand beyond the outermost pixel used.
    gap
        Where slices moved apart, and no pixel is that near, Gaussians stand nevertheless if no ball of this radius (mm)
        fits into what the margin leaves: the prior continues the volume there from all sides. Without them there would
        be black holes. (Lattices coarser than this have no such gaps.)
    uncertainty_samples
        How many samples of the posterior to draw when all stages are done; 0: none.
    seed
        Decides those samples, and which pixels are held out.
    """

    stages: tuple[Stage, ...] = field(default_factory=default_stages)
    profile: Profile = "slab"
    loss: Loss = RobustLoss()
    intensity: IntensityModel = SliceGains()
    motion: MotionModel = SliceMotion()
    stack_motion: MotionModel = StackMotion()
    search: Search = "lost"
    bias: BiasOptions | None = BiasOptions()
    estimate_thickness: bool = True
    prior: PriorOnLattices = LatticePrior()
    neighbours: PriorOnGaussians = NeighbourPrior()
    masks: MaskOptions = MaskOptions()
    seeds: SeedOptions = field(default_factory=SeedOptions)
    refinement: RefinementOptions = RefinementOptions()
    backend: str = "cpu"
    margin: float = 2.5
    gap: float = 3.0
    uncertainty_samples: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("the schedule has no stages")
        if self.search not in get_args(Search):
            raise ValueError(f"unknown search {self.search!r}: choose one of {', '.join(get_args(Search))}")
        if self.stages[0].free:
            raise ValueError(f"stage {self.stages[0].name!r}: free Gaussians need a field on a lattice to start from")

    def motion_of(self, stage: Stage) -> MotionModel | None:
        """What moves the slices in a stage; None: nothing."""
        return {"stacks": self.stack_motion, "slices": self.motion, "none": None}[stage.motion]

    def prior_on(self, operator: LatticeOperator | GaussianOperator, stage: Stage) -> Prior:
        """The prior on the amplitudes of an operator in a stage."""
        if isinstance(operator, LatticeOperator):
            return self.prior.on(operator, stage.sharpened)
        return self.neighbours.on(operator, self.seeds.level)

    def seeds_of(self, stage: Stage) -> SeedOptions:
        """How the free Gaussians of a stage are seeded.

        On a lattice k times as coarse neighbours differ k times as much, and there are k^3 times fewer sites: k^2 times
        fewer Gaussians, but for strong edges, where every site counts as one.
        """
        coarser = max(stage.told_apart / stage.spacing, 1.0)
        return replace(self.seeds, contrast=self.seeds.contrast * coarser**2)
