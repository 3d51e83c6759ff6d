"""Builds the kernels in C; everything else about the package is in pyproject.toml."""

import os
import platform
import zlib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError

FOLDER = "src/gsvr/compiled/c"
# Without leave to reassociate sums, which would undo what the kernels do about the order of rows; but nothing here
# asks for errno, for traps, or for the sign of zero.
OPTIONS = ["-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast",
           "-fvisibility=hidden", "-g0", "-Wall", "-Wno-psabi"]  # fmt: skip
# "address,undefined" builds libraries that stop at every read out of bounds (`make sanitize`)
SANITIZERS = os.environ.get("GSVR_SANITIZERS", "")
INSTRUMENTED = [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"] if SANITIZERS else []
IS_X86 = platform.machine().lower() in {"x86_64", "amd64"}


class BuildKernels(build_ext):
    """Libraries without an entry point for Python: they are opened with ctypes."""

    def build_extensions(self) -> None:
        """Say what is missing where there is no compiler that knows vectors."""
        needed = (
            "gsvr's kernels are written in C and need GCC or Clang (Debian: apt install gcc; "
            "macOS: xcode-select --install"
        )
        if self.compiler.compiler_type == "msvc":
            raise SystemExit(f"{needed}; on Windows install in WSL)")
        try:
            super().build_extensions()
        except (CCompilerError, ExecError) as error:
            raise SystemExit(f"{needed}): {error}") from error

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None but those that are marked in the sources."""
        return []


def checksum_of_declarations() -> int:
    """As `gsvr.compiled.library` works it out anew, to tell a library that is older than the headers."""
    headers = sorted(Path(FOLDER).glob("*_kernels.h"))
    return zlib.crc32("".join(path.read_text(encoding="utf-8") for path in headers).encode()) & 0x7FFFFFFF


def kernels(name: str, *instructions: str) -> Extension:
    """The library for processors with some instructions."""
    return Extension(
        f"gsvr.compiled.{name}",
        sources=sorted(str(path) for path in Path(FOLDER).glob("*.c")),
        depends=sorted(str(path) for path in Path(FOLDER).glob("*.h")),
        define_macros=[("GSVR_DECLARATIONS", str(checksum_of_declarations()))],
        extra_compile_args=[*OPTIONS, *instructions, *INSTRUMENTED, *(["-O1", "-g"] if SANITIZERS else [])],
        extra_link_args=INSTRUMENTED,
        libraries=["m"] if os.name == "posix" else [],
        py_limited_api=True,
    )


# x86 as of 2008 and as of 2013; `gsvr.compiled` chooses
VARIANTS = [kernels("_portable", "-msse4.2"), kernels("_avx2", "-mavx2", "-mfma")] if IS_X86 else [kernels("_portable")]

setup(
    ext_modules=VARIANTS,
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
