"""Super-resolution with total variation, as in UniRes (Brudfors et al., MIUA 2018), of stacks along the world's axes.

One isotropic image x minimises sum_k |A_k x - y_k|^2 / 2 + lambda TV(x). A_k averages over the box of every pixel;
TV is isotropic. Solved by the primal-dual hybrid gradient method (Chambolle & Pock, J Math Imaging Vis 2011). For one
contrast; the acquisition is known, and nothing moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

from gsvr.model.slices import Stack
from gsvr.model.volume import Volume


@dataclass(frozen=True)
class TotalVariationOptions:
    """How the image is regularised and found.

    Attributes
    ----------
    strength
        Lambda, for intensities whose 99th percentile is one.
    steps
        Of the primal-dual method.
    """

    strength: float = 0.005
    steps: int = 200


class _BoxAverage:
    """A of one stack: an average along each axis of the world in turn."""

    def __init__(self, stack: Stack, grid: Volume) -> None:
        direction = stack.affine[:3, :3]
        self.order = np.argmax(np.abs(direction), axis=1)  # axis of the stack that runs along each axis of the world
        widths = [*stack.spacing[:2], stack.thickness]
        self.along = []
        for axis, own in enumerate(self.order):
            if np.abs(np.delete(direction[axis], own)).max() > 1e-6:
                raise ValueError(f"{stack.name} does not lie along the axes of the world")
            places = stack.affine[axis, 3] + direction[axis, own] * np.arange(stack.data.shape[own])
            index = (places - grid.affine[axis, 3]) / grid.affine[axis, axis]
            width = widths[own] / grid.affine[axis, axis]
            self.along.append(_average(index, float(width), grid.data.shape[axis]))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Pixels with the axes of the world."""
        for axis, matrix in enumerate(self.along):
            image = _along(matrix, image, axis)
        return image

    def adjoint(self, pixels: np.ndarray) -> np.ndarray:
        """The transpose of `apply`."""
        for axis, matrix in enumerate(self.along):
            pixels = _along(matrix.T, pixels, axis)
        return pixels

    def to_world(self, data: np.ndarray) -> np.ndarray:
        """A stack's array with the axes of the world."""
        return np.transpose(data, self.order)


def _average(index: Float[np.ndarray, " n"], width: float, n_voxels: int) -> sparse.csr_matrix:
    """Mean over the box of `width` voxels around every index of an image that is constant in each voxel."""
    edges = np.arange(n_voxels + 1) - 0.5
    low, high = (np.clip(index[:, None] + side * width / 2, edges[:1], edges[-1:]) for side in (-1, 1))
    shared = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    return sparse.csr_matrix(np.maximum(shared, 0) / width)


def _along(matrix: sparse.csr_matrix, image: np.ndarray, axis: int) -> np.ndarray:
    moved = np.moveaxis(image, axis, 0)
    product = matrix @ moved.reshape(moved.shape[0], -1)
    return np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis).astype(np.float32)


def _gradient(image: np.ndarray) -> np.ndarray:
    forward = np.zeros((3, *image.shape), np.float32)
    for axis in range(3):
        part = [slice(None)] * 3
        part[axis] = slice(0, -1)
        forward[axis][tuple(part)] = np.diff(image, axis=axis)
    return forward


def _divergence(field: np.ndarray) -> np.ndarray:
    """Minus the transpose of `_gradient`."""
    total = np.zeros(field.shape[1:], np.float32)
    for axis in range(3):
        inner, outer = [slice(None)] * 3, [slice(None)] * 3
        inner[axis], outer[axis] = slice(0, -1), slice(1, None)
        total[tuple(inner)] += field[axis][tuple(inner)]
        total[tuple(outer)] -= field[axis][tuple(inner)]
    return total


def total_variation(
    stacks: list[Stack], masks: list[Bool[np.ndarray, "x y z"]], grid: Volume, options: TotalVariationOptions
) -> Volume:
    """The image on a grid along the world's axes.

    Parameters
    ----------
    masks
        Pixels of each stack that count.
    """
    operators = [_BoxAverage(stack, grid) for stack in stacks]
    inside = [operator.to_world(mask) for operator, mask in zip(operators, masks, strict=True)]
    recorded = [operator.to_world(stack.data) for operator, stack in zip(operators, stacks, strict=True)]
    scale = float(np.percentile(np.concatenate([y[m] for y, m in zip(recorded, inside, strict=True)]), 99))
    recorded = [(y * m / scale).astype(np.float32) for y, m in zip(recorded, inside, strict=True)]
    # every A_k averages, so its norm is at most one; that of the gradient is at most sqrt(12)
    step = 1 / np.sqrt(len(stacks) + 12)
    image = np.zeros(grid.data.shape, np.float32)
    ahead, slopes = image, np.zeros((3, *image.shape), np.float32)
    residuals = [np.zeros_like(y) for y in recorded]
    for _ in range(options.steps):
        for k, (operator, y, m) in enumerate(zip(operators, recorded, inside, strict=True)):
            residuals[k] = (residuals[k] + step * (m * operator.apply(ahead) - y)) / (1 + step)
        slopes += step * _gradient(ahead)
        slopes /= np.maximum(np.linalg.norm(slopes, axis=0) / options.strength, 1)
        back = sum(operator.adjoint(m * r) for operator, r, m in zip(operators, residuals, inside, strict=True))
        moved = image - step * (back - _divergence(slopes))
        ahead, image = 2 * moved - image, moved
    return Volume((image * scale).astype(np.float32), grid.affine, grid.mask)
