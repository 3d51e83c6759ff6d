"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import platform

# Options of glibc's mallopt, and sizes (bytes) for them: before 2.35 the second must not be above 32 MiB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SIZES = (2**30, 2**25)


def keep_freed_memory() -> None:
    """Let the process keep freed memory instead of giving it back to the system, where the C library is glibc.

    A reconstruction asks for and frees arrays of some megabytes hundreds of times a second. Each time they come from
    the system, its kernel has to clear them: a tenth of all CPU time. For programs of our own only: in somebody else's
    process that is not ours to decide.
    """
    if platform.libc_ver()[0] == "glibc":
        set_option = ctypes.CDLL(None).mallopt
        # setting either keeps the other from adapting itself, so without the first the second would do harm
        if any(set_option(_MMAP_THRESHOLD, size) for size in _SIZES):
            set_option(_TRIM_THRESHOLD, _SIZES[0])
