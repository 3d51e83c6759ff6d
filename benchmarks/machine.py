"""On what a measurement was made: without that, numbers cannot be compared."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gsvr.compiled.threads import thread_count
from gsvr.io.record import versions

REPOSITORY = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, Any]:
    """Date, version, commit and hardware, to be kept beside every result."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": thread_count(),
        "versions": versions(),
    }


def _processor() -> str:
    """Name of the processor; virtual machines may hide the model, so the family is added."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    name = found.get("model name", platform.machine())
    return f"{name} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def _commit() -> str:
    """Short name of the commit, and whether the package's files differ from it."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "src")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name} with changes" if changed else name


def _git(*words: str) -> str:
    finished = subprocess.run(["git", *words], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return finished.stdout.strip()
