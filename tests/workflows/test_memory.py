"""How much memory there is, and how much a reconstruction takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsvr.io.nifti import write_volume
from gsvr.workflows.memory import available_memory, estimated_memory, left_of_groups


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "a.nii.gz"
    write_volume(path, np.ones((40, 30, 20), np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))
    return path


def mask(folder: Path, n_slices: int) -> Path:
    path = folder / f"mask-{n_slices}.nii.gz"
    inside = np.zeros((40, 30, 20), bool)
    inside[:, :, :n_slices] = True
    write_volume(path, inside, np.diag([1.0, 1.0, 3.0, 1.0]))
    return path


def test_pixels_inside_the_masks_count(stack: Path, tmp_path: Path):
    small, n_small = estimated_memory([stack], [mask(tmp_path, 2)])
    large, n_large = estimated_memory([stack], [mask(tmp_path, 10)])
    assert (n_small, n_large) == (2 * 1200, 10 * 1200)
    assert large > small > 100e6


def test_without_a_mask_half_of_a_small_stack_may_be_brain(stack: Path, tmp_path: Path):
    assert estimated_memory([stack], [None])[1] == 12000
    large = tmp_path / "large.nii.gz"
    write_volume(large, np.ones((400, 400, 30), np.uint8), np.diag([1.0, 1.0, 3.0, 1.0]))
    assert estimated_memory([large], [None])[1] == pytest.approx(200_000, abs=1)  # 600 ml


def test_files_that_cannot_be_read_are_left_to_their_reconstruction(stack: Path, tmp_path: Path):
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"no image")
    assert estimated_memory([damaged, stack], [damaged, damaged])[1] == 0


def test_the_least_that_a_group_leaves_counts(tmp_path: Path):
    group = tmp_path / "fs" / "outer" / "inner"
    group.mkdir(parents=True)
    (tmp_path / "own").write_text("4:memory:/other\n0::/outer/inner\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5\n")
    (group.parent / "memory.max").write_text("1000\n")
    (group.parent / "memory.current").write_text("300\n")
    assert left_of_groups(tmp_path / "own", tmp_path / "fs") == [700]
    (group / "memory.max").write_text("4\n")
    assert left_of_groups(tmp_path / "own", tmp_path / "fs") == [0, 700]
    assert left_of_groups(tmp_path / "none", tmp_path / "fs") == []


def test_this_machine_has_memory():
    assert available_memory() > 10**8
