"""Which device runs a reconstruction: what is asked for, or the best there is; always said, never silently another.

PyTorch takes a second to import, so it is only imported where a device other than the CPU is asked for, or where a
look at the system says that there may be an Nvidia card.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from gsvr.errors import InputError

# as users type them; cuda:1 is the second card
NAMES = ("auto", "cpu", "cuda", "cuda:N", "mps", "torch")
# Triton's and the kernels' least: cards since 2017
_LEAST_CAPABILITY = (7, 0)


@dataclass(frozen=True)
class Device:
    """What was chosen.

    Attributes
    ----------
    backend
        As `gsvr.backends.named` takes it.
    reason
        Which kernels run, and why these, for people.
    """

    backend: str
    reason: str


def choose_device(name: str) -> Device:
    """Resolve a device's name. Errors put the argument in backticks, see `gsvr.errors.InputError`.

    Parameters
    ----------
    name
        One of `NAMES`.

    Raises
    ------
    InputError
        If there is no such device, or it cannot be used; the sentence says what to do.
    """
    if name == "auto":
        return _best_device()
    if name == "cpu":
        return Device("cpu", f"{_on_cpu()}, as asked")
    if name == "torch":
        _require("torch", name)
        return Device(name, "plain PyTorch on the CPU, as asked: slow, to compare")
    if name == "mps":
        return _apple_device()
    kind, _, number = name.partition(":")
    if name == "cuda" or (kind == "cuda" and number.isdecimal()):
        return _nvidia_device(name, int(number or 0))
    raise InputError(f"`device` {name}: choose one of {', '.join(NAMES)}")


def _best_device() -> Device:
    problem = _nvidia_problem()
    if problem is None:
        torch = _torch()
        for number in range(torch.cuda.device_count()):
            if torch.cuda.get_device_capability(number) >= _LEAST_CAPABILITY:
                return Device(f"cuda:{number}", f"{_on_card(torch, number)}, the first card that can be used")
        problem = f"no card has compute capability {_capability(_LEAST_CAPABILITY)} or more"
    return Device("cpu", f"{_on_cpu()}, since {problem}")


def _nvidia_device(name: str, number: int) -> Device:
    problem = _nvidia_problem()
    if problem is not None:
        raise InputError(
            f"`device` {name}: {problem}; install the driver, PyTorch and Triton (docs/gpu.md), or take `device` cpu"
        )
    torch = _torch()
    count = torch.cuda.device_count()
    if number >= count:
        raise InputError(
            f"`device` {name}: there {'is 1 card' if count == 1 else f'are {count} cards'}, from cuda:0 on"
        )
    capability = torch.cuda.get_device_capability(number)
    if capability < _LEAST_CAPABILITY:
        raise InputError(
            f"`device` {name}: {torch.cuda.get_device_name(number)} has compute capability {_capability(capability)}, "
            f"and {_capability(_LEAST_CAPABILITY)} is needed; take another card or `device` cpu"
        )
    return Device(f"cuda:{number}", f"{_on_card(torch, number)}, as asked")


def _apple_device() -> Device:
    _require("torch", "mps")
    if not _torch().backends.mps.is_available():
        raise InputError("`device` mps: PyTorch finds no Apple GPU; take `device` cpu")
    return Device("mps", "plain PyTorch on the Apple GPU, as asked; there are no kernels of its own for it")


def _require(package: str, device: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f"`device` {device} needs PyTorch: install it (`pip install torch`), or take `device` cpu")


def _nvidia_problem() -> str | None:
    """Why no Nvidia card can be used, or None; imports PyTorch only where the system knows of a card."""
    missing = [shown for package, shown in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
    if not _system_knows_a_card():
        return "the system shows no Nvidia card"
    if not _torch().cuda.is_available():
        return "PyTorch cannot use the card: its build is without CUDA, or the driver is too old for it"
    return None


_PACKAGES = (("torch", "PyTorch"), ("triton", "Triton"))


def _system_knows_a_card() -> bool:
    """Device files of the driver on Linux (under Windows: /dev/dxg), or its tool."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists() or shutil.which("nvidia-smi") is not None


def _torch() -> ModuleType:
    import torch

    return torch


def _on_card(torch: ModuleType, number: int) -> str:
    capability = _capability(torch.cuda.get_device_capability(number))
    return f"Triton kernels on {torch.cuda.get_device_name(number)} (cuda:{number}, compute capability {capability})"


def _on_cpu() -> str:
    from gsvr.compiled.threads import thread_count

    threads = thread_count()
    return f"compiled kernels on the CPU, {threads} thread{'s' if threads > 1 else ''}"


def _capability(capability: tuple[int, int]) -> str:
    return ".".join(str(part) for part in capability)
