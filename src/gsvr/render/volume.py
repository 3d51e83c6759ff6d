"""From a field to a voxel volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from gsvr.backends import Backend
from gsvr.errors import InputError
from gsvr.model.fields import Field, GaussianField
from gsvr.model.mask_grid import mask_on_grid
from gsvr.model.morphology import within
from gsvr.model.point_spread import FWHM_PER_SIGMA, IN_PLANE_FWHM_PER_SPACING
from gsvr.model.volume import Volume
from gsvr.render.sampling import sample_grid

# Voxel sizes (mm) that make sense for a brain: finer ones need many GB, coarser ones show nothing.
_FINEST, _COARSEST = 0.2, 10.0


def check_voxel_size(spacing: float) -> None:
    """Refuse a voxel size (mm) that cannot be meant, before any work is done.

    Raises
    ------
    InputError
        If it is not between 0.2 and 10 mm.
    """
    if not _FINEST <= spacing <= _COARSEST:
        raise InputError(
            f"a voxel size of {spacing:g} mm cannot be rendered: give an output resolution between {_FINEST:g} and "
            f"{_COARSEST:g} mm"
        )


def render_volume(
    field: Field,
    spacing: float,
    mask: Volume | None = None,
    margin: float = 2.0,
    backend: Backend | str = "cpu",
) -> Volume:
    """Sample the field on an isotropic grid along the world's axes (RAS), exactly.

    A normalised field is sampled as seen through a Gaussian of FWHM 1.2 voxels, as the code of Dannecker et al. (MIDL
    2026) does: nothing holds its Gaussians between the pixels, whose point spread function is all that they were fitted
    through.

    Parameters
    ----------
    field
        The reconstruction.
    spacing
        Voxel size (mm). Voxel centres lie at multiples of it, so grids of one spacing coincide.
    mask
        Brain mask, in volume world: becomes the volume's mask, and what lies more than `margin` (mm) outside of it
        becomes zero, since nothing was measured there.
    backend
        Where to render: a backend or its name, see `gsvr.backends.BACKENDS`.

    Raises
    ------
    ValueError
        If the spacing is not positive, the mask is empty, or the field has no Gaussians.
    """
    if spacing <= 0:
        raise ValueError("voxel spacing must be positive (mm)")
    low, high = _extent(field)
    if mask is not None:
        if mask.mask is None or not mask.mask.any():
            raise ValueError("the volume given as `mask` has no mask, or an empty one: give its voxels as Volume.mask")
        corners = mask.voxel_positions(mask.mask)
        low = np.maximum(low, corners.min(axis=0) - margin - spacing)
        high = np.minimum(high, corners.max(axis=0) + margin + spacing)
    first, last = np.floor(low / spacing).astype(int), np.ceil(high / spacing).astype(int)
    axes = tuple(spacing * np.arange(a, b + 1) for a, b in zip(first, last, strict=True))
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = first * spacing
    if isinstance(field, GaussianField) and field.normalisation is not None:
        field = field.blurred(IN_PLANE_FWHM_PER_SPACING / FWHM_PER_SIGMA * spacing)
    data = sample_grid(field, (axes[0], axes[1], axes[2]), backend)
    if mask is None:
        return Volume(data, affine)
    inside = mask_on_grid(mask, affine, data.shape)
    near = within(inside, margin, spacing)
    return Volume(np.where(near, data, np.float32(0)), affine, inside)


def render_deviation(
    samples: Sequence[Field],
    volume: Volume,
    difference: Field | None = None,
    smoothing: float = 2.0,
    backend: Backend | str = "cpu",
) -> Volume:
    """Standard deviation of every voxel of a volume, from samples of the field's posterior.

    The posterior takes the model for right. Where two fields have been fitted that differ by more than their samples
    do, their difference says how wrong they are.

    Parameters
    ----------
    samples
        Samples minus the estimate, see `gsvr.solver.uncertainty.posterior_deviations`.
    volume
        Whose grid, along the world's axes, and mask to use; where it is zero the deviation is too.
    difference
        Of the two fields that the volume is the average of, see `gsvr.solver.state.Result.difference`.
    smoothing
        Standard deviation (mm) of the Gaussian that averages variances over neighbouring voxels: a handful of samples
        alone gives a speckled one, and two fields are the same somewhere.
    backend
        As of `render_volume`.

    Raises
    ------
    ValueError
        If there is no sample.
    """
    if not samples:
        raise ValueError("no samples of the posterior: ask for them in SolverOptions.uncertainty_samples")
    first, spacing = volume.affine[:3, 3], volume.spacing
    axes = tuple(first[axis] + spacing[axis] * np.arange(volume.data.shape[axis]) for axis in range(3))

    def variance(fields: Sequence[Field]) -> np.ndarray:
        squares = [sample_grid(field, (axes[0], axes[1], axes[2]), backend) ** 2 for field in fields]
        return ndimage.gaussian_filter(np.mean(squares, axis=0, dtype=np.float64), smoothing / spacing)

    smooth = variance(samples)
    if difference is not None:
        smooth = np.maximum(smooth, variance([difference]))
    deviation = np.sqrt(np.maximum(smooth, 0)) * (volume.data != 0)
    return Volume(deviation.astype(np.float32), volume.affine, volume.mask)


def _extent(field: Field) -> tuple[np.ndarray, np.ndarray]:
    means = field.means if isinstance(field, GaussianField) else field.to_gaussians().means
    if len(means) == 0:
        raise ValueError("the field has no Gaussians")
    return means.min(axis=0).astype(np.float64), means.max(axis=0).astype(np.float64)
