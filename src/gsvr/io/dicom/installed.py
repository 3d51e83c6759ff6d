"""The packages of the extra ``gsvr[dicom]``."""

from __future__ import annotations

import importlib.util

from gsvr.errors import InstallationError


def is_installed(package: str) -> bool:
    """Whether an optional package is there."""
    return importlib.util.find_spec(package) is not None


def require(package: str, extra: str = "dicom") -> None:
    """Refuse to go on without an optional package.

    Raises
    ------
    InstallationError
        Naming the extra that brings it.
    """
    if not is_installed(package):
        raise InstallationError(f"{package} is not installed: pip install 'gsvr[{extra}]'")
