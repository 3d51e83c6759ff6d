"""What a preset, a profile, a device and a seed mean together."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

if TYPE_CHECKING:
    from gsvr.solver.published import PublishedOptions
    from gsvr.solver.schedule import SolverOptions

logger = logging.getLogger(__name__)

PRESETS = ("default", "fast", "paper", "published-code")
BIAS_FIELDS = ("auto", "off")
_PUBLISHED = ("paper", "published-code")


def chosen_options(
    preset: str,
    profile: str | None,
    device: str,
    seed: int,
    samples: int,
    motion: str = "slices",
    search: bool = True,
    bias_field: str = "auto",
) -> SolverOptions | PublishedOptions:
    """Options of a reconstruction.

    Parameters
    ----------
    profile
        None: the preset's own.
    samples
        Of the posterior, for the uncertainty.
    motion
        What moves: slices, stacks or none.
    search
        Whether to search for the place of stacks that do not fit to the others.
    bias_field
        auto: each stack's is estimated; off.

    Raises
    ------
    InputError
        For a word that is none of the choices, or a combination that does not exist.
    """
    from gsvr.backends.devices import choose_device
    from gsvr.errors import InputError
    from gsvr.model.point_spread import PROFILES
    from gsvr.solver.published import PublishedOptions, published_code
    from gsvr.solver.schedule import Motion, SolverOptions, default_stages

    if preset not in PRESETS:
        raise InputError(f"`preset` {preset}: choose one of {', '.join(PRESETS)}")
    if profile is not None and profile not in PROFILES:
        raise InputError(f"`profile` {profile}: choose one of {', '.join(PROFILES)}")
    if motion not in get_args(Motion):
        raise InputError(f"`motion` {motion}: choose one of {', '.join(get_args(Motion))}")
    if bias_field not in BIAS_FIELDS:
        raise InputError(f"`bias_field` {bias_field}: choose one of {', '.join(BIAS_FIELDS)}")
    given: dict[str, Any] = {"seed": seed} if profile is None else {"seed": seed, "profile": profile}
    chosen = choose_device(device)
    logger.info("device %s: %s", device, chosen.reason)
    if preset not in _PUBLISHED:
        stages = default_stages(free=preset == "default", motion=cast(Motion, motion))
        given["search"] = "lost" if search else "none"
        given["estimate_thickness"] = search and profile is None
        if bias_field == "off":
            given["bias"] = None
        return SolverOptions(stages=stages, backend=chosen.backend, uncertainty_samples=samples, **given)
    if samples:
        raise InputError(f"`samples` cannot go with `preset` {preset}: leave one of the two out")
    if motion == "stacks":
        raise InputError(f"`motion` stacks cannot go with `preset` {preset}, which moves slices or nothing")
    if not search or bias_field == "off":
        asked = "`trust_headers`" if not search else "`bias_field` off"
        raise InputError(f"{asked} cannot go with `preset` {preset}, which neither searches nor corrects bias")
    given["moving"] = motion == "slices"
    published = PublishedOptions() if preset == "paper" else published_code()
    return replace(published, backend=chosen.backend, **given)
