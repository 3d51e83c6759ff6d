"""Errors that are the input's fault, told in one sentence."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: the message says which file or argument, what is wrong and what to do; exit code 2.

    Arguments stand in backticks, as in ``give two or more `stacks` ``: the command line puts its options there.
    """
