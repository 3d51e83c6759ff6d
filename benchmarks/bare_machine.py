"""Stand-ins for two small packages, so that a benchmark runs where only NumPy, SciPy, PyTorch and Triton are.

Rented machines with a graphics card often cannot install anything. Of what `gsvr` imports in order to reconstruct,
jaxtyping is only read by checkers of types, and threadpoolctl only keeps threads of linear algebra from spinning.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import nullcontext
from types import ModuleType
from typing import Any


class _AnyShape:
    """What annotations ask of an array type: anything in brackets."""

    def __class_getitem__(cls, item: Any) -> type:
        return cls


class _Annotations(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyShape


def stand_in() -> list[str]:
    """Put stand-ins where a package is missing; call it before importing `gsvr`. Returns their names."""
    missing = [name for name in ("jaxtyping", "threadpoolctl") if importlib.util.find_spec(name) is None]
    if "jaxtyping" in missing:
        sys.modules["jaxtyping"] = _Annotations("jaxtyping")
    if "threadpoolctl" in missing:
        module = ModuleType("threadpoolctl")
        vars(module)["threadpool_limits"] = lambda *_, **__: nullcontext()
        sys.modules["threadpoolctl"] = module
    return missing
