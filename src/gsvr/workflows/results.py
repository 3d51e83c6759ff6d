"""A result that is in memory, written as the command writes it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from gsvr.evaluation.verdict import judge
from gsvr.io.outputs import sole_writer
from gsvr.masks.first import StackMasks
from gsvr.model.copies import copies
from gsvr.model.slices import Stack
from gsvr.render import VOXEL_SIZE
from gsvr.solver.published import PublishedOptions
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.state import Result
from gsvr.workflows.orientation import Orientation, turned_result
from gsvr.workflows.outputs import OutputPaths, write_outputs
from gsvr.workflows.pipeline import Job, Reconstruction, rendered_volume


def write_result(
    volume: str | PathLike[str],
    result: Result,
    options: SolverOptions | PublishedOptions | None = None,
    stacks: Sequence[Stack] = (),
    output_resolution: float = VOXEL_SIZE,
    orientation: Orientation | None = None,
    **others: str | PathLike[str],
) -> Reconstruction:
    """Write all that ``gsvr reconstruct`` writes: volume, mask, poses, transforms, field, picture and record.

    Parameters
    ----------
    volume
        NIfTI file; the others are named after it. Those of an earlier run are replaced.
    options
        That the result was made with; None: the defaults.
    stacks
        That the slices were cut from. Without them a report has nothing to show of how they were before, and copies of
        a stack are not told.
    output_resolution
        Voxel size (mm).
    orientation
        The world of the volume; None: the scanner's.
    others
        Further outputs, or other names for them: the attributes of `gsvr.workflows.outputs.OutputPaths`, such as
        ``report="brain.html"``; those of whole stacks (``stack_masks``) need a job, see `gsvr.workflows.pipeline`.

    Returns
    -------
    Reconstruction
        With the volume and the verdict.

    Raises
    ------
    InputError
        If something cannot be written, or the result is no image.
    TypeError
        If there is no output of such a name.
    """
    orientation = orientation or Orientation()
    paths = OutputPaths.beside(
        *(Path(volume), orientation.space), **{name: Path(path) for name, path in others.items()}
    )
    if paths.stack_masks is not None:
        raise TypeError("the masks of stacks are not part of a result: use gsvr.pipeline")
    paths.check()
    options, given = options or SolverOptions(), list(stacks)
    inside = [stack.data > 0 if stack.mask is None else stack.mask for stack in given]
    drawn = [stack.mask is not None for stack in given]
    masks = StackMasks(inside, [], drawn, [False] * len(given))
    job = Job(given, masks, result.slices, options, {}, copies(given), orientation=orientation)
    verdict = judge(result, job.copies)
    result, turn = turned_result(result, orientation, options.backend)
    image = rendered_volume(result, output_resolution, options)
    reconstruction = Reconstruction(job, result, image, verdict, {}, turn=turn)
    with sole_writer(paths.volume):
        write_outputs(reconstruction, paths, {"output_resolution": output_resolution})
    return reconstruction
