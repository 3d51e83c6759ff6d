"""``import gsvr`` gives the public names, and costs nothing until one is used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import gsvr

HEAVY_PACKAGES = {"nibabel", "numpy", "PIL", "safetensors", "scipy", "torch"}


def run(code: str) -> str:
    """Output of a fresh interpreter: here everything is long imported."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_loads_nothing_heavy():
    assert run(f"import sys, gsvr; print(*({HEAVY_PACKAGES!r} & set(sys.modules)))") == ""


@pytest.mark.parametrize("name", gsvr.__all__)
def test_every_public_name_is_there_and_documented(name: str):
    value = getattr(gsvr, name)
    assert inspect.getdoc(value)
    assert name in dir(gsvr)


def test_from_gsvr_import_star_in_a_fresh_interpreter():
    assert run("from gsvr import *; print(callable(reconstruct), callable(read_stack))") == "True True"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'reconstrct'"):
        _ = gsvr.reconstrct  # pyright: ignore[reportAttributeAccessIssue]


def test_reconstruct_is_the_solver_and_takes_what_is_documented():
    assert gsvr.reconstruct.__module__ == "gsvr.solver.reconstruct"
    assert list(inspect.signature(gsvr.reconstruct).parameters) == ["slices", "options", "callback", "poses"]


def test_modules_stay_modules_whatever_is_imported_first():
    # gsvr.simulation.simulate must not depend on whether someone imported the module of that name before
    for first in ("", "import gsvr.simulation.simulate; ", "from gsvr.simulation.simulate import simulate; "):
        assert run(
            f"{first}import gsvr; print(type(gsvr.simulation.simulate).__name__, callable(gsvr.simulation.simulate.simulate))"
        ) == ("module True")
    assert isinstance(gsvr.evaluation, ModuleType)
