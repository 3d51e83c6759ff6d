"""Where arrays live and which kernels run: one protocol, and a backend by its name; none falls back silently."""

from __future__ import annotations

from functools import cache

from gsvr.backends.protocol import Backend
from gsvr.errors import InputError

# C on the CPU; Triton on Nvidia's cards (cuda, cuda:1, ...); plain PyTorch on an Apple GPU, and on the CPU
BACKENDS = ("cpu", "cuda", "mps", "torch")

__all__ = ["BACKENDS", "Backend", "named"]


@cache
def named(name: str) -> Backend:
    """The backend of a name.

    Raises
    ------
    InputError
        If the backend is unknown or needs a package that is not installed.
    """
    if name == "cpu":
        from gsvr.backends.cpu.backend import CpuBackend

        return CpuBackend()
    if name.partition(":")[0] not in BACKENDS:
        raise InputError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    try:
        from gsvr.backends.torch.backend import TorchBackend
    except ImportError as error:
        raise InputError(f"the backend {name!r} needs PyTorch: install it with `pip install 'gsvr[torch]'`") from error
    return TorchBackend(name)
