"""The matrix of an acquisition of free Gaussians written out in float64, differentiable; needs PyTorch."""

from __future__ import annotations

import numpy as np
import torch

from gsvr.backends.torch import gaussian_reference
from gsvr.model.fields import GaussianField
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices

# tensors this small are a hundred times slower on two busy cores than on one
torch.set_num_threads(1)


def leaves(field: GaussianField) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means, log-scales and quaternions in float64, to be differentiated by."""
    means, log_scales, quaternions = (
        torch.tensor(np.asarray(values, np.float64), requires_grad=True)
        for values in (field.means, field.log_scales, field.quaternions)
    )
    return means, log_scales, quaternions


def matrix(
    geometry: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    slices: Slices,
    poses: np.ndarray,
    spread: PointSpread,
    exact: bool = True,
    nearest: int | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    """A (pixels x Gaussians) without gains, for means, log-scales and quaternions; `steps` as in `moved_poses`."""
    means, log_scales, quaternions = geometry
    sigma = gaussian_reference.covariances(log_scales, quaternions)
    steps = torch.zeros(slices.n_slices, 6, dtype=torch.float64) if steps is None else steps
    rows = []
    for s in range(slices.n_slices):
        frame = torch.tensor(poses[s] @ slices.frames[s])
        local = np.indices(slices.shapes[s]).reshape(2, -1).T * slices.pixel_spacings[s]
        points = torch.tensor(np.column_stack([local, np.zeros(len(local))]))
        centre = points.mean(dim=0)
        # to first order in the step, which is all that a derivative at zero sees
        turn = torch.eye(3, dtype=torch.float64) + torch.stack(
            [torch.linalg.cross(steps[s, :3], axis) for axis in torch.eye(3, dtype=torch.float64)], dim=1
        )
        moved = (points - centre) @ turn.T + centre + steps[s, 3:]
        parts = (spread.in_plane_variances[s], spread.weights, spread.offsets[s], spread.variances[s])
        view = (moved @ frame[:3, :3].T + frame[:3, 3], frame[:3, :3] @ turn, *(torch.tensor(part) for part in parts))
        rows.append(gaussian_reference.responses(means, sigma, *view, exact=exact, nearest=nearest))
    return torch.cat(rows)
