"""The system of Dannecker et al. (MIDL 2026), as printed and as their published code has it: to compare with."""

from gsvr.solver.published.options import PublishedOptions, ScalePrior, published_code
from gsvr.solver.published.reconstruct import reconstruct_as_published

__all__ = ["PublishedOptions", "ScalePrior", "published_code", "reconstruct_as_published"]
