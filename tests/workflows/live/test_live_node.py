"""``gsvr live`` as a process: it survives what happens to processes, files and disks."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.io.json_lines import read_json_lines
from gsvr.io.nifti import read_volume
from gsvr.io.record import read_record
from tests.moving_brain import coarse_brain
from tests.stack_files import write_stack

# Seconds that a step may take on a machine that is busy with other things.
_PATIENCE = 240.0


class Node:
    """A process that watches a folder."""

    def __init__(self, folder: Path) -> None:
        self.watched, self.output = folder / "watched", folder / "output"
        self.watched.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log.txt"

    def start(self, *options: str, largest_file: int | None = None) -> None:
        words = ["live", "--output-dir", self.output, "--watch", self.watched, "--output-resolution", "2", *options]
        limit = None if largest_file is None else (lambda: _limit_files(os.getpid(), largest_file))
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "gsvr", *map(str, words)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=limit)

    @property
    def log(self) -> str:
        """What it wrote to the terminal."""
        return self._log.read_text()

    def write(self, number: int, examination: str = "") -> None:
        """A stack appears in the folder."""
        folder = self.watched / examination
        folder.mkdir(exist_ok=True)
        write_stack(folder, coarse_brain().stacks[number])

    def events(self, examination: str = "watched") -> list[dict]:
        return read_json_lines(self.output / examination / "events.jsonl")

    def wait_for(self, examination: str = "watched", after: int = 0, **wanted: object) -> dict:
        """The first event with these entries."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            for event in self.events(examination)[after:]:
                if all(event.get(key) == value for key, value in wanted.items()):
                    return event
            assert self.process is not None
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"no {wanted} among {self.events(examination)}; {self._log.read_text()}")

    def end(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(_PATIENCE)


def _limit_files(process: int, size: int) -> None:
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    coarse_brain()  # made once, and not while the node waits
    node = Node(tmp_path)
    yield node
    if node.process is not None and node.process.poll() is None:
        node.end(signal.SIGKILL)


def test_stacks_become_a_volume_and_the_node_ends_when_idle(node: Node):
    node.start("--exit-when-idle", "4")
    for number in range(2):
        node.write(number)
    assert node.process is not None
    assert node.process.wait(_PATIENCE) == 0
    events = node.events()
    kinds = [event["event"] for event in events]
    assert kinds[0] == "started"
    assert kinds.count("stack") == 2
    assert [event["quality"] for event in events if event["event"] == "volume"][-1] == "final"
    assert kinds[-2:] == ["verdict", "advice"]
    assert events[-1]["sentence"]
    assert set(events[-1]["of_stacks"]) == {"stack-0", "stack-1"}
    assert np.linalg.norm(events[-1]["normal"]) == pytest.approx(1, abs=0.01)
    slices = [event for event in events if event["event"] == "slice"]
    told = [(event["stack"], event["slice_index"]) for event in slices if event["movement_mm"] is not None]
    assert len(set(told)) == len(told) > 15
    assert all(np.shape(event["pose"]) == (4, 4) for event in slices)
    assert any(event["movement_mm"] for event in slices if event["movement_mm"] is not None)
    for event in events:
        if event["event"] in ("stack", "slice", "volume", "verdict"):
            assert 0 <= event["latency_seconds"] < _PATIENCE
    folder = node.output / "watched"
    record = read_record(folder / "record.json")
    assert record["verdict"]["grade"] in ("good", "doubtful", "failed")
    assert len(record["stacks"]) == 2
    assert read_volume(folder / "volume.nii.gz", folder / "mask.nii.gz").data.any()
    for name in ("poses.json", "field.safetensors", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert not list(folder.glob(".partial*"))
    assert str(node.watched) not in (folder / "record.json").read_text()
    lines = node.log.splitlines()
    assert "watched: stack-0 arrived, " in node.log
    assert lines[-1] == f"watched: {events[-1]['sentence']}"
    assert lines[-2].startswith(f"watched: verdict: {record['verdict']['grade']}: ")


def test_kill_9_loses_nothing(node: Node):
    node.start()
    node.write(0)
    node.write(1)
    node.wait_for(event="volume", quality="quick", stacks=["stack-0", "stack-1"])
    saved, until = node.output / "watched" / "state" / "poses.json", time.monotonic() + _PATIENCE
    while not (saved.is_file() and "stack-1" in saved.read_text()):  # just after it is told
        assert time.monotonic() < until
        time.sleep(0.01)
    node.end(signal.SIGKILL)  # before the final volume
    with (node.output / "watched" / "events.jsonl").open("ab") as file:
        file.write(b'{"time": 1, "ev')  # as if it had been writing
    before = len(node.events())
    node.start("--exit-when-idle", "4")
    node.wait_for(event="started", after=before, stacks=2)
    node.write(2)
    node.wait_for(event="volume", after=before, quality="quick", stacks=["stack-0", "stack-1", "stack-2"])
    assert node.process is not None
    assert node.process.wait(_PATIENCE) == 0
    after = node.events()[before:]
    assert [event["stack"] for event in after if event["event"] == "stack"] == ["stack-2"]  # the others are known
    assert {event["stack"] for event in after if event["event"] == "slice"} == {"stack-2"}
    assert len(read_record(node.output / "watched" / "record.json")["stacks"]) == 3


def test_a_broken_file_is_told_and_the_others_go_on(node: Node):
    node.start("--exit-when-idle", "6.5")
    (node.watched / "broken.nii.gz").write_bytes(b"nothing that anyone can read")
    node.write(0)
    node.write(1, "other")
    error = node.wait_for(event="error")
    assert "broken.nii.gz is not a readable NIfTI image" in error["reason"]
    assert str(node.watched) not in error["reason"]
    node.wait_for(event="volume", quality="quick")
    node.wait_for("other", event="volume", quality="quick")
    assert node.process is not None
    assert node.process.wait(_PATIENCE) == 0


def test_a_full_disk_is_waited_for(node: Node):
    """No file may grow beyond 20 kB for a while: too little for a volume, enough for the journal."""
    node.start("--exit-when-idle", "4", largest_file=20_000)
    node.write(0)
    error = node.wait_for(event="error")
    assert "cannot be written" in error["reason"]
    assert error["retry_seconds"] > 0
    assert node.process is not None
    _limit_files(node.process.pid, resource.RLIM_INFINITY)
    node.wait_for(event="volume", quality="quick", stacks=["stack-0"])


def test_an_output_inside_the_watched_folder_is_refused(node: Node):
    node.output = node.watched / "output"
    node.start()
    assert node.process is not None
    assert node.process.wait(_PATIENCE) == 2


def test_two_nodes_do_not_share_an_output_folder(node: Node, tmp_path: Path):
    node.start()
    while not (node.output / ".live.lock").exists():
        time.sleep(0.05)
    words = ["live", "--output-dir", str(node.output), "--watch", str(node.watched)]
    second = subprocess.run([sys.executable, "-m", "gsvr", *words], capture_output=True, text=True)
    assert second.returncode == 2
    assert "is being written by another run" in second.stderr
    assert node.end(signal.SIGTERM) == 143


def test_a_mask_that_comes_late_counts(node: Node):
    node.start("--exit-when-idle", "4")
    node.write(0)
    node.write(1)
    mask = node.watched / "stack-1_mask.nii.gz"
    kept = shutil.move(mask, node.watched.parent / "kept.nii.gz")
    node.wait_for(event="stack", stack="stack-1", mask_given=False)
    shutil.move(kept, mask)
    node.wait_for(event="stack", stack="stack-1", mask_given=True)
    assert node.process is not None
    assert node.process.wait(_PATIENCE) == 0
    stacks = json.loads((node.output / "watched" / "record.json").read_text())["stacks"]
    assert [stack["mask_given"] for stack in stacks] == [True, True]


def test_a_scanner_sends_two_studies_in_any_order_and_a_localiser(node: Node):
    for package in ("pydicom", "pynetdicom"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'gsvr[live]'")
    from gsvr.io.dicom.acquired import ExaminationLabels, SeriesLabels, classic_series
    from gsvr.io.dicom.peers import Peer
    from gsvr.io.dicom.sender import send

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node.start("--dicom-port", str(port), "--exit-when-idle", "8")
    stacks = coarse_brain().stacks
    first, second = ExaminationLabels.new(), ExaminationLabels.new(patient_name="SECOND^ONE", patient_id="2")
    instances = classic_series(stacks[0], first, SeriesLabels(2)) + classic_series(stacks[1], first, SeriesLabels(3))
    instances += classic_series(stacks[2], second, SeriesLabels(2))
    instances += classic_series(stacks[2], first, SeriesLabels(1, "localizer"))
    order = np.random.default_rng(0).permutation(len(instances))
    peer = Peer("GSVR", "127.0.0.1", port)
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            send([instances[number] for number in order], peer)
            break
        except InputError:  # it does not listen yet
            assert time.monotonic() < until
    send(instances[:3], peer)  # once more
    names: set[str] = set()
    while len(names) < 2:
        assert time.monotonic() < until
        names = {path.parent.name for path in node.output.glob("study-*/events.jsonl")}
        time.sleep(0.1)
    assert node.process is not None
    assert node.process.wait(_PATIENCE) == 0
    found = {name: node.events(name) for name in names}
    stacks_of = {name: [e["slices"] for e in events if e["event"] == "stack"] for name, events in found.items()}
    assert sorted(stacks_of.values(), key=len) == [[stacks[2].n_slices], [stacks[0].n_slices, stacks[1].n_slices]]
    longer = max(names, key=lambda name: len(stacks_of[name]))
    came = [event for event in found[longer] if event.get("arriving")]
    assert len({event["stack"] for event in came}) == 2
    assert all(0 <= event["latency_seconds"] < _PATIENCE for event in came)
    assert read_record(node.output / longer / "record.json")["verdict"]
    for path in node.output.glob("study-*/**/*"):
        if path.is_file():
            assert b"PHANTOM^" not in path.read_bytes()
