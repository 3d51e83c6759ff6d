"""Which card, driver and versions a measurement was made with."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch

from benchmarks.machine import provenance


def describe_card(device: torch.device) -> dict[str, Any]:
    """Name, compute capability, memory and clocks of a card, and the versions around it."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "gigabytes": properties.total_memory / 1e9,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": metadata.version("triton"),
        **provenance(),
    }
