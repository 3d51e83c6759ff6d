"""An option whose value was forgotten: without this the next option would be taken for the value."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Any

from gsvr.errors import InputError


def check_values(parameters: Sequence[Any], arguments: Sequence[str]) -> None:
    """Refuse an option of a command that is followed by another one in place of its value.

    Raises
    ------
    InputError
        If there is one.
    """
    options = {name: parameter for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    for name, following in pairwise(takewhile(lambda argument: argument != "--", arguments)):
        takes_value = name in options and not getattr(options[name], "is_flag", False) and name.startswith("-")
        if takes_value and following.startswith("-") and following.split("=", 1)[0] in options:
            raise InputError(f"{name} takes a value, and {following.split('=', 1)[0]} follows it: give the value first")
