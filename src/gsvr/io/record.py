"""The record of a run as JSON: options, measurements, versions."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gsvr.compiled import instructions
from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path

RECORD_FORMAT = "gsvr-record"
_PACKAGES = ("gsvr", "numpy", "scipy", "nibabel")


def write_record(path: str | Path, record: Mapping[Any, Any]) -> None:
    """Write `record` as JSON, whole or not at all; equal records give equal bytes.

    NumPy scalars and arrays, paths, enumerations, dataclasses, tuples and sets become plain JSON; sets
    are sorted, every other order is kept. NaN and infinities, which JSON lacks, become null;
    bytes of names that are not UTF-8 become a backslash and their number.

    Raises
    ------
    TypeError
        If `record` holds something else.
    """
    text = json.dumps(to_plain(record), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_record(path: str | Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises
    ------
    InputError
        If the file is missing or damaged, or is no record of a run.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist or is not a file: give the record (.json) that gsvr reconstruct wrote")
    none = InputError(f"{path} is no record of a run: give the one (.json) that gsvr reconstruct wrote")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:  # a volume, say
        raise none from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON ({str(error).splitlines()[0]}): reconstruct again") from error
    if not isinstance(record, dict) or record.get("format") != RECORD_FORMAT:
        raise none
    return record


def to_plain(value: Any) -> Any:
    """Reduce a value to dicts, lists, strings, numbers, booleans and None (see `write_record`)."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        return to_plain(value.value)
    if isinstance(value, str):
        return _readable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return _readable(str(value))
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, Mapping):
        return {_key(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [to_plain(item) for item in sorted(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"a record cannot hold a {type(value).__name__}")


def _readable(text: str) -> str:
    """The text with a backslash and a number for what UTF-8 cannot hold, as in names of files of another encoding."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _key(key: Any) -> str:
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, str | int | Path) and not isinstance(key, bool):
        return _readable(str(key))
    raise TypeError(f"a record's keys are names, not {type(key).__name__}")


def versions() -> dict[str, str | int | None]:
    """Report versions of gsvr, Python and the numerical packages (None: absent), platform, CPU count and kernels."""
    found: dict[str, str | int | None] = {name: _version(name) for name in _PACKAGES}
    return found | {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "instructions": instructions(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
