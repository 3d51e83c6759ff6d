"""Errors that somebody can put right, told in one sentence."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: the message says which file or argument, what is wrong and what to do; exit code 2.

    Arguments stand in backticks, as in ``give two or more `stacks` ``: the command line puts its options there.
    """


class InstallationError(ImportError):
    """gsvr is not installed as it should be: the message says what is wrong and what to do; exit code 1."""
