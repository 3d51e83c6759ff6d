"""A group of commands that tells the user's mistakes in one line, without a traceback."""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from contextvars import ContextVar
from typing import Any

import typer
from typer.core import TyperGroup

from gsvr.cli.narrow import ReadableContext
from gsvr.errors import InputError, InstallationError

INPUT_ERROR_EXIT_CODE = 2
# 128 + SIGINT, as a shell reports it
INTERRUPTED_EXIT_CODE = 130
# 128 + SIGTERM, what a batch system sends before it kills
TERMINATED_EXIT_CODE = 143
# Share of the closest option's likeness from which another one is suggested, too.
_AS_LIKELY = 0.9
# The command line that is running, without the name of the program.
typed: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())


class Terminated(KeyboardInterrupt):
    """The system asks the process to end; everything that cleans up after Ctrl-C cleans up now."""


def end_like_an_interruption(*_: object) -> None:
    """Handler of SIGTERM."""
    raise Terminated


# options of other names than the arguments, or the function, that they stand for
_OPTIONS = {
    "stacks": "--input-stacks",
    "masks": "--stack-masks",
    "slice_folder": "--input-slices",
    "dicom": "--input-dicom",
    "samples": "--output-uncertainty",
    "write_field": "--output-model",
}


class CommandGroup(TyperGroup):
    """Runs a command; bad input and Ctrl-C become one line on stderr and an exit code.

    `InputError` exits with 2, and speaks of options where the library speaks of arguments; an interruption exits with
    130, a termination with 143, lack of memory or a broken installation with 1. With ``--verbose`` among the command's
    arguments the traceback is shown as well. Any other exception is a defect of gsvr and is not caught.
    """

    context_class = ReadableContext

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read ``--name=~/file`` as ``--name ~/file``, in which the shell puts the home folder for the tilde."""
        typed.set(tuple(args))
        return super().parse_args(ctx, [_with_home(argument) for argument in args])

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        verbose = not {"--verbose", "-v"}.isdisjoint(ctx.args)
        try:
            return super().invoke(ctx)
        except InputError as error:
            if verbose:
                traceback.print_exception(error, file=sys.stderr)
            _tell("error: " + " ".join(self._with_options(ctx, str(error)).split()))
            raise typer.Exit(INPUT_ERROR_EXIT_CODE) from error
        except InstallationError as error:
            if verbose:
                traceback.print_exception(error, file=sys.stderr)
            _tell(f"error: {error}")
            raise typer.Exit(1) from error
        except MemoryError as error:
            if verbose:
                traceback.print_exception(error, file=sys.stderr)
            _tell("error: not enough memory: close other programs, or give fewer stacks, or masks of the brain alone")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interruption:
            terminated = isinstance(interruption, Terminated)
            _tell(f"{'terminated' if terminated else 'interrupted'}, no half-written file is left")
            raise typer.Exit(TERMINATED_EXIT_CODE if terminated else INTERRUPTED_EXIT_CODE) from interruption
        except Exception as error:
            _keep_what_is_closest(error)
            raise

    def _with_options(self, ctx: Any, sentence: str) -> str:
        """A sentence of the library with the command's options in place of arguments in backticks."""
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        options = _OPTIONS | {option.name: option.opts[0] for option in (command.params if command else ())}
        return re.sub(r"`(\w+)`", lambda match: options.get(match[1], match[0]), sentence)


def _with_home(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return name + equals + os.path.expanduser(value) if name.startswith("--") and value.startswith("~") else argument


def _keep_what_is_closest(error: Exception) -> None:
    """Of the options suggested for an unknown one leave out those that are much less like it than the first."""
    suggested, name = getattr(error, "possibilities", None), getattr(error, "option_name", None)
    if suggested and name:
        likeness = {option: difflib.SequenceMatcher(None, name, option).ratio() for option in suggested}
        error.possibilities = [  # pyright: ignore[reportAttributeAccessIssue]
            option for option in suggested if likeness[option] >= _AS_LIKELY * max(likeness.values())
        ]


def _tell(sentence: str) -> None:
    print(f"gsvr: {sentence}", file=sys.stderr)
