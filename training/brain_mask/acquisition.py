"""What scanners do to a picture: coils, blur, lost slices, noise, a cut field of view."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from training.brain_mask.fields import Fields


def _one_in(rng: np.random.Generator, fraction: float) -> bool:
    return bool(rng.random() < fraction)


def degrade(images: np.ndarray, fields: Fields, rng: np.random.Generator) -> np.ndarray:
    """Images (slices, rows, columns) as a scanner might have made them. ``fields`` has one plane a slice."""
    n, rows, columns = images.shape
    if _one_in(rng, 0.7):
        sigma = rng.uniform(0.2, 0.9)
        images = ndimage.gaussian_filter(images, (0, sigma * rng.uniform(0.7, 1.3), sigma), truncate=3)
    # coils: slow changes, and a fall-off from one side
    bias = rng.uniform(0, 0.45) * fields.draw(rng.uniform(60, 160))[0]
    if _one_in(rng, 0.5):
        y = np.linspace(-1, 1, rows)[:, None]
        x = np.linspace(-1, 1, columns)[None]
        bias = bias + (rng.normal(0, 0.35) * y + rng.normal(0, 0.35) * x).astype(np.float32)
    images = images * np.exp(bias)
    # slices that lost signal, wholly or where motion was worst; spins not yet recovered in every other slice
    gain = rng.normal(1, rng.uniform(0, 0.1), n)
    if _one_in(rng, 0.15):
        gain[rng.integers(2) :: 2] *= rng.uniform(0.6, 0.95)
    images = images * gain[:, None, None].astype(np.float32)
    if _one_in(rng, 0.25):
        holes = np.clip(1.2 + 0.9 * fields.draw(rng.uniform(25, 80))[0], 0.1, 1)
        lost = rng.random(n) < 0.4
        images[lost] *= holes[lost]
    if _one_in(rng, 0.1):
        images[rng.random(n) < 0.3] *= rng.uniform(0.1, 0.6)
    if _one_in(rng, 0.1):  # ghosts along the phase-encoding direction
        axis = int(rng.integers(1, 3))
        images = images + rng.uniform(0.03, 0.2) * np.roll(images, int(rng.integers(8, columns // 2)), axis=axis)
    if _one_in(rng, 0.1):  # stripes
        phase = np.arange(columns) * 2 * np.pi / rng.uniform(3, 20) + rng.uniform(0, 6)
        stripes = 1 + rng.uniform(0.02, 0.2) * np.sin(phase)
        images = images * (stripes[None, None] if _one_in(rng, 0.5) else stripes[None, :, None]).astype(np.float32)
    top = float(np.percentile(images[:, ::2, ::2], 99)) + 1e-6
    images = np.clip(images / top, 0, None) ** rng.uniform(0.6, 1.35)
    sigma = 10 ** rng.uniform(-2.5, -1.05)
    noise = rng.standard_normal((2, *images.shape), dtype=np.float32) * sigma
    if _one_in(rng, 0.3):  # noise as left by interpolation
        noise = ndimage.gaussian_filter(noise, (0, 0, 0.7, 0.7), truncate=2) * 2
    images = np.hypot(images + noise[0], noise[1])
    return images


def draw_field_of_view(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Part of the picture (rows, columns) that was acquired; the rest is set to zero. In most scenes all of it."""
    view = np.ones((rows, columns), np.float32)
    if not _one_in(rng, 0.25):
        return view
    low = rng.uniform(0, 0.35, 2) * (rng.random(2) < 0.6)
    high = np.where(rng.random(2) < 0.6, rng.uniform(0.65, 1, 2), 1.0)
    view[: int(low[0] * rows)] = 0
    view[int(high[0] * rows) :] = 0
    view[:, : int(low[1] * columns)] = 0
    view[:, int(high[1] * columns) :] = 0
    return view
