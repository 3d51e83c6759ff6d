"""Checks array annotations at run time, shares out the cores, and finds the shared data."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

REPOSITORY = Path(__file__).resolve().parents[1]


def _checkable_modules() -> list[str]:
    """Modules of gsvr whose annotations the tests check when a function is called.

    The hook wraps every function, and Triton cannot compile a wrapper: a module that compiles functions is left out,
    and so is the ``__init__`` of its package, because hooking a package hooks everything in it. So is
    ``gsvr.compiled``, which checks what reaches the kernels itself, at every call.
    """
    specification = importlib.util.find_spec("gsvr")
    assert specification is not None
    assert specification.submodule_search_locations
    root = Path(next(iter(specification.submodule_search_locations)))
    unchecked, names = {"gsvr.compiled"}, []
    for path in sorted(root.rglob("*.py")):
        parts = ("gsvr", *path.relative_to(root).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        names.append(name)
        if re.search(r"^\s*(from|import) triton\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            unchecked.add(name)
    return [
        name
        for name in names
        if not any((c + ".").startswith(name + ".") for c in unchecked) and not name.startswith("gsvr.compiled.")
    ]


# Workers of pytest-xdist share the cores among them: threads of one would only wait for those of another. Set before
# NumPy is imported, whose BLAS reads it then.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    for _name in ("GSVR_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, str(_threads))

# Triton decides when it is imported whether its kernels run in its interpreter: without a card they do
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")

install_import_hook(_checkable_modules(), "beartype.beartype")

# the machine that runs the tests may be busy: a slow example is no failure
settings.register_profile("gsvr", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("gsvr")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the data that tests use but the project does not ship; skips the test where it is absent."""
    folder = Path(os.environ.get("GSVR_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set GSVR_DATA to the folder)")
    return folder
