"""A group of commands that tells the user's mistakes in one line, without a traceback."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from gsvr.errors import InputError

INPUT_ERROR_EXIT_CODE = 2
# 128 + SIGINT, as a shell reports it
INTERRUPTED_EXIT_CODE = 130


class CommandGroup(TyperGroup):
    """Runs a command; bad input and Ctrl-C become one line on stderr and an exit code.

    `InputError` exits with 2, an interruption with 130, lack of memory with 1. With ``--verbose`` among the command's
    arguments the traceback is shown as well. Any other exception is a defect of gsvr and is not caught.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        verbose = not {"--verbose", "-v"}.isdisjoint(ctx.args)
        try:
            return super().invoke(ctx)
        except InputError as error:
            if verbose:
                traceback.print_exception(error, file=sys.stderr)
            _tell("error: " + " ".join(str(error).split()))
            raise typer.Exit(INPUT_ERROR_EXIT_CODE) from error
        except MemoryError as error:
            if verbose:
                traceback.print_exception(error, file=sys.stderr)
            _tell("error: not enough memory: close other programs, or give fewer stacks, or masks of the brain alone")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interruption:
            _tell("interrupted, no half-written file is left")
            raise typer.Exit(INTERRUPTED_EXIT_CODE) from interruption


def _tell(sentence: str) -> None:
    print(f"gsvr: {sentence}", file=sys.stderr)
