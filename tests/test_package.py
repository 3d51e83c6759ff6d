"""``import gsvr``: light, complete, and with annotations that are checked while the tests run."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import gsvr
from gsvr.model.geometry import invert

HEAVY_PACKAGES = {"nibabel", "numpy", "PIL", "safetensors", "scipy", "torch"}


def run(code: str) -> list[str]:
    """Words that a fresh interpreter prints: here everything is long imported."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_loads_nothing_heavy():
    assert run(f"import sys, gsvr; print(*({HEAVY_PACKAGES!r} & set(sys.modules)))") == []


def test_every_public_name_is_there_and_documented():
    code = "import gsvr, inspect; print(*(name for name in dir(gsvr) if inspect.getdoc(getattr(gsvr, name))))"
    assert set(gsvr.__all__) <= set(run(code))
    assert run("from gsvr import *; print(callable(reconstruct), callable(read_stack))") == ["True", "True"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'reconstrct'"):
        _ = gsvr.reconstrct  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "first", ["", "import gsvr.simulation.simulate", "from gsvr.simulation.simulate import simulate"]
)
def test_modules_stay_modules_whatever_is_imported_first(first: str):
    code = (
        f"{first}\nimport gsvr.simulation.simulate as module; print(type(module).__name__, callable(module.simulate))"
    )
    assert run(code) == ["module", "True"]


@pytest.mark.parametrize("wrong", [np.zeros((4, 3)), np.eye(4).tolist()], ids=["shape", "type"])
def test_what_is_annotated_otherwise_is_refused(wrong: np.ndarray):
    with pytest.raises(TypeCheckError):
        invert(wrong)
