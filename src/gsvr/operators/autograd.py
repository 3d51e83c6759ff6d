"""The acquisition operator inside PyTorch's automatic differentiation, so that a network can be trained through it.

Forward and backward run the operator's own kernels on its own backend, in float32 whatever the tensors are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from gsvr.backends.protocol import Array
from gsvr.model.geometry import rotation_from_vector
from gsvr.operators.acquisition import AcquisitionOperator, moved_poses
from gsvr.operators.gaussians import GaussianOperator


def acquire(
    operator: AcquisitionOperator,
    amplitudes: Float[Tensor, "*sites"],
    means: Float[Tensor, "n 3"] | None = None,
    log_scales: Float[Tensor, "n 3"] | None = None,
    quaternions: Float[Tensor, "n 4"] | None = None,
    steps: Float[Tensor, "slices 6"] | None = None,
) -> Float[Tensor, " p"]:
    """Every pixel of every slice, differentiable by all tensors given, once.

    Parameters
    ----------
    operator
        Slices with poses, gains and profile, and the backend; also the geometry, as far as it is not given here.
    amplitudes
        Of the Gaussians; for a `gsvr.operators.lattice.LatticeOperator` with the lattice's shape.
    means, log_scales, quaternions
        Of free Gaussians, as in `gsvr.model.fields.GaussianField`, in place of the operator's.
    steps
        How far each slice has moved from its pose in the operator: rotation vector (rad) and translation (mm) in the
        slice frame, about the slice's centre, as in `gsvr.operators.acquisition.moved_poses`.

    Returns
    -------
    Pixels in the order of ``operator.slices.values``, with type and device of the amplitudes.

    Raises
    ------
    ValueError
        If geometry is given for a lattice, or a tensor has the wrong shape.
    """
    geometry = {"means": means, "log_scales": log_scales, "quaternions": quaternions}
    given = {name: tensor for name, tensor in geometry.items() if tensor is not None}
    poses, primitives = operator.poses, operator.primitives
    if steps is not None:
        _check_shape("steps", steps, (operator.slices.n_slices, 6))
        poses = moved_poses(operator.slices, poses, _on_host(steps).astype(np.float64))
    if isinstance(operator, GaussianOperator):
        _check_shape("amplitudes", amplitudes, (operator.primitives.n_gaussians,))
        for name, tensor in given.items():
            _check_shape(name, tensor, getattr(primitives, name).shape)
        gaussians = replace(operator.primitives, **{name: _on_host(tensor) for name, tensor in given.items()})
        placed = operator.with_gaussians(gaussians, poses) if given or steps is not None else operator
    else:
        if given:
            raise ValueError(f"{' and '.join(given)} cannot be given for a lattice: take a GaussianOperator")
        _check_shape("amplitudes", amplitudes, primitives.shape)  # pyright: ignore[reportAttributeAccessIssue]
        placed = operator.with_poses(poses) if steps is not None else operator
    return _Acquisition.apply(placed, amplitudes, means, log_scales, quaternions, steps)  # pyright: ignore[reportReturnType]


class _Acquisition(torch.autograd.Function):
    """Prediction by an operator that stands where the tensors say, and its gradients."""

    @staticmethod
    def forward(ctx: Any, operator: AcquisitionOperator, amplitudes: Tensor, *others: Tensor | None) -> Tensor:
        """Pixels; `others` are means, log-scales, quaternions and steps, which the operator knows."""
        ctx.operator = operator
        ctx.save_for_backward(amplitudes, *others)
        return _outside(operator.predict(_inside(operator, amplitudes)), amplitudes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, residual: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients by everything that asks for one."""
        operator, tensors, needed = ctx.operator, ctx.saved_tensors, ctx.needs_input_grad[1:]
        amplitudes, pixels = _inside(operator, tensors[0]), _inside(operator, residual)
        gradients: list[Any] = [None] * len(tensors)
        if needed[0]:
            gradients[0] = operator.adjoint(pixels)
        if isinstance(operator, GaussianOperator) and any(needed[1:]):
            by_geometry = operator.geometry_gradient(amplitudes, pixels)
            by_shape = operator.primitives.shape_gradient(by_geometry.covariances)
            gradients[1:] = [by_geometry.means, *by_shape, by_geometry.poses]
        elif needed[4]:
            _, derivatives = operator.pose_derivatives(amplitudes)
            gradients[4] = np.stack([operator.pixels.sum_per_slice(pixels * part) for part in derivatives], axis=1)
        if needed[4]:
            gradients[4] = _by_steps(_on_host(tensors[4]).astype(np.float64), gradients[4])
        return None, *(
            _outside(gradient, tensor) if wanted else None
            for gradient, tensor, wanted in zip(gradients, tensors, needed, strict=True)
        )


def _by_steps(steps: Float[np.ndarray, "n 6"], further: Float[np.ndarray, "n 6"]) -> Float[np.ndarray, "n 6"]:
    """Gradient by the steps that slices have made, from the gradient by a `further` step after them.

    A change of the rotation vector v turns by its product with the right Jacobian of SO(3) (Sola et al., A micro Lie
    theory, 2018, eq. 143); translations of a further step are along axes that have turned already.
    """
    angle = np.linalg.norm(steps[:, :3], axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0, not chosen
        third = np.where(angle > 1e-2, (angle - np.sin(angle)) / angle**3, 1 / 6 - angle**2 / 120)
    first = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    turned = np.cross(steps[:, :3], further[:, :3])
    by_rotation = further[:, :3] + first[:, None] * turned + third[:, None] * np.cross(steps[:, :3], turned)
    by_translation = np.einsum("nij,nj->ni", rotation_from_vector(steps[:, :3]), further[:, 3:])
    return np.concatenate([by_rotation, by_translation], axis=1)


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} of shape {tuple(tensor.shape)}: the operator needs {tuple(shape)}")


def _on_host(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _inside(operator: AcquisitionOperator, tensor: Tensor) -> Array:
    """A tensor as an array of the operator's backend."""
    example = operator.backend.array(np.zeros(1, np.float32))
    if isinstance(example, Tensor):
        return tensor.detach().to(example).contiguous()
    return operator.backend.array(_on_host(tensor))


def _outside(array: Array, like: Tensor) -> Tensor:
    """An array of a backend as a tensor like another."""
    return torch.as_tensor(array).to(like)
