"""Slice-to-volume reconstruction of motion-corrupted MRI with 3-D Gaussian primitives.

The names below are the public interface; each is loaded when it is first used, so that ``import gsvr`` is fast.
From files to a volume::

    stacks = gsvr.read_stacks(gsvr.StackInputs(["a.nii.gz", "b.nii.gz"], thicknesses=3.0))
    options = gsvr.fitting_options(stacks, gsvr.SolverOptions())
    slices = gsvr.prepare_slices(stacks, options)
    result = gsvr.reconstruct(slices, options)
    volume = gsvr.render_volume(result.field, 0.8, result.mask)

From arrays: `slices_from_arrays` in place of the first three lines. ``gsvr.pipeline``, ``gsvr.evaluation`` and
``gsvr.simulation`` are modules, such as ``gsvr.simulation.simulate.simulate(gsvr.brain_phantom())``. What needs PyTorch
is imported from its place: ``from gsvr.operators.autograd import acquire``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsvr import evaluation, simulation
    from gsvr.errors import InputError
    from gsvr.evaluation.verdict import Verdict, judge
    from gsvr.io.checkpoint import read_checkpoint, write_checkpoint
    from gsvr.io.field import read_field, write_field
    from gsvr.io.nifti import read_stack, read_volume, write_volume
    from gsvr.io.transforms import read_poses_json, write_poses_json
    from gsvr.model.fields import GaussianField, Lattice, LatticeField, SumField
    from gsvr.model.slices import Slices, Stack, slices_from_arrays, slices_from_stacks
    from gsvr.model.volume import Volume
    from gsvr.operators.acquisition import moved_poses
    from gsvr.operators.gaussians import GaussianOperator
    from gsvr.operators.lattice import LatticeOperator
    from gsvr.render.plane import plane_frame, render_plane
    from gsvr.render.points import values_and_gradients_at, values_at
    from gsvr.render.volume import render_volume
    from gsvr.simulation.phantom import brain_phantom
    from gsvr.solver.published import PublishedOptions, published_code, reconstruct_as_published
    from gsvr.solver.reconstruct import Progress, reconstruct
    from gsvr.solver.schedule import SolverOptions, Stage, default_stages
    from gsvr.solver.state import Result, State, StopReconstruction
    from gsvr.workflows import pipeline
    from gsvr.workflows.inputs import StackInputs, read_stacks
    from gsvr.workflows.pipeline import fitting_options, prepare_slices
    from gsvr.workflows.results import write_result

__version__ = "0.2.0"

__all__ = [
    "GaussianField",
    "GaussianOperator",
    "InputError",
    "Lattice",
    "LatticeField",
    "LatticeOperator",
    "Progress",
    "PublishedOptions",
    "Result",
    "Slices",
    "SolverOptions",
    "Stack",
    "StackInputs",
    "Stage",
    "State",
    "StopReconstruction",
    "SumField",
    "Verdict",
    "Volume",
    "brain_phantom",
    "default_stages",
    "evaluation",
    "fitting_options",
    "judge",
    "moved_poses",
    "pipeline",
    "plane_frame",
    "prepare_slices",
    "published_code",
    "read_checkpoint",
    "read_field",
    "read_poses_json",
    "read_stack",
    "read_stacks",
    "read_volume",
    "reconstruct",
    "reconstruct_as_published",
    "render_plane",
    "render_volume",
    "simulation",
    "slices_from_arrays",
    "slices_from_stacks",
    "values_and_gradients_at",
    "values_at",
    "write_checkpoint",
    "write_field",
    "write_poses_json",
    "write_result",
    "write_volume",
]

# module -> the public names that it holds
_HOMES = {
    "gsvr.model.slices": ("Slices", "Stack", "slices_from_arrays", "slices_from_stacks"),
    "gsvr.errors": ("InputError",),
    "gsvr.evaluation.verdict": ("Verdict", "judge"),
    "gsvr.model.fields": ("GaussianField", "Lattice", "LatticeField", "SumField"),
    "gsvr.io.checkpoint": ("read_checkpoint", "write_checkpoint"),
    "gsvr.io.field": ("read_field", "write_field"),
    "gsvr.io.nifti": ("read_stack", "read_volume", "write_volume"),
    "gsvr.io.transforms": ("read_poses_json", "write_poses_json"),
    "gsvr.simulation.phantom": ("brain_phantom",),
    "gsvr.workflows.inputs": ("StackInputs", "read_stacks"),
    "gsvr.workflows.pipeline": ("fitting_options", "prepare_slices"),
    "gsvr.operators.acquisition": ("moved_poses",),
    "gsvr.operators.gaussians": ("GaussianOperator",),
    "gsvr.operators.lattice": ("LatticeOperator",),
    "gsvr.render.plane": ("plane_frame", "render_plane"),
    "gsvr.solver.published": ("PublishedOptions", "published_code", "reconstruct_as_published"),
    "gsvr.solver.reconstruct": ("Progress", "reconstruct"),
    "gsvr.solver.schedule": ("SolverOptions", "Stage", "default_stages"),
    "gsvr.solver.state": ("Result", "State", "StopReconstruction"),
    "gsvr.workflows.results": ("write_result",),
    "gsvr.render.points": ("values_and_gradients_at", "values_at"),
    "gsvr.render.volume": ("render_volume",),
    "gsvr.model.volume": ("Volume",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = {
    "evaluation": "gsvr.evaluation",
    "pipeline": "gsvr.workflows.pipeline",
    "simulation": "gsvr.simulation",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gsvr' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
