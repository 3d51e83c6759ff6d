"""What ``--preset``, ``--profile``, ``--device`` and ``--seed`` mean together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsvr.solver.paper import PaperOptions
    from gsvr.solver.schedule import SolverOptions

logger = logging.getLogger(__name__)

PRESETS = ("default", "paper")
# device -> backend of the default, and backend and PyTorch's device of the published settings
_BACKENDS = {"auto": "cpu", "cpu": "cpu", "reference": "reference"}
_PUBLISHED = {"auto": ("cpu", "cpu"), "cpu": ("cpu", "cpu"), "reference": ("torch", "cpu"), "cuda": ("torch", "cuda")}


def chosen_options(
    preset: str, profile: str | None, device: str, seed: int, samples: int
) -> SolverOptions | PaperOptions:
    """Options of a reconstruction.

    Parameters
    ----------
    profile
        None: the preset's own.
    samples
        Of the posterior, for the uncertainty.

    Raises
    ------
    InputError
        For a word that is none of the choices, or a combination that does not exist.
    """
    from gsvr.errors import InputError
    from gsvr.psf import PROFILES
    from gsvr.solver.paper import PaperOptions
    from gsvr.solver.schedule import SolverOptions

    if preset not in PRESETS:
        raise InputError(f"--preset {preset}: choose one of {', '.join(PRESETS)}")
    if profile is not None and profile not in PROFILES:
        raise InputError(f"--profile {profile}: choose one of {', '.join(PROFILES)}")
    devices = _BACKENDS if preset == "default" else _PUBLISHED
    if device not in devices:
        hint = "; only --preset paper runs on a GPU" if device == "cuda" else ""
        raise InputError(f"--device {device}: choose one of {', '.join(devices)}{hint}")
    given: dict[str, Any] = {"seed": seed} if profile is None else {"seed": seed, "profile": profile}
    logger.info("device %s: %s", device, _reason(device))
    if preset == "default":
        return SolverOptions(backend=_BACKENDS[device], uncertainty_samples=samples, **given)
    if samples:
        raise InputError("--output-uncertainty is not for --preset paper: leave one of the two out")
    backend, torch_device = _PUBLISHED[device]
    return PaperOptions(backend=backend, device=torch_device, **given)


def _reason(device: str) -> str:
    """Which kernels run, and why these."""
    from gsvr.kernels.threads import thread_count

    if device == "cuda":
        return "plain PyTorch on the GPU, as asked"
    if device == "reference":
        return "kernels in plain PyTorch on the CPU, as asked; they are slow and meant for comparison"
    threads = thread_count()
    why = "the default" if device == "auto" else "as asked"
    return f"compiled kernels on the CPU, {threads} thread{'s' if threads > 1 else ''}, {why}"
