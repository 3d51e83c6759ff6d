"""Kernels in C (``c/``): the library they are in, and the threads they run on."""

from gsvr.compiled.library import LANES, Structure, constant, instructions, run

__all__ = ["LANES", "Structure", "constant", "instructions", "run"]
