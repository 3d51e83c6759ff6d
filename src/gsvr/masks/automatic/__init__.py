"""Finds the fetal brain in stacks that show a mother around it: a small network on slices, then rules in 3-D."""

from gsvr.masks.automatic.find import FindOptions, FoundMask, find_brains
from gsvr.masks.automatic.foreground import shows_more_than_a_brain

__all__ = ["FindOptions", "FoundMask", "find_brains", "shows_more_than_a_brain"]
