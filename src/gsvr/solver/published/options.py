"""Two sets of options of one optimiser: the settings that Dannecker et al. (MIDL 2026) print, and those of their code.

The code is github.com/m-dannecker/Gaussian-Primitives-for-Fast-SVR; where it differs from the print its README says so.
What the print leaves open is taken from the code; what both leave open, or cannot be meant, is assumed here:

- Intensities are divided by their 99th percentile inside the masks before the start (the code: by the largest).
- Rates of means and translations are in mm, of rotations in rad: twice the code's, which are of a quaternion's vector
  part. Rotations and translations are about the centre and along the axes of the slice, and each step is composed with
  the pose so far.
- The code's configuration asks for rates that fall to 5 % (simulated stacks) or 10 % (scans); its program takes that of
  the smallest rate, for all of them, which counts here: 1.25e-4 and 1e-4 (that of gains is the smallest for scans).
- Volumes are rendered through a voxel, as the code does: see `gsvr.render.volume.render_volume`.
- Weight decay is 0.01, PyTorch's default, for log-scales, quaternions and intensities. Positions and poses have none:
  it would pull towards the origin of the scanner's coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

from gsvr.backends.windows import CUTOFF
from gsvr.masks.options import MaskOptions
from gsvr.model.point_spread import Profile
from gsvr.solver.adamw import CosineAnnealing, Halving, Schedule
from gsvr.solver.schedule import Stage


@dataclass(frozen=True)
class ScalePrior:
    """A penalty on log-scales: `weight` x the mean over Gaussians and axes of d^2, d = log-scale - log `scale`.

    Attributes
    ----------
    scale
        Standard deviation (mm) without a penalty.
    weight
        In intensities.
    one_sided
        Whether only smaller Gaussians are penalised.
    """

    scale: float
    weight: float
    one_sided: bool = False


@dataclass(frozen=True)
class PublishedOptions:
    """Everything such a reconstruction depends on besides the slices; the defaults are the printed settings.

    Attributes
    ----------
    n_gaussians, nearest
        Gaussians of the field, and how many of them a pixel sees; None: all that the cut-off leaves.
    epochs, refreshed_every
        Steps, and after how many of them neighbours are found anew.
    schedule
        How learning rates fall.
    mean_rate, scale_rate, quaternion_rate, amplitude_rate, rotation_rate, translation_rate
        Learning rates at the start; that of scales is of their logarithm, that of amplitudes of the inverse softplus.
    gain_rate
        Learning rate of the slices' gains, which are softplus functions scaled to a mean of one; 0: no gains.
    weight_decay
        Of log-scales, quaternions and amplitudes.
    initial_scale
        Standard deviation (mm) that Gaussians start with.
    scale_prior
        What keeps them from vanishing.
    scale_limit
        Largest size of a log-scale.
    rotation_penalty, translation_penalty
        Weight of the mean over slices and axes of the squared vector part of a slice's quaternion, and of its squared
        translation (mm), both counted from where it started.
    moving
        Whether slices move.
    weighted_slices
        Whether slices with large residuals count less: one-sided Welsch weights, found anew with the neighbours after a
        quarter of the epochs.
    uniform_share
        Share of Gaussians that are seeded without regard to gradients (lambda).
    normalisation
        Delta, see `gsvr.model.fields.GaussianField`; None: the exact convolution of a sum of Gaussians, whose
        amplitudes start at one share of their pixels' intensities for all of them: that which explains the pixels best.
    profile
        Slice profile, see `gsvr.model.point_spread.PROFILES`.
    masks
        How masks are prepared, and where the volume is in the end.
    backend
        Where to compute, see `gsvr.backends.BACKENDS`.
    cutoff
        Of the kernels (standard deviations), on top of the nearest neighbours.
    seed
        Decides which pixels are drawn.
    """

    n_gaussians: int = 50_000
    nearest: int | None = 50
    epochs: int = 500
    refreshed_every: int = 50
    schedule: Schedule = Halving(200)
    mean_rate: float = 2.5e-2
    scale_rate: float = 2.5e-2
    quaternion_rate: float = 1e-2
    amplitude_rate: float = 1e-2
    rotation_rate: float = 5e-3
    translation_rate: float = 1e-1
    gain_rate: float = 0.0
    weight_decay: float = 1e-2
    initial_scale: float = 1.6
    scale_prior: ScalePrior = ScalePrior(1.6, 2.5e-3)
    scale_limit: float = 3.0
    rotation_penalty: float = 0.0
    translation_penalty: float = 0.0
    moving: bool = True
    weighted_slices: bool = False
    uniform_share: float = 0.0
    normalisation: float | None = 1e-3
    profile: Profile = "gaussian"
    masks: MaskOptions = MaskOptions()
    backend: str = "cpu"
    cutoff: float = CUTOFF
    seed: int = 0

    @property
    def stage(self) -> Stage:
        """What progress calls it."""
        return Stage("published settings", self.initial_scale, 1, self.epochs, 1, "none", sigma_ratio=1.0, free=True)


def published_code(simulated: bool = False) -> PublishedOptions:
    """The settings of the published code.

    Parameters
    ----------
    simulated
        The code's settings for simulated stacks, which have neither gains nor weights of slices; else those for scans.
    """
    return PublishedOptions(
        n_gaussians=30_000,
        nearest=64,
        schedule=CosineAnnealing(500, 1.25e-4 if simulated else 1e-4),
        quaternion_rate=2.5e-2,
        amplitude_rate=2.5e-2,
        translation_rate=5e-2,
        gain_rate=0.0 if simulated else 1e-3,
        initial_scale=1.65,
        scale_prior=ScalePrior(1.05, 0.05, one_sided=True),
        rotation_penalty=0.01,
        translation_penalty=2e-4,
        weighted_slices=not simulated,
    )
