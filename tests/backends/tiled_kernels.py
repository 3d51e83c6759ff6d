"""Kernels of tiles for tests: in plain PyTorch, and by Triton on a card or in its interpreter."""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType

import pytest
import torch

from gsvr.backends.torch import plain_lattice as plain_tiles
from gsvr.backends.torch.lattice import triton_kernels

# Threads of PyTorch wait for each other where other programs want the cores too.
torch.set_num_threads(1)

CARD = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CARD else "cpu")
HAS_TRITON = importlib.util.find_spec("triton") is not None and (CARD or os.environ.get("TRITON_INTERPRET") == "1")
TRITON = pytest.param("triton", marks=pytest.mark.skipif(not HAS_TRITON, reason="neither Triton nor its interpreter"))
needs_card = pytest.mark.skipif(not CARD, reason="no Nvidia card")


def kernels_named(name: str) -> ModuleType:
    return plain_tiles if name == "plain" else triton_kernels()
