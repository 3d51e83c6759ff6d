from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path, check_writable_file, check_writable_folder


def fail_halfway(path: Path, failure: type[BaseException]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise failure


def test_success_leaves_only_the_file(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "volume.nii.gz"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffixes == [".nii", ".gz"]
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_exception_leaves_nothing_new(tmp_path: Path, failure: type[BaseException]):
    path = tmp_path / "volume.nii"
    with pytest.raises(failure):
        fail_halfway(path, failure)
    assert list(tmp_path.iterdir()) == []


def test_exception_keeps_the_former_file(tmp_path: Path):
    path = tmp_path / "volume.nii"
    path.write_text("former")
    with pytest.raises(RuntimeError):
        fail_halfway(path, RuntimeError)
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_overwrites_a_former_file(tmp_path: Path):
    path = tmp_path / "volume.nii"
    path.write_text("former")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path):
    path = tmp_path / "volume.nii"
    with pytest.raises(InputError, match=r"volume\.nii cannot be written"), atomic_path(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_errors_that_are_not_about_the_output_pass_through(tmp_path: Path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "volume.nii"):
        (tmp_path / "absent").read_text()


def test_folder_as_output_file(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder"), atomic_path(tmp_path):
        pass
    with pytest.raises(InputError, match="is a folder"):
        check_writable_file(tmp_path)


def test_file_in_the_way_of_a_folder(tmp_path: Path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "deep" / "volume.nii"
    with pytest.raises(InputError, match=r"file is a file: choose another folder"):
        check_writable_file(path)
    with pytest.raises(InputError, match="cannot be created"), atomic_path(path):
        pass


@pytest.mark.parametrize("check", [check_writable_file, check_writable_folder])
def test_names_that_are_too_long_are_refused_before_any_work(tmp_path: Path, check: Callable[[Path], None]):
    """Wherever they stand in the path, which need not exist."""
    for path in (250 * "é", f"{300 * 'a'}/v.nii", "/".join(30 * [200 * "a"])):
        with pytest.raises(InputError, match="is too long for"):
            check(tmp_path / "new" / path)
    check(tmp_path / "new" / f"{200 * 'a'}.nii")


def test_check_leaves_nothing_behind(tmp_path: Path):
    check_writable_folder(tmp_path / "new" / "folder")
    check_writable_file(tmp_path / "new" / "volume.nii")
    assert list(tmp_path.iterdir()) == []


def test_check_accepts_and_keeps_an_existing_file(tmp_path: Path):
    path = tmp_path / "volume.nii"
    path.write_text("former")
    check_writable_file(path)
    assert path.read_text() == "former"


def test_folder_without_write_permission(tmp_path: Path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(InputError, match="locked cannot be written"):
        check_writable_file(locked / "new" / "volume.nii")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that nobody can write")
def test_file_system_that_cannot_be_written():
    with pytest.raises(InputError, match="/proc cannot be written"):
        check_writable_folder("/proc/new/folder")
