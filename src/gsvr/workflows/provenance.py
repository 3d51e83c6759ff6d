"""What a run was made of, so that it can be told from others and repeated: files, options, version, warnings.

Names of files are kept and folders are not: these often carry the name of a patient or of a user.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gsvr import __version__
from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.io.dicom.folder import files_in
from gsvr.io.image import check_is_file
from gsvr.io.record import to_plain
from gsvr.io.sidecar import sidecar_paths
from gsvr.io.slice_folder import files_of_slices
from gsvr.workflows.inputs import StackInputs
from gsvr.workflows.orientation import Orientation

Role = Literal["stack", "mask", "sidecar", "slice", "poses", "dicom", "template"]


@dataclass(frozen=True)
class InputFile:
    """A file that a run reads.

    Attributes
    ----------
    role
        What it is read as.
    name
        Without its folder.
    sha256
        Of its content, in hexadecimal digits.
    """

    role: Role
    name: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """Where a job comes from.

    Attributes
    ----------
    inputs, options
        What was asked for; None if it came from memory.
    files
        What was read; empty if it came from memory.
    warnings
        Given until now, without folders.
    started
        When (UTC).
    clock
        The same on the clock that measures wall time (s), see `seconds`.
    orientation
        The world of the volume.
    """

    inputs: StackInputs | None = None
    options: Any = None
    files: Sequence[InputFile] = ()
    warnings: Sequence[str] = ()
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.perf_counter)
    orientation: Orientation = Orientation()

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.perf_counter() - self.clock

    def run_hash(self, output_resolution: float) -> str | None:
        """See `run_hash`; None if the input came from memory."""
        if self.inputs is None:
            return None
        return run_hash(self.inputs, self.options, output_resolution, self.files, self.orientation)


def hashed_files(inputs: StackInputs, template: Path | None = None) -> list[InputFile]:
    """All files, each with the hash of its content: stacks, masks, sidecars, or slices; poses and the template.

    DICOM files, whose names may be the patient's, count as one, whatever they are called and in whichever folder.

    Raises
    ------
    InputError
        If one of them cannot be read.
    """
    sidecars = dict.fromkeys(path for stack in inputs.stacks for path in sidecar_paths(stack))
    masks = [mask for mask in inputs.masks if mask is not None]
    roles: dict[Role, list[Path]] = {"stack": inputs.stacks, "mask": masks, "sidecar": list(sidecars)}
    if inputs.slice_folder is not None:
        roles["slice"] = files_of_slices(inputs.slice_folder)
    if inputs.poses is not None:
        roles["poses"] = [inputs.poses]
    if template is not None:
        roles["template"] = [template]
    given: list[tuple[Role, Path]] = [(role, path) for role, paths in roles.items() for path in paths]
    files = parallel_map(lambda entry: InputFile(entry[0], entry[1].name, file_hash(entry[1])), given)
    if not inputs.dicom:
        return files
    hashes = sorted(parallel_map(file_hash, [path for folder in inputs.dicom for path in files_in(folder)]))
    series = "".join(f", series {number}" for number in inputs.dicom_series)
    together = hashlib.sha256("".join(hashes).encode()).hexdigest()
    return [InputFile("dicom", f"{len(hashes)} files{series}", together), *files]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    check_is_file(path)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions") from error


def run_hash(
    inputs: StackInputs,
    options: Any,
    output_resolution: float,
    files: Sequence[InputFile] | None = None,
    orientation: Orientation = Orientation(),
) -> str:
    """One number for input, options and version: where two runs have the same, the second one changes nothing.

    Folders do not count, names of files do: the outputs carry them.

    Parameters
    ----------
    options
        Those that are given to `gsvr.workflows.pipeline.prepare`.
    output_resolution
        Voxel size (mm).
    files
        Of the inputs, where they were hashed before (`hashed_files`).
    orientation
        The world of the volume.

    Returns
    -------
    str
        SHA-256, in hexadecimal digits.
    """
    content = {
        "version": __version__,
        "files": hashed_files(inputs, orientation.template) if files is None else files,
        **({"masked": [mask is not None for mask in inputs.masks]} if None in inputs.masks else {}),
        "thicknesses": inputs.thicknesses,
        "slice_order": inputs.slice_order,
        "options": options,
        **({} if orientation.space == "scanner" else {"orientation": orientation.space}),
        "output_resolution": float(output_resolution),
    }
    text = json.dumps(to_plain(content), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Listener(logging.Handler):
    """Keeps the text of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        recorded = getattr(record, "recorded", None)
        if recorded is not None:  # what is shown names a file that may be called like the patient
            self.texts.append(recorded)
            return
        arguments = record.args
        if isinstance(arguments, tuple):
            arguments = tuple(without_folders(argument) for argument in arguments)
        self.texts.append(str(record.msg) % arguments if arguments else str(record.msg))


@contextmanager
def heard_warnings() -> Iterator[list[str]]:
    """Warnings of the package while this lasts, without folders; shown as they otherwise are.

    Where a process reconstructs several acquisitions at once, in threads, each hears the warnings of all.

    Yields
    ------
    list
        That grows.
    """
    listener, logger = _Listener(), logging.getLogger("gsvr")
    logger.addHandler(listener)
    try:
        yield listener.texts
    finally:
        logger.removeHandler(listener)


def without_folders(value: Any) -> Any:
    """Paths in a value, however deep, are reduced to the names of their files."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    return value


def command_line(arguments: Sequence[str], private: str | None = None) -> str:
    """A command as it was typed, but without folders; arguments with spaces are in quotes.

    Parameters
    ----------
    private
        An option whose values are not told.
    """
    arguments = [*_without_values(arguments, private)] if private else arguments
    named = [re.sub(r"^((--[\w-]+=)?).*/(?=.)", r"\1", argument.rstrip("/")) for argument in arguments]
    return " ".join(f'"{argument}"' if re.search(r"\s", argument) else argument for argument in named)


def _without_values(arguments: Sequence[str], private: str) -> Iterator[str]:
    hidden = False
    for argument in arguments:
        if argument.startswith(f"{private}="):
            yield f"{private}=..."
        elif argument == private:
            hidden = True
            yield from (private, "...")
        elif argument.startswith("-"):
            hidden = False
            yield argument
        elif not hidden:
            yield argument
