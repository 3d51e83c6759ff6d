"""Memory that is freed and asked for again does not come from the system anew."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from gsvr.compiled import allocator

FAULTS = """
import resource, sys
import numpy as np
from gsvr.compiled.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for size in (60, 50, 40, 30):  # so large that glibc gives them back by itself
    np.ones(size * 2**20, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(50 * 2**20, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(word: str) -> int:
    words = [sys.executable, "-c", FAULTS, word]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library here is not glibc")
def test_freed_memory_is_kept():
    assert page_faults("keep") < 0.2 * page_faults("leave")


def test_where_glibc_takes_no_more_than_32_mib_it_is_given_these(monkeypatch: pytest.MonkeyPatch):
    """It does so before 2.35; with the other option alone every larger array would come from the system."""
    options = {}

    def set_option(option: int, size: int) -> int:
        if option == -3 and size > 2**25:
            return 0
        options[option] = size
        return 1

    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.34"))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=set_option))
    allocator.keep_freed_memory()
    assert options == {-1: 2**30, -3: 2**25}
