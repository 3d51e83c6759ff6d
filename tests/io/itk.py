"""ITK transform files of slices, read by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS+ <-> LPS+


def read_itk_pose(path: Path) -> np.ndarray:
    """Pose (RAS+, mm) in a file that `gsvr.io.transforms.write_itk_transform` wrote."""
    header, _, kind, parameters, fixed = path.read_text(encoding="ascii").splitlines()
    assert header == "#Insight Transform File V1.0"
    assert kind == "Transform: AffineTransform_double_3_3"
    assert fixed == "FixedParameters: 0 0 0"
    numbers = np.array(parameters.removeprefix("Parameters: ").split(), np.float64)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = numbers[:9].reshape(3, 3), numbers[9:]
    return _FLIP @ matrix @ _FLIP
