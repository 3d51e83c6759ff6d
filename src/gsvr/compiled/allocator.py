"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import platform

# Options of glibc's mallopt, and the size (bytes) they are set to.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SIZE = 2**30


def keep_freed_memory() -> None:
    """Let the process keep freed memory instead of giving it back to the system, where the C library is glibc.

    A reconstruction asks for and frees arrays of some megabytes hundreds of times a second. Each time they come from
    the system, its kernel has to clear them: a tenth of all CPU time. For programs of our own only: in somebody else's
    process that is not ours to decide.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            library.mallopt(option, _SIZE)
