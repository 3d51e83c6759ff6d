"""Names of the outputs, and what is refused before any work is done."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from gsvr.errors import InputError
from gsvr.io.nifti import check_volume_path
from gsvr.workflows.outputs import OutputPaths


def test_names_follow_that_of_the_volume(tmp_path: Path):
    for name in ("sub-01_T2w.nii.gz", "sub-01_T2w.nii"):
        paths = OutputPaths.beside(tmp_path / name)
        assert paths.volume == tmp_path / name
        assert paths.mask == tmp_path / "sub-01_T2w_mask.nii.gz"
        assert paths.record == tmp_path / "sub-01_T2w.json"
        assert paths.slices is None
        given = [getattr(paths, field.name) for field in fields(paths)]
        assert len({path for path in given if isinstance(path, Path)}) == 7


def test_given_names_win(tmp_path: Path):
    paths = OutputPaths.beside(tmp_path / "v.nii.gz", mask=tmp_path / "m.nii", slices=tmp_path / "s", poses=None)
    assert paths.mask == tmp_path / "m.nii"
    assert paths.slices == tmp_path / "s"
    assert paths.poses == tmp_path / "v_poses.json"


def test_check_leaves_no_trace(tmp_path: Path):
    OutputPaths.beside(tmp_path / "new" / "v.nii.gz").check()
    assert list(tmp_path.iterdir()) == []


def test_check_knows_a_file_under_every_name(tmp_path: Path):
    stack = tmp_path / "s.nii.gz"
    stack.write_text("")
    detour = tmp_path / "a" / ".." / "s.nii.gz"
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="overwrite the input"):
        OutputPaths.beside(detour).check([stack])
    (tmp_path / "link.nii.gz").symlink_to(stack)
    with pytest.raises(InputError, match="overwrite the input"):
        OutputPaths.beside(tmp_path / "link.nii.gz").check([stack])
    OutputPaths.beside(tmp_path / "s_new.nii.gz").check([stack])


def test_two_folders_of_one_name_are_refused(tmp_path: Path):
    paths = replace(OutputPaths.beside(tmp_path / "v.nii.gz"), slices=tmp_path / "s", simulated_slices=tmp_path / "s")
    with pytest.raises(InputError, match="another output"):
        paths.check()


def test_volumes_are_nifti(tmp_path: Path):
    check_volume_path(tmp_path / "v.nii")
    for name in ("v.mgz", "v", "v.gz"):
        with pytest.raises(InputError, match=f"{name}: the name of a NIfTI file"):
            check_volume_path(tmp_path / name)
