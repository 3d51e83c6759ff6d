"""A stack that was received slice by slice, as a NIfTI file with its sidecar."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gsvr.io.atomic import atomic_path
from gsvr.io.nifti import write_volume
from gsvr.io.sidecar import sidecar_path
from gsvr.model.slices import Stack


def write_received_stack(path: Path, stack: Stack, times: Float[np.ndarray, " n"] | None) -> None:
    """Write the sidecar, then the stack.

    Parameters
    ----------
    times
        When each slice was acquired (s); None: not known.
    """
    content: dict[str, object] = {"SliceThickness": stack.thickness}
    if times is not None and len(times) == stack.n_slices:
        content["SliceTiming"] = [float(time) for time in times]
    with atomic_path(sidecar_path(path)) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
    write_volume(path, stack.data, stack.affine)
