"""The network behind the masks: loads its weights and gives each pixel its probability of being brain."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float

from gsvr.errors import InputError

_FACTOR = 16  # the network halves the picture four times
_BATCH = 4  # slices at a time: as fast as more, and little memory


@functools.lru_cache(maxsize=2)
def session(threads: int) -> Any:
    """The network, ready to run on ``threads`` threads.

    Raises
    ------
    InputError
        If onnxruntime or the weights are missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("finding the brain needs onnxruntime: pip install onnxruntime, or give masks") from error
    weights = resources.files("gsvr.masks.automatic") / "brain.onnx"
    if not weights.is_file():
        raise InputError("the weights that find the brain are missing from this installation: install gsvr again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # threads that spin between slices would take the time of whatever else runs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(weights.read_bytes(), options, providers=["CPUExecutionProvider"])


def neighbour_step(spacing: float) -> int:
    """How many slices further the neighbour lies that the network looks at: about as far as in training."""
    return max(1, round(2.5 / spacing))


def with_neighbours(slices: Float[np.ndarray, "n rows columns"], step: int) -> Float[np.ndarray, "n 3 rows columns"]:
    """Each slice between its neighbours; at an end the slice stands for the one that is missing."""
    k = np.arange(len(slices))
    below = np.where(k - step >= 0, k - step, k)
    above = np.where(k + step < len(k), k + step, k)
    return np.stack([slices[below], slices, slices[above]], axis=1)


def probabilities(
    triples: Float[np.ndarray, "n 3 rows columns"], threads: int, views: tuple[str, ...] = ("as is",)
) -> Float[np.ndarray, "n rows columns"]:
    """Probability of brain in the middle slice of each triple, the mean over ``views`` of it.

    ``views`` are of ``as is``, ``rows`` and ``columns`` (mirrored), ``both`` (mirrored) and ``turned``.
    """
    n, _, rows, columns = triples.shape
    total = np.zeros((n, rows, columns), np.float32)
    padded = np.pad(triples, ((0, 0), (0, 0), (0, -rows % _FACTOR), (0, -columns % _FACTOR)))
    for view in views:
        seen = _viewed(padded, view)
        parts = [
            session(threads).run(["probability"], {"slices": np.ascontiguousarray(seen[k : k + _BATCH])})[0][:, 0]
            for k in range(0, n, _BATCH)
        ]
        total += _viewed_back(np.concatenate(parts), view)[:, :rows, :columns]
    return total / len(views)


def _viewed(images: np.ndarray, view: str) -> np.ndarray:
    match view:
        case "rows":
            return images[..., ::-1, :]
        case "columns":
            return images[..., :, ::-1]
        case "both":
            return images[..., ::-1, ::-1]
        case "turned":
            return np.swapaxes(images, -1, -2)
    return images


def _viewed_back(images: np.ndarray, view: str) -> np.ndarray:
    # each of the views is its own inverse
    return _viewed(images, view)
