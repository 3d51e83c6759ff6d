"""A simulated examination over the network, as a node sees it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gsvr.cli import app
from gsvr.errors import InputError
from gsvr.io.dicom.peers import Peer
from gsvr.io.dicom.receiver import ReceivedInstance, ReceiverOptions, StoreReceiver
from gsvr.io.dicom.selection import select
from gsvr.io.dicom.stacks import stacks_of
from gsvr.io.nifti import write_volume
from gsvr.simulation.phantom import brain_phantom
from gsvr.workflows.simulated_scanner import ScannerOptions, play
from tests.io.dicom.exports import oblique_stacks


def received(folder: Path, options: ScannerOptions) -> tuple[int, list[ReceivedInstance]]:
    heard: list[ReceivedInstance] = []
    with StoreReceiver(folder, heard.append, ReceiverOptions(port=0)) as node:
        sent = play(oblique_stacks()[:3], Peer("GSVR", "127.0.0.1", node.port), options)
    return sent, heard


def test_an_examination_with_a_localiser_a_repeated_stack_and_a_lost_connection(tmp_path: Path) -> None:
    sent, heard = received(tmp_path, ScannerOptions(pace=0.0, repeated=2, lost=1))
    assert len(heard) == sent
    assert len({instance.path for instance in heard}) == sent
    chosen, left_out = select(stacks_of(frame for instance in heard for frame in instance.frames))
    expected = [*oblique_stacks()[:3], oblique_stacks()[1]]
    assert [stack.orientation for stack in chosen] == ["axial", "coronal", "sagittal", "coronal"]
    assert [stack.n_slices for stack in chosen] == [stack.n_slices for stack in expected]
    assert {left.reason for left in left_out} == {"a localiser"}
    # slices arrive in the order of acquisition, and that is interleaved
    first = [frame for instance in heard for frame in instance.frames if frame.series_number == 2]
    assert [frame.time for frame in first] == sorted(frame.time or 0.0 for frame in first)
    heights = [frame.height for frame in first]
    assert heights != sorted(heights)
    assert heights != sorted(heights, reverse=True)


def test_the_pace_of_a_scanner(tmp_path: Path) -> None:
    begin = time.monotonic()
    sent, heard = received(tmp_path, ScannerOptions(pace=0.05))
    n_slices = sum(stack.n_slices for stack in oblique_stacks()[:3])
    assert time.monotonic() - begin >= 0.05 * n_slices
    assert len(heard) == sent


def test_a_stack_that_is_not_there() -> None:
    with pytest.raises(InputError, match="`repeated` must be one of the stacks 1 to 3, not 4"):
        play(oblique_stacks()[:3], Peer("GSVR", "127.0.0.1", 1), ScannerOptions(repeated=4))


def test_a_node_that_is_not_there_is_told_before_anything_is_simulated(tmp_path: Path) -> None:
    words = ["simulate", "phantom", "--output-dir", str(tmp_path / "truth"), "--live", "GSVR@127.0.0.1:1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "GSVR@127.0.0.1:1 does not answer SCANNER: start it first" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "truth").exists()


def test_the_command(tmp_path: Path) -> None:
    heard: list[ReceivedInstance] = []
    phantom = brain_phantom(spacing=3.2)
    write_volume(tmp_path / "brain.nii.gz", phantom.data, phantom.affine)
    words = [
        "simulate",
        str(tmp_path / "brain.nii.gz"),
        "--output-dir",
        str(tmp_path / "truth"),
        "--n-stacks",
        "1",
        "--thickness",
        "9",
    ]
    words += ["--in-plane-spacing", "4", "--pace", "0", "--repeat-stack", "1", "--lose-connection", "1"]
    with StoreReceiver(tmp_path / "node", heard.append, ReceiverOptions(port=0)) as node:
        peer = f"GSVR@127.0.0.1:{node.port}"
        words += ["--live", peer]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"{len(heard)} images were sent to {peer}" in result.output.replace("\n", "")
    assert (tmp_path / "truth" / "truth.nii.gz").is_file()
    assert {frame.series_number for instance in heard for frame in instance.frames} == {1, 2, 3}
