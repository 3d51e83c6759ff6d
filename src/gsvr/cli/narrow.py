"""Help that can be read on a narrow terminal: what an option is for stands below its name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from gsvr.cli.forgotten_value import check_values

# Columns; tables of options cut off their names in less.
COLUMNS = shutil.get_terminal_size().columns
IS_NARROW = COLUMNS < 70

_Context = TyperCommand.context_class


class _Formatter(_Context.formatter_class):
    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names, and what they mean beside or below them."""
        super().write_dl(rows, 4 if IS_NARROW else col_max, col_spacing)


class ReadableContext(_Context):
    """The context of a command that asks for help."""

    formatter_class = _Formatter


class ReadableCommand(TyperCommand):
    """A command with such help, which tells of an option without its value."""

    context_class = ReadableContext

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        check_values(self.params, args)
        return super().parse_args(ctx, args)
