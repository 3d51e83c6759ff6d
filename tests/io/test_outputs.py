"""What a run reads is never written, a record never describes other files, and one run writes at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gsvr.errors import InputError
from gsvr.io.outputs import OutputFolder, begin_writing, refuse_overwriting, sole_writer

NUMBERED = r"\d+\.nii\.gz"
needs_locks = pytest.mark.skipif(os.name == "nt", reason="there are no such locks")


@pytest.fixture
def read(tmp_path: Path) -> Path:
    path = tmp_path / "0.nii.gz"
    path.write_text("input")
    return path


def test_an_input_is_known_under_every_name(tmp_path: Path, read: Path):
    (tmp_path / "symbolic.nii.gz").symlink_to(read)
    os.link(read, tmp_path / "hard.nii.gz")
    (tmp_path / "folder").symlink_to(tmp_path)
    for path in (read, tmp_path / "symbolic.nii.gz", tmp_path / "hard.nii.gz", tmp_path / "folder" / "0.nii.gz"):
        with pytest.raises(InputError, match=f"{path} would overwrite the input {read}: choose another name"):
            refuse_overwriting([path], [None, read])
    refuse_overwriting([tmp_path / "1.nii.gz"], [read])


def test_an_input_in_a_folder_of_numbered_files(tmp_path: Path, read: Path):
    with pytest.raises(InputError, match=f"{tmp_path}/0.nii.gz would overwrite the input"):
        refuse_overwriting([OutputFolder(tmp_path, NUMBERED)], [read])
    link = tmp_path / "link.nii.gz"
    link.symlink_to(read)
    with pytest.raises(InputError, match="would overwrite the input"):
        refuse_overwriting([OutputFolder(tmp_path, NUMBERED)], [link])
    refuse_overwriting([OutputFolder(tmp_path, r"mask_\d+\.nii\.gz"), OutputFolder(tmp_path / "new", NUMBERED)], [read])


def test_outputs_do_not_overwrite_each_other(tmp_path: Path):
    with pytest.raises(InputError, match="another output of this run"):
        refuse_overwriting([tmp_path / "a.json", tmp_path / "." / "a.json"], [])
    with pytest.raises(InputError, match="another output of this run, in"):
        refuse_overwriting([OutputFolder(tmp_path, NUMBERED), tmp_path / "7.nii.gz"], [])


def test_the_old_record_and_what_killed_runs_left_go_first(tmp_path: Path):
    code = """
import os, sys
from gsvr.io.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""
    for path in (tmp_path / "v.nii.gz", tmp_path / "folder" / "0.nii.gz"):
        subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert len(list(tmp_path.rglob(".partial-*"))) == 2
    (tmp_path / f".partial-00000000-{os.getpid()}-0.nii").write_text("of another machine")
    record = tmp_path / "v.json"
    record.write_text("old")
    begin_writing([tmp_path / "v.nii.gz", OutputFolder(tmp_path / "folder", NUMBERED)], record)
    assert not record.exists()
    assert [path.name[:17] for path in tmp_path.rglob(".partial-*")] == [".partial-00000000"]


HOLDER = """
import sys, time
from pathlib import Path
from gsvr.io.outputs import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("holding", flush=True)
    time.sleep(60)
"""


@needs_locks
def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path):
    path = tmp_path / "new" / "v.nii.gz"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        with pytest.raises(InputError, match=rf"v\.nii\.gz is being written by another run \(process {process.pid} on"):
            sole_writer(path).__enter__()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert list(path.parent.iterdir())  # a stale lock
    with sole_writer(path):
        pass
    assert list(path.parent.iterdir()) == []


@needs_locks
def test_a_folder_made_for_nothing_goes_again(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "v.nii.gz"
    with pytest.raises(KeyboardInterrupt), sole_writer(path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with sole_writer(path):
        path.write_text("volume")
    assert [found.name for found in path.parent.iterdir()] == ["v.nii.gz"]
