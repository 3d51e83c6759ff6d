"""Array annotations are checked while the tests run."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from gsvr.model.geometry import invert


def test_a_wrong_shape_is_refused():
    with pytest.raises(TypeCheckError):
        invert(np.zeros((4, 3)))


def test_a_wrong_type_is_refused():
    with pytest.raises(TypeCheckError):
        invert(np.eye(4).tolist())  # pyright: ignore[reportArgumentType]
