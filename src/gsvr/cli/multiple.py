"""Options that take several values, as in ``--input-stacks A B C``."""

from __future__ import annotations

from typing import Any

from gsvr.cli.narrow import ReadableCommand


class MultipleValuesCommand(ReadableCommand):
    """A command whose repeatable options also take all their values at once.

    ``--name A B`` means ``--name A --name B``; values end at the next argument that starts with a dash.
    Numbers may be negative.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option's name before each of its values."""
        repeatable = {
            name for parameter in self.params if getattr(parameter, "multiple", False) for name in parameter.opts
        }
        expanded: list[str] = []
        current: str | None = None
        values = 0
        for argument in args:
            if argument.startswith("-") and not _is_number(argument):
                name = argument.split("=", 1)[0]
                current, values = (name if name in repeatable and "=" not in argument else None), 0
                expanded.append(argument)
                continue
            if current is not None and values > 0:
                expanded.append(current)
            expanded.append(argument)
            values += 1
        return super().parse_args(ctx, expanded)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
