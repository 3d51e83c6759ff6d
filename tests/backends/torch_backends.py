"""Backends of PyTorch for tests, and slices of which nothing is alike."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import numpy as np
import pytest
import torch

from gsvr.backends.torch.backend import TorchBackend
from gsvr.model.fields import GaussianField
from gsvr.model.geometry import pose_about, rotation_from_vector
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices, Stack, interleaved_times, slices_from_stacks
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.operators.gaussians import GaussianOperator

# Threads of PyTorch wait for each other where other programs want the cores too.
torch.set_num_threads(1)

CARD = torch.cuda.is_available()
HAS_TRITON = importlib.util.find_spec("triton") is not None and (CARD or os.environ.get("TRITON_INTERPRET") == "1")
TRITON = pytest.param(
    "triton",
    marks=[
        *(pytest.mark.slow, *([pytest.mark.gpu] if CARD else [])),
        pytest.mark.skipif(not HAS_TRITON, reason="neither Triton nor its interpreter"),
    ],
)
BOTH = pytest.mark.parametrize("name", ["plain", TRITON])
# So wide a cut-off costs nothing: exp(-6.5^2 / 2) is 7e-10.
WIDE = 6.5


@cache
def backend_named(name: str) -> TorchBackend:
    """Plain PyTorch on the CPU, or Triton: on a card, else in its interpreter, for which small chunks cost as much."""
    if name == "plain":
        return TorchBackend("torch")
    if CARD:
        return TorchBackend("cuda")
    from gsvr.backends.triton import gaussians, lattice

    gaussians.CHUNK, lattice.SITES = 32, 256
    return TorchBackend("torch", triton=True)


@cache
def oblique_slices() -> tuple[Slices, np.ndarray]:
    """Five slices of three oblique stacks, the first of several tiles; sizes, spacings and thicknesses all differ."""
    rng = np.random.default_rng(11)
    stacks, masks = [], []
    for number, (shape, spacing, thickness) in enumerate(
        [((18, 21, 2), (0.9, 0.7, 3.0), 2.6), ((12, 9, 2), (1.0, 1.4, 3.3), 2.5), ((7, 17, 1), (1.6, 0.8, 4.0), 4.2)]
    ):
        affine = np.eye(4)
        affine[:3, :3] = rotation_from_vector(rng.normal(size=3)) * np.array(spacing)
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        masks.append(rng.random(shape) < 0.8)
        masks[-1][[0, -1], [0, -1]] = True
        values = rng.random(shape).astype(np.float32)
        stacks.append(Stack(str(number), values, affine, thickness, masks[-1], interleaved_times(shape[2])))
    slices = slices_from_stacks(stacks, masks)
    n = slices.n_slices
    return slices, pose_about(0.2 * rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), slices.centres)


def random_gaussians(n: int = 40, normalisation: float | None = None) -> GaussianField:
    """Stretched, turned Gaussians all around the slices."""
    rng = np.random.default_rng(7)
    return GaussianField(
        rng.uniform(-7, 7, (n, 3)).astype(np.float32),
        np.log(rng.uniform(0.5, 2.2, (n, 3))).astype(np.float32),
        rng.normal(size=(n, 4)).astype(np.float32),
        rng.uniform(-0.5, 1.0, n).astype(np.float32),
        normalisation,
    )


def mixture_of_three(slices: Slices) -> PointSpread:
    """Full covariances and offsets in all directions, another for every slice and component."""
    rng = np.random.default_rng(5)
    roots = rng.normal(scale=0.6, size=(slices.n_slices, 3, 3, 3))
    covariances = roots @ np.swapaxes(roots, 2, 3) + 0.05 * np.eye(3)
    return PointSpread(np.array([0.5, 0.2, 0.3]), rng.normal(scale=0.7, size=(slices.n_slices, 3, 3)), covariances)


def profile_of_three(slices: Slices) -> PointSpread:
    """Separable, with three unequal components through the plane."""
    widths = slices.thicknesses[:, None] * np.array([0.2, 0.3, 0.15])
    offsets = slices.thicknesses[:, None] * np.array([-0.4, 0.05, 0.3])
    return PointSpread.through_plane(0.25 * slices.spacings**2, np.array([0.3, 0.5, 0.2]), offsets, widths**2)


def results_of(operator: AcquisitionOperator, amplitudes: np.ndarray, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """All that kernels are asked for, on the host."""
    backend = operator.backend
    c, r = backend.array(amplitudes), backend.array(pixels)
    value, by_pose = operator.pose_derivatives(c)
    arrays = {"prediction": operator.predict(c), "adjoint": operator.adjoint(r), "diagonal": operator.diagonal(r)}
    arrays |= {"differentiated": value} | {f"by pose, {n}": part for n, part in enumerate(by_pose)}
    on_host = {name: backend.host(part) for name, part in arrays.items()}
    if isinstance(operator, GaussianOperator):
        on_host |= {f"by {name}": part for name, part in vars(operator.geometry_gradient(c, r)).items()}
    return on_host


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    """Elementwise, as a share of the largest value; and as a whole."""
    assert got.shape == want.shape
    assert np.abs(want).max() > 0
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)
