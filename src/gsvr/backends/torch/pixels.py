"""The pixels of slices as tensors, and sums over each slice, always in the same order."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from gsvr.backends.protocol import pose_columns
from gsvr.backends.torch.tensors import exact_type, moved
from gsvr.model.slices import Slices


class TorchPixels:
    """See `gsvr.backends.protocol.Pixels`."""

    def __init__(self, slices: Slices, device: torch.device) -> None:
        self._slices, self._device = slices, device
        self.values: Float32[Tensor, " p"] = moved(slices.values, torch.float32, device)
        self.coverage: Float32[Tensor, " p"] = moved(slices.coverage * slices.mask, torch.float32, device)
        self._owner: Int64[Tensor, " p"] = moved(slices.per_pixel(np.arange(slices.n_slices)), torch.int64, device)

    def per_pixel(self, per_slice: Float[np.ndarray, " n"]) -> Float32[Tensor, " p"]:
        return moved(per_slice, torch.float32, self._device)[self._owner]

    def sum_per_slice(self, flat: Tensor) -> Float[np.ndarray, " n"]:
        return self._sums(flat).cpu().double().numpy()

    def pose_equations(
        self,
        planes: Float32[Tensor, "7 p"],
        gains: Float[np.ndarray, " n"],
        values: Float32[Tensor, " p"],
        weights: Float32[Tensor, " p"],
    ) -> tuple[Float[np.ndarray, "n 6 6"], Float[np.ndarray, "n 6"]]:
        """Sums over the pixels of each slice of products of the six derivatives, one pair after the other."""
        jacobian = pose_columns(planes, *self._along)
        residual = weights * (values - self.per_pixel(gains) * planes[0])
        products = [residual * column for column in jacobian]
        pairs = [(a, b) for a in range(6) for b in range(a, 6)]
        products += [weights * jacobian[a] * jacobian[b] for a, b in pairs]
        sums = torch.stack([self._sums(product) for product in products], 1).cpu().double().numpy()
        curvature = np.empty((len(gains), 6, 6))
        for n, (a, b) in enumerate(pairs, 6):
            curvature[:, a, b] = curvature[:, b, a] = sums[:, n] * gains**2
        return curvature, sums[:, :6] * gains[:, None]

    def _sums(self, flat: Tensor) -> Float[Tensor, " n"]:
        padded = torch.nn.functional.pad(flat, (0, 1))
        return padded[self._rows].sum(1, dtype=exact_type(self._device))

    @cached_property
    def _rows(self) -> Int64[Tensor, "n widest"]:
        """Pixels of every slice, padded with the number of pixels."""
        offsets = self._slices.offsets
        sizes = np.diff(offsets)[:, None]
        steps = np.arange(int(sizes.max()))
        return moved(np.where(steps < sizes, offsets[:-1, None] + steps, offsets[-1]), torch.int64, self._device)

    @cached_property
    def _along(self) -> tuple[Float32[Tensor, " p"], Float32[Tensor, " p"]]:
        u, v = self._slices.centred_pixels()
        return moved(u, torch.float32, self._device), moved(v, torch.float32, self._device)
