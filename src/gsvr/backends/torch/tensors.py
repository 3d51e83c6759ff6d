"""Arrays of the host as tensors of a device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def exact_type(device: torch.device) -> torch.dtype:
    """Type for geometry and long sums: float64 where there is one (Apple's cards have none)."""
    return torch.float32 if device.type == "mps" else torch.float64


def moved(values: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A copy on the device; the type is changed on the host, which knows them all."""
    return torch.tensor(np.asarray(values)).to(dtype).to(device)
