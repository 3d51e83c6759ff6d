"""Volumes come back to a PACS, whatever happens to it: DCMTK's storescp and Orthanc are the PACS."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'gsvr[live]'")
pytest.importorskip("pynetdicom", reason="pynetdicom is not installed: pip install 'gsvr[live]'")

from gsvr.cli import app  # noqa: E402
from gsvr.io.dicom.acquired import ExaminationLabels, SeriesLabels, classic_series  # noqa: E402
from gsvr.io.dicom.peers import Peer  # noqa: E402
from gsvr.solver.schedule import SolverOptions  # noqa: E402
from gsvr.workflows.live import returning  # noqa: E402
from gsvr.workflows.live.examination import LiveExamination, LiveOptions  # noqa: E402
from gsvr.workflows.live.journal import Journal  # noqa: E402
from gsvr.workflows.live.returning import Returner, ReturnOptions, instances_of, origin_of  # noqa: E402
from tests.io.dicom.orthanc import free_port, running_orthanc  # noqa: E402
from tests.moving_brain import moving_brain  # noqa: E402


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
    return found


@contextmanager
def storescp(folder: Path, port: int) -> Iterator[None]:
    program = shutil.which("storescp")
    if program is None:
        pytest.skip("storescp (DCMTK) is not installed")
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen([program, "-aet", "PACS", "-od", str(folder), str(port)])
    try:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def from_scanner(examination: LiveExamination, tmp_path: Path) -> Iterator[LiveExamination]:
    """The journal says that its stacks came by DICOM."""
    labels = ExaminationLabels.new()
    instance = classic_series(moving_brain().stacks[0], labels, SeriesLabels(2))[0]
    file = tmp_path / "received.dcm"
    instance.save_as(file, enforce_file_format=True)
    journal = Journal(examination.folder / "journal.jsonl", examination.name)
    kept = (examination.folder / "journal.jsonl").read_bytes()
    for arrival in journal.before:
        journal.note(replace(arrival, dicom=file))
    yield examination
    (examination.folder / "journal.jsonl").write_bytes(kept)


def told(examination: LiveExamination, kind: str, after: int) -> list[Any]:
    return [event for event in examination.events.so_far[after:] if event["event"] == kind]


def test_a_destination_that_is_down_is_tried_again_and_takes_each_volume_once(
    examination: LiveExamination, tmp_path: Path
):
    assert examination.latest is not None
    assert examination.latest.verdict is not None
    port, before = free_port(), len(examination.events.so_far)
    options = ReturnOptions(Peer("PACS", "127.0.0.1", port), pause=0.3)
    returner = Returner(options, lambda: {examination.name: examination})
    returner.start()
    error = until(lambda: told(examination, "error", before))[0]
    assert "does not answer" in error["reason"]
    assert error["retry_seconds"] == 0.3
    with storescp(tmp_path / "pacs", port):
        (sent,) = until(lambda: told(examination, "sent", before))
        time.sleep(1.0)  # nothing more comes
        returner.stop(last_attempt=True)
    assert len(told(examination, "sent", before)) == 1
    files = [pydicom.dcmread(path) for path in (tmp_path / "pacs").iterdir()]
    assert len(files) == sent["images"] > 10
    assert len({file.SeriesInstanceUID for file in files}) == 1
    assert {int(file.SeriesNumber) for file in files} == {900 + examination.latest.n_stacks}
    assert all(examination.latest.verdict.sentence in file.ImageComments for file in files)
    assert {str(file.PatientName) for file in files} == {""}


def test_a_volume_that_failed_is_not_sent(examination: LiveExamination):
    latest, before = examination.latest, len(examination.events.so_far)
    assert latest is not None
    assert latest.verdict is not None
    examination.latest = replace(latest, verdict=replace(latest.verdict, grade="failed"))
    try:
        returner = Returner(ReturnOptions(Peer("PACS", "127.0.0.1", free_port())), lambda: {"it": examination})
        returner.start()
        returner.stop(last_attempt=True)
    finally:
        examination.latest = latest
    assert examination.events.so_far[before:] == []


def test_after_a_restart_what_was_not_sent_is_sent_and_nothing_else(examination: LiveExamination, tmp_path: Path):
    folder = shutil.copytree(examination.folder, tmp_path / "copy")
    again = LiveExamination(folder, LiveOptions(SolverOptions(), 2.0))
    assert again.latest is not None

    def told_by_a_returner() -> list[str]:
        before = len(again.events.so_far)
        returner = Returner(ReturnOptions(Peer("PACS", "127.0.0.1", free_port())), lambda: {"it": again})
        returner.start()
        returner.stop(last_attempt=True)
        return [event["event"] for event in again.events.so_far[before:]]

    again.events.tell("verdict", grade="good", reasons=[], advice=[])
    assert told_by_a_returner() == ["error"]  # since nobody listens there
    again.events.tell("sent", peer="PACS@127.0.0.1:104", images=9)
    assert told_by_a_returner() == []


def test_what_cannot_be_sent_is_told_and_the_node_goes_on(
    examination: LiveExamination, monkeypatch: pytest.MonkeyPatch
):
    def origin(*_: object) -> None:
        raise RuntimeError("whatever a header may do to pydicom")

    monkeypatch.setattr(returning, "origin_of", origin)
    before = len(examination.events.so_far)
    returner = Returner(ReturnOptions(Peer("PACS", "127.0.0.1", free_port())), lambda: {"it": examination})
    returner.start()
    returner.stop(last_attempt=True)
    (event,) = told(examination, "error", before)
    assert event["reason"] == "the volume cannot be sent: RuntimeError"


def test_dicom_files_that_are_gone_are_told(
    from_scanner: LiveExamination, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "received.dcm").unlink()
    assert origin_of(Journal(from_scanner.folder / "journal.jsonl", "it").before, named=True) is None
    assert "a study of its own" in caplog.text


def test_orthanc_files_it_in_the_study_of_the_examination_on_demand(from_scanner: LiveExamination, tmp_path: Path):
    arrivals = Journal(from_scanner.folder / "journal.jsonl", "it").before
    origin = origin_of(arrivals, named=True)
    assert origin is not None
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        words = ["send", str(from_scanner.folder), "--to", f"ORTHANC@127.0.0.1:{orthanc.dicom}", "--dicom-patient"]
        assert app(words, standalone_mode=False) in (None, 0)
        (study,) = (orthanc.ask(f"studies/{name}") for name in orthanc.ask("studies"))
        (series,) = (orthanc.ask(f"series/{name}") for name in orthanc.ask("series"))
    assert study["MainDicomTags"]["StudyInstanceUID"] == origin.study
    assert study["PatientMainDicomTags"]["PatientName"] == "PHANTOM^SIMULATED"
    assert len(series["Instances"]) == len(instances_of(from_scanner.folder))
    assert {str(instance.PatientName) for instance in instances_of(from_scanner.folder)} == {""}
