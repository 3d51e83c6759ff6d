"""Whether a folder is a valid BIDS dataset, as the official validator sees it."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from gsvr.errors import InputError

logger = logging.getLogger(__name__)

_SHOWN = 3


def find_validator() -> list[str] | None:
    """The command of the validator in this environment, else of that on the system, or None."""
    if importlib.util.find_spec("bids_validator_deno") is not None and _has_deno():
        return [sys.executable, "-c", "import bids_validator_deno; bids_validator_deno.cli()"]
    found = shutil.which("bids-validator-deno") or shutil.which("bids-validator")
    return None if found is None else [found]


def _has_deno() -> bool:
    """The validator's package comes with another one, and that with a program, which runs it."""
    try:
        importlib.import_module("deno").find_deno_bin()
    except (ImportError, FileNotFoundError):
        return False
    return True


def refuse_invalid_dataset(root: Path) -> bool:
    """Validate a dataset; False if there is no validator.

    Raises
    ------
    InputError
        If the dataset is not valid, with the first faults.
    """
    validator = find_validator()
    if validator is None:
        logger.warning("%s is not validated: there is no BIDS validator (pip install bids-validator-deno)", root)
        return False
    faults = validation_errors(validator, root)
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InputError(
            f"{root} is no valid BIDS dataset ({'; '.join(faults[:_SHOWN])}{more}): repair it, or pass over this check "
            "with `skip_bids_validation`"
        )
    return True


def validation_errors(validator: list[str], root: Path) -> list[str]:
    """What the validator finds wrong, one phrase a fault; warnings do not count.

    Raises
    ------
    InputError
        If the validator does not run.
    """
    command = [*validator, str(root), "--format", "json", "--ignoreWarnings"]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "DENO_NO_UPDATE_CHECK": "1"}
    )
    try:
        issues = json.loads(ran.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError) as error:
        reason = (ran.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(
            f"the BIDS validator does not run ({reason}): repair it, or pass over this check with "
            "`skip_bids_validation`"
        ) from error
    return [_phrase(issue) for issue in issues if issue.get("severity") == "error"]


def _phrase(issue: dict[str, Any]) -> str:
    words = [str(issue.get(name)) for name in ("code", "subCode") if issue.get(name)]
    return f"{' '.join(words)} in {str(issue.get('location', '')).lstrip('/')}"
