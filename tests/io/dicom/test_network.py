"""C-STORE with real counterparts: DCMTK, Orthanc, and whoever should not be let in."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from gsvr.errors import InputError
from gsvr.io.dicom.acquired import SeriesLabels, classic_series
from gsvr.io.dicom.derived import derived_series
from gsvr.io.dicom.peers import Peer
from gsvr.io.dicom.receiver import ReceivedInstance, ReceiverOptions, StoreReceiver
from gsvr.io.dicom.sender import SenderOptions, echo, send
from gsvr.io.dicom.stacks import stacks_of
from tests.io.dicom.exports import export, labels, oblique_stacks
from tests.io.dicom.orthanc import free_port, running_orthanc
from tests.moving_brain import small_brain

QUICK = SenderOptions(patience=5.0, attempts=2, pause=0.05)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return export(tmp_path_factory.mktemp("export"), oblique_stacks()[:2])


@pytest.fixture(scope="module")
def instances(exported: list[Path]) -> list[Any]:
    return [pydicom.dcmread(path) for path in exported]


@contextmanager
def receiver(folder: Path, **options: Any) -> Iterator[tuple[StoreReceiver, list[ReceivedInstance]]]:
    heard: list[ReceivedInstance] = []
    with StoreReceiver(folder, heard.append, ReceiverOptions(port=0, **{"patience": 5.0, **options})) as node:
        yield node, heard


def here(node: StoreReceiver, title: str = "GSVR") -> Peer:
    return Peer(title, "127.0.0.1", node.port)


def storescu(node: StoreReceiver, *words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("storescu (DCMTK) is not installed")
    command = [program, "-aec", "GSVR", "127.0.0.1", str(node.port), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_dcmtk_sends_an_examination_in_any_order_and_twice(exported: list[Path], tmp_path: Path) -> None:
    with receiver(tmp_path) as (node, heard):
        for _ in range(2):
            assert storescu(node, *reversed(exported)).returncode == 0
        assert len(heard) == len(exported)
        kept = list(node.received())
    stacks = stacks_of(frame for instance in heard for frame in instance.frames)
    assert [stack.name for stack in stacks] == ["series-003-axial", "series-004-coronal"]
    assert [stack.n_slices for stack in stacks] == [stack.n_slices for stack in oblique_stacks()[:2]]
    assert {instance.path for instance in kept} == {instance.path for instance in heard}
    assert {pydicom.dcmread(instance.path).SOPInstanceUID for instance in kept} == {
        pydicom.dcmread(path).SOPInstanceUID for path in exported
    }
    for instance in kept:  # the patient's name is inside
        assert instance.path.stat().st_mode & 0o077 == 0
        assert instance.path.parent.stat().st_mode & 0o077 == 0


def test_dcmtk_with_other_encodings(exported: list[Path], tmp_path: Path) -> None:
    with receiver(tmp_path) as (node, heard):
        assert storescu(node, "-xi", exported[0]).returncode == 0  # implicit VR
        assert len(heard) == 1
    assert heard[0].frames[0].shape == (oblique_stacks()[0].data.shape[0], oblique_stacks()[0].data.shape[1])


def test_orthanc_sends_and_receives(exported: list[Path], tmp_path: Path) -> None:
    port = free_port()
    with running_orthanc(tmp_path / "orthanc", {"gsvr": ["GSVR", "127.0.0.1", port]}) as orthanc:
        for path in exported:
            orthanc.ask("instances", path.read_bytes())
        heard: list[ReceivedInstance] = []
        with StoreReceiver(tmp_path / "received", heard.append, ReceiverOptions(port=port)):
            assert orthanc.ask("modalities/gsvr/echo", b"{}") == {}
            (study,) = orthanc.ask("studies")
            answer = orthanc.ask("modalities/gsvr/store", study.encode())
            assert (answer["InstancesCount"], answer["FailedInstancesCount"]) == (len(exported), 0)
        assert len(heard) == len(exported)
        series = derived_series(small_brain())
        assert echo(Peer("ORTHANC", "127.0.0.1", orthanc.dicom), QUICK)
        assert send(series, Peer("ORTHANC", "127.0.0.1", orthanc.dicom), QUICK) == len(series)
        known = [orthanc.ask(f"series/{name}") for name in orthanc.ask("series")]
        assert len(series) in [len(one["Instances"]) for one in known if one["MainDicomTags"]["Manufacturer"] == "gsvr"]


def test_two_examinations_at_once(tmp_path: Path) -> None:
    sent = [classic_series(oblique_stacks()[0], labels(), SeriesLabels(3)) for _ in range(2)]
    with receiver(tmp_path) as (node, heard):
        threads = [threading.Thread(target=send, args=(series, here(node), QUICK)) for series in sent]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(heard) == 2 * len(sent[0])
    assert len(stacks_of(frame for instance in heard for frame in instance.frames)) == 2


def test_strangers_are_refused(exported: list[Path], instances: list[Any], tmp_path: Path) -> None:
    peers = (Peer.parse("SCANNER@127.0.0.1"), Peer.parse("OTHER@192.0.2.1"))
    with receiver(tmp_path, peers=peers) as (node, heard):
        for title in ("STRANGER", "OTHER"):
            with pytest.raises(InputError, match="refuses the association: make"):
                send(instances[:1], here(node), SenderOptions(title))
        with pytest.raises(InputError, match="refuses the association"):
            send(instances[:1], here(node, "NOTME"), SenderOptions("SCANNER"))
        assert storescu(node, "-aet", "STRANGER", exported[0]).returncode != 0
        assert heard == []
        assert send(instances[:1], here(node), SenderOptions("SCANNER")) == 1
        assert storescu(node, "-aet", "SCANNER", exported[1]).returncode == 0
        assert len(heard) == 2


def test_listening_to_a_network_needs_peers() -> None:
    with pytest.raises(InputError, match=r"listening at 0\.0\.0\.0 needs `peers` who may send"):
        ReceiverOptions(host="0.0.0.0")
    ReceiverOptions(host="0.0.0.0", peers=(Peer("SCANNER", "192.0.2.7"),))


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with receiver(tmp_path) as (node, _), pytest.raises(InputError, match="cannot be listened at"):
        StoreReceiver(tmp_path, lambda _: None, ReceiverOptions(port=node.port)).start()


def test_an_image_that_cannot_be_read_is_refused(instances: list[Any], tmp_path: Path) -> None:
    broken = deepcopy(instances[0])
    broken.PixelData = broken.PixelData[:-10]
    with receiver(tmp_path) as (node, heard):
        with pytest.raises(InputError, match="did not store an image \\(status C000\\)"):
            send([broken], here(node), QUICK)
        assert heard == []
        assert list(node.received()) == []
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_full_disk_is_told_to_the_scanner(instances: list[Any], tmp_path: Path) -> None:
    with receiver(tmp_path, least_free=2**62) as (node, heard):
        with pytest.raises(InputError, match="status A700"):
            send(instances[:1], here(node), QUICK)
        assert heard == []


def test_what_is_too_large_is_cut_off(instances: list[Any], tmp_path: Path) -> None:
    large = deepcopy(instances[0])
    large.Rows = large.Columns = 2048
    large.PixelData = bytes(2048 * 2048 * 2)
    with receiver(tmp_path, largest_instance=2**20) as (node, heard):
        with pytest.raises(InputError, match="does not answer"):
            send([large], here(node), QUICK)
        assert heard == []
        assert send(instances[:2], here(node), QUICK) == 2


def test_a_length_that_no_piece_has_is_not_waited_for(instances: list[Any], tmp_path: Path) -> None:
    with receiver(tmp_path) as (node, heard):
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
            connection.sendall(struct.pack(">BBL", 4, 0, 2**32 - 1) + bytes(1000))
            connection.settimeout(10)
            try:
                while connection.recv(4096):
                    pass  # an abort, perhaps, and the end
            except ConnectionError:
                pass
        assert send(instances[:1], here(node), QUICK) == 1
        assert len(heard) == 1


def test_noise_does_not_stop_the_node(instances: list[Any], tmp_path: Path) -> None:
    with receiver(tmp_path) as (node, heard):
        for noise in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 20, b""):
            with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
                connection.sendall(noise)
        assert send(instances[:1], here(node), QUICK) == 1
        assert len(heard) == 1


def test_an_error_of_the_receiving_side_loses_nothing(instances: list[Any], tmp_path: Path) -> None:
    def fail(_: ReceivedInstance) -> None:
        raise RuntimeError("no room")

    with StoreReceiver(tmp_path, fail, ReceiverOptions(port=0)) as node:
        assert send(instances[:3], here(node), QUICK) == 3
        assert len(list(node.received())) == 3


@contextmanager
def unreliable_line(target: int, after: int) -> Iterator[int]:
    """A port that leads to another; its first connection is lost after so many bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    budget = [after]

    def pump(source: socket.socket, sink: socket.socket, limited: bool) -> None:
        try:
            while data := source.recv(4096):
                if limited and budget[0] >= 0:
                    budget[0] -= len(data)
                    if budget[0] < 0:
                        break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", target))
            threading.Thread(target=pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=pump, args=(far, near, False), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def test_after_a_lost_connection_the_rest_is_sent(instances: list[Any], tmp_path: Path) -> None:
    with receiver(tmp_path) as (node, heard), unreliable_line(node.port, 40_000) as port:
        assert send(instances, Peer("GSVR", "127.0.0.1", port), QUICK) == len(instances)
    assert len(heard) == len(instances)


def test_nobody_there() -> None:
    with pytest.raises(InputError, match="does not answer: 0 of 1 images were sent"):
        send([derived_series(small_brain())[0]], Peer("NOBODY", "127.0.0.1", free_port()), QUICK)
    assert not echo(Peer("NOBODY", "127.0.0.1", free_port()), QUICK)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_what_was_acknowledged_survives_kill_9(instances: list[Any], tmp_path: Path) -> None:
    from pynetdicom import AE
    from pynetdicom.sop_class import MRImageStorage  # pyright: ignore[reportAttributeAccessIssue]

    port = free_port()
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from gsvr.io.dicom.receiver import ReceiverOptions, StoreReceiver\n"
        f"StoreReceiver(Path({str(tmp_path)!r}), lambda _: None, ReceiverOptions(port={port})).start()\n"
        "print('ready', flush=True)\ntime.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    entity = AE("TEST")
    entity.dimse_timeout = 3  # what it waits for an answer that does not come any more
    entity.add_requested_context(MRImageStorage)
    association = entity.associate("127.0.0.1", port, ae_title="GSVR")
    acknowledged: set[str] = set()
    threading.Timer(0.15, os.kill, (process.pid, signal.SIGKILL)).start()
    deadline = time.monotonic() + 20
    while association.is_established and time.monotonic() < deadline:
        for instance in instances:
            copy = deepcopy(instance)
            copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            try:
                status = association.send_c_store(copy)
            except (RuntimeError, OSError):
                break
            if "Status" in status and status.Status == 0:
                acknowledged.add(copy.SOPInstanceUID)
    process.wait(timeout=20)
    process.stdout.close()
    assert acknowledged
    kept = {
        frame.instance for instance in StoreReceiver(tmp_path, lambda _: None).received() for frame in instance.frames
    }
    assert acknowledged <= kept
    assert len(kept - acknowledged) <= 1


@pytest.mark.parametrize(
    "text", ["", "X", "@host", "A@", "A@host:0", "A@host:99999", "SEVENTEEN-LETTERS@host", "A@h@i"]
)
def test_what_is_no_node(text: str) -> None:
    with pytest.raises(InputError, match="is no DICOM node"):
        Peer.parse(text)


def test_nodes() -> None:
    assert Peer.parse("SCANNER@10.0.0.7:11112") == Peer("SCANNER", "10.0.0.7", 11112)
    assert Peer.parse("MY SCANNER@host") == Peer("MY SCANNER", "host", 104)
    assert "127.0.0.1" in Peer("A", "localhost").addresses()
    assert Peer("A", "no.such.host.invalid").addresses() == set()
