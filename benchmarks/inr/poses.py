"""Learned slice poses: a rotation vector and a translation about the slice's own centre, after its first pose."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gsvr.model.geometry import pose_about, transform_points
from gsvr.model.slices import Slices
from gsvr.solver.motion import LEVER


def rotation_from_vector(vector: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Matrix exponential of rotation vectors in radians (Rodrigues), differentiable at zero as well."""
    square = (vector * vector).sum(dim=1, keepdim=True)[..., None]
    angle = torch.sqrt(square + 1e-12)
    sine, cosine = torch.sin(angle) / angle, (1 - torch.cos(angle)) / (angle * angle)
    x, y, z = vector.unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    return torch.eye(3, dtype=vector.dtype) + sine * cross + cosine * (cross @ cross)


class SlicePoses(nn.Module):
    """Six parameters a slice in mm: rotations are measured by the displacement they cause at `LEVER`.

    Parameters
    ----------
    slices
        Their frames and centres.
    start
        First poses, acquired world -> volume world.
    """

    turn: Tensor
    shift: Tensor
    centres: Tensor

    def __init__(self, slices: Slices, start: Float[np.ndarray, "n 4 4"]) -> None:
        super().__init__()
        self._start = start
        self._moved_centres = transform_points(start, slices.centres)
        placed = start @ slices.frames
        self.parameters_mm = nn.Parameter(torch.zeros(slices.n_slices, 6))
        self.register_buffer("turn", torch.tensor(placed[:, :3, :3], dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(placed[:, :3, 3], dtype=torch.float32))
        self.register_buffer("centres", torch.tensor(self._moved_centres, dtype=torch.float32))

    def place(self, slices: Int[Tensor, " b"], local: Float[Tensor, "b s 3"]) -> Float[Tensor, "b s 3"]:
        """Points of the slice frames (mm) -> volume world (mm)."""
        rotation = rotation_from_vector(self.parameters_mm[:, :3] / LEVER)
        turn = rotation @ self.turn
        arm = (rotation @ (self.shift - self.centres)[..., None])[..., 0]
        shift = arm + self.centres + self.parameters_mm[:, 3:]
        return torch.einsum("bij,bsj->bsi", turn[slices], local) + shift[slices][:, None, :]

    def matrices(self) -> Float[np.ndarray, "n 4 4"]:
        """Poses, acquired world -> volume world."""
        parameters = self.parameters_mm.detach().numpy().astype(np.float64)
        return pose_about(parameters[:, :3] / LEVER, parameters[:, 3:], self._moved_centres) @ self._start
