"""Lines that are on the disk, and no half ones."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gsvr.io.json_lines import JsonLines, read_json_lines


def test_lines_come_back_in_their_order(tmp_path: Path):
    file = JsonLines(tmp_path / "lines")
    file.append([{"a": 1, "name": "\u00e4"}, {"a": np.float32(0.5)}])
    file.append([{"a": float("nan")}])
    assert read_json_lines(tmp_path / "lines") == [{"a": 1, "name": "\u00e4"}, {"a": 0.5}, {"a": None}]


def test_a_line_that_was_cut_short_goes(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes(b'{"a": 1}\n{"a": 2, "b')
    assert read_json_lines(path) == [{"a": 1}]
    JsonLines(path).append([{"a": 3}])
    assert read_json_lines(path) == [{"a": 1}, {"a": 3}]


def test_lines_of_something_else_are_passed_over(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes(b'{"a": 1}\nnot json\n[1]\n\xff\xfe\n{"a": 2}\n')
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}]


def test_no_file_has_no_lines(tmp_path: Path):
    assert read_json_lines(tmp_path / "lines") == []


def test_what_does_not_fit_is_not_there_at_all(tmp_path: Path):
    """A process that may write 100 bytes to a file."""
    path = tmp_path / "lines"
    program = f"""
import resource
from gsvr.io.json_lines import JsonLines
file = JsonLines({str(path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (100, {resource.RLIM_INFINITY}))
file.append([{{"a": 1}}])
try:
    file.append([{{"a": 2}}, {{"b": "x" * 200}}])
except OSError:
    file.append([{{"a": 3}}])
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert read_json_lines(path) == [{"a": 1}, {"a": 3}]
    assert path.stat().st_size < 100


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_has_no_lines(tmp_path: Path, content: bytes):
    (tmp_path / "lines").write_bytes(content)
    assert read_json_lines(tmp_path / "lines") == []
