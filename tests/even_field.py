"""Free Gaussians at an even distance, for tests of who is next to whom."""

from __future__ import annotations

import numpy as np

from gsvr.model.fields import GaussianField


def even_field(per_axis: int = 4, width: float = 0.95, seed: int = 0) -> GaussianField:
    """Gaussians about 1.5 mm apart, a little off a lattice; `width` is their share of that distance."""
    rng = np.random.default_rng(seed)
    sites = np.moveaxis(np.indices((per_axis, per_axis, per_axis)), 0, -1).reshape(-1, 3)
    n = len(sites)
    return GaussianField(
        means=(1.5 * (sites + rng.uniform(-0.2, 0.2, (n, 3)))).astype(np.float32),
        log_scales=np.full((n, 3), np.log(1.5 * width), np.float32),
        quaternions=np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
        amplitudes=rng.uniform(0.2, 1.0, n).astype(np.float32),
    )
