"""The kernels written in C: finding the library, and calling its functions on all threads.

The declarations in ``c/*_kernels.h`` are read here, too, so that the type of every argument is stated in one place.
Arrays are handed over as they are: one of another type or length, or one that is not contiguous, is an error, not a
copy.
"""

from __future__ import annotations

import ctypes
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from gsvr.compiled.lengths import Length, check_lengths, lengths_in
from gsvr.compiled.threads import on_all_threads
from gsvr.errors import InputError, InstallationError

# Vectors of this many float32 are what kernels work on (`lanes.h`): arrays that they read in whole vectors need room.
LANES = 8

_FOLDER = Path(__file__).resolve().parent
_HOW_TO_BUILD = (
    "install the package (pip install .), or build them where they are (python setup.py build_ext --inplace); both "
    "need a C compiler (GCC or Clang)"
)
_NUMBERS: dict[str, Any] = {"int64_t": ctypes.c_int64, "double": ctypes.c_double, "float": ctypes.c_float}
_ELEMENTS = {
    "int64_t": (np.int64,),
    "int32_t": (np.int32,),
    "int16_t": (np.int16,),
    "uint8_t": (np.uint8, np.bool_),
    "double": (np.float64,),
    "float": (np.float32,),
}
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_STRUCTURE = re.compile(r"typedef struct \{(.*?)\} (\w+);", re.DOTALL)
_CONSTANTS = re.compile(r"enum \{(.*?)\};", re.DOTALL)
# with the comment behind it, which tells the length of the last argument
_FUNCTION = re.compile(r"^KERNEL (\w+)\(((?:/\*.*?\*/|[^)])*\);[ \t]*(?:/\*.*?\*/)?)", re.DOTALL | re.MULTILINE)
_DECLARATION = re.compile(r"(const )?(OPTIONAL )?(\w+) (\*?)(\w+)")


class _Parameter:
    """One argument or field: a number, an array, or a structure."""

    def __init__(self, declaration: str) -> None:
        match = _DECLARATION.fullmatch(declaration.strip())
        if match is None:
            raise ImportError(f"kernels: cannot read the declaration {declaration!r}")
        constant, optional, self.kind, star, self.name = match.groups()
        self.is_optional = bool(optional)
        self.is_pointer, self.is_written = bool(star), not constant
        self.c_type: Any = ctypes.c_void_p if star else _NUMBERS[self.kind]

    def converted(self, value: Any, owner: str) -> Any:
        """What ctypes takes for a value; None is an optional array that is absent."""
        if isinstance(value, Structure):
            if value.kind != self.kind:
                raise TypeError(f"{owner}: {self.name} is a {value.kind}, not a {self.kind}")
            return value.address
        if not self.is_pointer:
            return value
        if value is None and self.is_optional:
            return None
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{owner}: {self.name} must be an array, not {value!r}")
        if value.dtype not in _ELEMENTS.get(self.kind, ()):
            raise TypeError(f"{owner}: {self.name} has elements {value.dtype}, not {self.kind}")
        if not value.flags.c_contiguous or (self.is_written and not value.flags.writeable):
            raise TypeError(f"{owner}: {self.name} is not contiguous, or may not be written to")
        return value.__array_interface__["data"][0]


class Structure:
    """A structure of ``c/*_kernels.h``; keeps alive the arrays it points to.

    Parameters
    ----------
    kind
        Its name in the header.
    fields
        A value for every one of its fields.
    """

    def __init__(self, kind: str, **fields: Any) -> None:
        layout, parameters, lengths = _library().structures[kind]
        if fields.keys() != {parameter.name for parameter in parameters}:
            raise TypeError(f"{kind} has the fields {', '.join(parameter.name for parameter in parameters)}")
        self.kind = kind
        self._fields = fields
        self.numbers = _numbers(fields)
        check_lengths(kind, lengths, fields, _library().constants | self.numbers)
        self._data = layout(*(parameter.converted(fields[parameter.name], kind) for parameter in parameters))
        self.address = ctypes.addressof(self._data)


def _numbers(values: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in values.items() if isinstance(value, int | np.integer)}


class _Tasks(ctypes.Structure):
    """What threads share: the next task, and how many there are."""

    _fields_ = (("next", ctypes.c_int64), ("count", ctypes.c_int64))


class _Library:
    """Functions, structures and constants of ``c/*_kernels.h``, as the machine's variant of the library has them."""

    def __init__(self) -> None:
        headers = sorted((_FOLDER / "c").glob("*_kernels.h"))
        commented = "".join(path.read_text(encoding="utf-8") for path in headers)
        header = _COMMENT.sub("", commented)
        self.constants = {
            name: int(value)
            for body in _CONSTANTS.findall(header)
            for name, value in (constant.split("=") for constant in "".join(body.split()).split(","))
        }
        self.path = _path_of_library()
        functions = _opened(self.path)
        _check_declarations(functions, commented)
        self.structures: dict[str, tuple[type[ctypes.Structure], list[_Parameter], dict[str, Length]]] = {}
        for body, name in _STRUCTURE.findall(commented):
            parameters = [_Parameter(field) for field in _COMMENT.sub("", body).split(";") if field.strip()]
            fields = [(parameter.name, parameter.c_type) for parameter in parameters]
            layout = type(name, (ctypes.Structure,), {"_fields_": fields})
            self.structures[name] = layout, parameters, lengths_in(body)
        self.functions: dict[str, tuple[Any, list[_Parameter], dict[str, Length]]] = {}
        for name, body in _FUNCTION.findall(commented):
            parameters = [_Parameter(argument) for argument in _COMMENT.sub("", body).strip(" \t);").split(",")]
            function = getattr(functions, name)
            function.argtypes = [parameter.c_type for parameter in parameters]
            self.functions[name] = function, parameters, lengths_in(body)


@cache
def _library() -> _Library:
    return _Library()


def _path_of_library() -> Path:
    """The variant for this processor; ``GSVR_INSTRUCTIONS=portable`` asks for the one that runs on all of them."""
    asked = os.environ.get("GSVR_INSTRUCTIONS", "")
    if asked not in ("", "portable"):
        raise InputError(f"GSVR_INSTRUCTIONS is {asked!r}: set it to portable, or leave it unset")
    portable = _built("_portable")
    fast = not asked and _opened(portable).has_avx2()
    return _built("_avx2") if fast else portable


def _built(name: str) -> Path:
    found = sorted(path for path in _FOLDER.glob(f"{name}.*") if path.suffix in (".so", ".pyd", ".dylib"))
    if not found:
        raise InstallationError(f"gsvr's compiled kernels are missing in {_FOLDER}: {_HOW_TO_BUILD}")
    return found[0]


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise InstallationError(f"gsvr's compiled kernels cannot be loaded ({error}): {_HOW_TO_BUILD}") from error


def _check_declarations(library: ctypes.CDLL, declarations: str) -> None:
    """Arguments laid out by other declarations than the library's would be read as what they are not."""
    try:
        compiled_with = library.checksum_of_declarations()
    except AttributeError:  # from before there were checksums
        compiled_with = None
    if compiled_with != zlib.crc32(declarations.encode()) & 0x7FFFFFFF:
        raise InstallationError(f"gsvr's compiled kernels are not those of its source code: {_HOW_TO_BUILD}")


def instructions() -> str:
    """Which variant of the kernels runs here: ``avx2`` or ``portable``."""
    return _library().path.name.split(".")[0].removeprefix("_")


def constant(name: str) -> int:
    """A constant of ``c/*_kernels.h``."""
    return _library().constants[name]


def run(name: str, n_tasks: int, *arguments: Any) -> None:
    """Run a kernel on all threads, which share `n_tasks` tasks.

    Parameters
    ----------
    name
        A function of ``c/*_kernels.h`` whose first argument are tasks.
    arguments
        The other arguments: numbers, arrays, structures.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or an array too short.
    MemoryError
        If a thread got no scratch memory; what the kernel has written is not to be used then.
    """
    function, parameters, lengths = _library().functions[name]
    if len(arguments) != len(parameters) - 1:
        raise TypeError(f"{name} takes {len(parameters) - 1} arguments after the tasks, not {len(arguments)}")
    values: Sequence[Any] = [
        parameter.converted(value, name) for parameter, value in zip(parameters[1:], arguments, strict=True)
    ]
    given = {parameter.name: value for parameter, value in zip(parameters[1:], arguments, strict=True)}
    check_lengths(name, lengths, given, _numbers_of_structures(arguments) | _library().constants | _numbers(given))
    work = partial(_share_of_a_thread, function, _Tasks(0, n_tasks), values, arguments)
    if any(on_all_threads(work, n_tasks)):
        raise MemoryError(f"not enough memory for the work space of {name}")


def _share_of_a_thread(function: Any, tasks: _Tasks, values: Sequence[Any], _kept: object) -> int:
    """The arrays stay until the last thread is done, also where a second Ctrl-C ends the wait for it."""
    return function(ctypes.addressof(tasks), *values)


def _numbers_of_structures(arguments: Sequence[Any]) -> dict[str, int]:
    """Numbers in the structures among the arguments, but for names with several meanings."""
    found: dict[str, set[int]] = {}
    for structure in arguments:
        if isinstance(structure, Structure):
            for name, number in structure.numbers.items():
                found.setdefault(name, set()).add(number)
    return {name: numbers.pop() for name, numbers in found.items() if len(numbers) == 1}
