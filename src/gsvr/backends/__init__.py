"""Where arrays live and which kernels run: one protocol, and a backend by its name; none falls back silently."""

from __future__ import annotations

from functools import cache

from gsvr.backends.protocol import Backend
from gsvr.errors import InputError

# C on the CPU; Triton on Nvidia's cards (cuda, cuda:1, ...); plain PyTorch on an Apple GPU, and on the CPU
BACKENDS = ("cpu", "cuda", "mps", "torch")

__all__ = ["BACKENDS", "Backend", "named"]


def named(backend: Backend | str) -> Backend:
    """The backend of a name; a backend itself stays what it is.

    Raises
    ------
    InputError
        If the backend is unknown or needs a package that is not installed.
    """
    return _made(backend) if isinstance(backend, str) else backend


@cache
def _made(name: str) -> Backend:
    if name == "cpu":
        from gsvr.backends.cpu.backend import CpuBackend

        return CpuBackend()
    if name.partition(":")[0] not in BACKENDS:
        raise InputError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    try:
        from gsvr.backends.torch.backend import TorchBackend
    except ImportError as error:
        raise InputError(f"the backend {name!r} needs PyTorch: install it (`pip install torch`)") from error
    return TorchBackend(name)
