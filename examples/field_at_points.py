"""A field at any points, with its gradient, without a grid. Run it with ``python examples/field_at_points.py``."""

from __future__ import annotations

import numpy as np

import gsvr


def main() -> np.ndarray:
    """Walk uphill from random points of a field, and find its peaks."""
    rng = np.random.default_rng(0)
    peaks = rng.uniform(-20, 20, (12, 3))
    # files that `gsvr reconstruct --output-model` writes are read by `gsvr.read_field`
    field = gsvr.GaussianField(
        means=peaks,
        log_scales=np.log(rng.uniform(4.0, 6.0, (12, 3))),
        quaternions=rng.normal(size=(12, 4)),
        amplitudes=rng.uniform(1.0, 2.0, 12),
    )
    points = rng.uniform(-20, 20, (500, 3))
    before = gsvr.values_at(field, points)
    for _ in range(60):
        values, gradients = gsvr.values_and_gradients_at(field, points)
        # the gradient of the logarithm: as long a step where the field is low as where it is high
        points = points + 5.0 * gradients / np.maximum(values, 1e-3)[:, None]
    after = gsvr.values_at(field, points)
    print(f"{field}: mean value {before.mean():.2f} at random points, {after.mean():.2f} uphill of them")
    return np.stack([before, after])


if __name__ == "__main__":
    main()
