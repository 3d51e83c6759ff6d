from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from gsvr.io.nifti import write_volume
from tests.moving_brain import small_brain


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    brain = small_brain()
    assert brain.mask is not None
    write_volume(tmp_path / "brain.nii.gz", brain.data, brain.affine)
    write_volume(tmp_path / "brain_mask.nii.gz", brain.mask, brain.affine)
    return tmp_path / "brain.nii.gz"


def test_writes_a_page_and_opens_nothing(volume: Path, gsvr_command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: pytest.fail("opened"))
    page = volume.with_name("view.html")
    result = gsvr_command("view", volume, "--mask", volume.with_name("brain_mask.nii.gz"), "--output", page)
    assert result.exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert 'data-role="volume"' in text
    assert 'data-role="mask"' in text


def test_opens_a_temporary_page(volume: Path, gsvr_command, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    result = gsvr_command("view", volume)
    assert result.exit_code == 0
    (address,) = opened
    assert address == Path(result.stdout.strip()).as_uri()
    Path(result.stdout.strip()).unlink()


def test_does_not_overwrite_what_it_shows(volume: Path, gsvr_command) -> None:
    page = volume.with_name("brain.html")
    page.write_bytes(volume.read_bytes())
    result = gsvr_command("view", page, "--output", page)
    assert result.exit_code == 2
    assert "would overwrite the input" in result.stderr
