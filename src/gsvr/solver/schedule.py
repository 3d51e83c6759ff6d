"""Coarse to fine: the stages of a reconstruction, and its options."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gsvr.masks.consensus import MaskOptions
from gsvr.model.point_spread import ProfileName
from gsvr.solver.motion import MotionOptions
from gsvr.solver.priors.lattice import PriorOptions
from gsvr.solver.priors.neighbours import NeighbourOptions
from gsvr.solver.seeding import SeedOptions
from gsvr.solver.weights import WeightOptions


@dataclass(frozen=True)
class RefinementOptions:
    """How the geometry of free Gaussians is optimised, see `gsvr.solver.geometry_refinement`.

    Attributes
    ----------
    mean_rate, scale_rate, quaternion_rate
        How far a step moves a mean (share of the typical standard deviation), a log-scale and a quaternion, at first.
    amplitudes_every, iterations
        After so many steps, so many conjugate-gradient steps for the amplitudes.
    split_share
        Share of Gaussians, those with the largest residuals around them, that are split in the end.
    prune_below
        Gaussians go whose contribution to all pixels (root of the weighted sum of squares) is below this, in standard
        deviations of the noise.
    """

    mean_rate: float = 0.01
    scale_rate: float = 0.01
    quaternion_rate: float = 0.005
    amplitudes_every: int = 5
    iterations: int = 2
    split_share: float = 0.0
    prune_below: float = 0.0


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
    rounds
        Rounds of weights, amplitudes and motion, at most: a stage ends early once half of the slices (or stacks)
        move by less than `settled` in a round.
    iterations
        Conjugate-gradient steps a round.
    motion
        What moves: ``"stacks"`` as a whole, ``"slices"``, or ``"none"``.
    sigma_ratio
        Standard deviation of the Gaussians as a share of the spacing.
    agree_on_mask
        Whether to settle first, from the poses so far, which pixels show the anatomy.
    free
        Whether the Gaussians leave the lattice: as many as `SolverOptions.seeds_of` says, seeded from the previous
        stage's field. Only without motion.
    settled
        Median motion in a round, as a share of the spacing, at which the stage has done its work.
    geometry_steps
        Steps that free Gaussians move and change their shape in, before the last round.
    told_apart
        Distance (mm) of what the slices can tell apart: where it exceeds the spacing there are only about as many free
        Gaussians as would be seeded from a lattice of this spacing.
    """

    name: str
    spacing: float
    binning: int
    rounds: int
    iterations: int
    motion: str = "slices"
    sigma_ratio: float = 0.65
    agree_on_mask: bool = False
    free: bool = False
    settled: float = 0.02
    geometry_steps: int = 0
    told_apart: float = 0.0


def default_stages(
    finest: float = 1.0, free: bool = True, thickness: float = 3.0, geometry_steps: int = 0
) -> tuple[Stage, ...]:
    """Stages that end with Gaussians `finest` mm apart (a little less than the in-plane pixel spacing).

    Parameters
    ----------
    free
        Whether the last stage has free Gaussians: sharper and less noisy; without, a reconstruction takes a quarter to
        a third less time.
    thickness
        Of the slices (mm): a third of it is what they can tell apart.
    geometry_steps
        Of free Gaussians in the last stage.
    """
    last = Stage("final volume", finest, 1, 4, 5, "none", sigma_ratio=0.6, agree_on_mask=True)
    if free:
        told_apart = thickness / 3
        last = replace(last, rounds=3, iterations=6, free=True, told_apart=told_apart, geometry_steps=geometry_steps)
    fine, finer = max(1.8, 1.5 * finest), max(1.4, 1.2 * finest)
    return (
        Stage("stack alignment", 5.0, 3, 10, 5, "stacks", sigma_ratio=0.8),
        Stage("motion, 5 mm", 5.0, 3, 20, 5, sigma_ratio=0.8),
        Stage("motion, 3.5 mm", 3.5, 3, 15, 5),
        Stage("motion, 2.5 mm", 2.5, 2, 10, 5, agree_on_mask=True),
        Stage(f"motion, {fine:.2g} mm", fine, 2, 8, 5),
        Stage(f"motion, {finer:.2g} mm", finer, 1, 4, 5),
        last,
    )


@dataclass(frozen=True)
class SolverOptions:
    """Everything a reconstruction depends on besides the slices.

    Attributes
    ----------
    stages
        Coarse to fine.
    profile
        Slice profile, see `gsvr.model.point_spread.PROFILES`.
    prior, motion, weights, masks
        Options of the parts.
    seeds, neighbours
        Where free Gaussians come from, and their prior.
    refinement
        How their geometry is optimised, in stages that ask for it.
    backend
        Which kernels evaluate the operator, see `gsvr.backends.BACKENDS`; `gsvr.backends.devices` finds one.
    deterministic
        Whether a graphics card, too, gives the same bits in every run; the CPU always does.
    margin
        How far (mm) Gaussians stand beyond the outermost pixel used.
    gap
        Where slices moved apart, and no pixel is that near, Gaussians stand nevertheless if no ball of this radius (mm)
        fits into what the margin leaves: the prior continues the volume there from all sides. Without them there would
        be black holes. (Lattices coarser than this have no such gaps.)
    uncertainty_samples
        How many samples of the posterior to draw when all stages are done; 0: none.
    seed
        Decides the random first guesses of stack alignment, and those samples.
    """

    stages: tuple[Stage, ...] = field(default_factory=default_stages)
    profile: ProfileName = "slab"
    prior: PriorOptions = PriorOptions()
    motion: MotionOptions = MotionOptions()
    weights: WeightOptions = WeightOptions()
    masks: MaskOptions = MaskOptions()
    seeds: SeedOptions = field(default_factory=SeedOptions)
    neighbours: NeighbourOptions = field(default_factory=NeighbourOptions)
    refinement: RefinementOptions = RefinementOptions()
    backend: str = "cpu"
    deterministic: bool = False
    margin: float = 2.5
    gap: float = 3.0
    uncertainty_samples: int = 0
    seed: int = 0

    def seeds_of(self, stage: Stage) -> SeedOptions:
        """How the free Gaussians of a stage are seeded.

        On a lattice k times as coarse neighbours differ k times as much, and there are k^3 times fewer sites: k^2 times
        fewer Gaussians, but for strong edges, where every site counts as one.
        """
        coarser = max(stage.told_apart / stage.spacing, 1.0)
        return replace(self.seeds, contrast=self.seeds.contrast * coarser**2)
