"""MRD streams become slices and stacks: a client sends them as the library of the format serialises them."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ismrmrd = pytest.importorskip("ismrmrd", reason="ismrmrd is not installed: pip install ismrmrd")

from ismrmrd.serialization import ConfigFile, ProtocolSerializer  # noqa: E402

from gsvr.errors import InputError  # noqa: E402
from gsvr.io.nifti import read_stack  # noqa: E402
from gsvr.model.slices import Stack  # noqa: E402
from gsvr.workflows.live.arrival import Arrival, Refusal, SliceArrival  # noqa: E402
from gsvr.workflows.live.mrd_server import MrdOptions, MrdServer, examination_of  # noqa: E402
from tests.moving_brain import moving_brain  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

STUDY = "1.2.826.0.1.3680043.8.498.1"


def header() -> Any:
    return ismrmrd.xsd.ismrmrdHeader(
        studyInformation=ismrmrd.xsd.studyInformationType(studyInstanceUID=STUDY),
        experimentalConditions=ismrmrd.xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63_500_000),
    )


def images_of(stack: Stack, series: int = 3, kind: type = np.float32) -> list[Any]:
    """In the order of acquisition."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ stack.affine
    directions, spacing = lps[:3, :3] / stack.spacing, stack.spacing
    columns, rows = stack.data.shape[:2]
    found = []
    for index in np.argsort(stack.slice_times):
        image = ismrmrd.Image.from_array(stack.data[:, :, index].T.astype(kind), transpose=False)
        image.image_type, image.image_series_index, image.slice = ismrmrd.IMTYPE_MAGNITUDE, series, int(index)
        image.acquisition_time_stamp = 17_000_000 + int(400 * stack.slice_times[index])
        image.field_of_view[:] = (columns * spacing[0], rows * spacing[1], stack.thickness)
        image.read_dir[:], image.phase_dir[:] = directions[:, 0], directions[:, 1]
        image.slice_dir[:] = np.cross(directions[:, 0], directions[:, 1])
        image.position[:] = (lps @ [columns / 2, rows / 2, index, 1.0])[:3]
        found.append(image)
    return found


@contextmanager
def server(folder: Path, got: list[Any], **options: Any) -> Iterator[MrdServer]:
    one = MrdServer(folder, MrdOptions(0, **options))
    one.start(got.append)
    yield one
    one.stop()


def wait_for(got: list[Any], kind: type) -> Any:
    end = time.monotonic() + 20
    while not (found := [one for one in got if isinstance(one, kind)]):
        assert time.monotonic() < end, got
        time.sleep(0.02)
    return found[0]


def test_slices_come_as_they_are_sent_and_the_stack_when_the_stream_is_closed(tmp_path: Path):
    stack, got = moving_brain().stacks[1], []
    images = images_of(stack)
    with server(tmp_path, got) as node, socket.create_connection(("127.0.0.1", node.port), 10) as client:
        with client.makefile("wb") as file, ProtocolSerializer(file) as stream:
            stream.serialize(ConfigFile("gsvr"))
            stream.serialize(header())
            stream.serialize(ismrmrd.Waveform.from_array(np.zeros((2, 30), np.uint32)))
            for image in [*images[:4], images[2], *images[4:]]:  # one of them twice
                stream.serialize(image)
            file.flush()
            wait_for(got, SliceArrival)
            assert not [one for one in got if isinstance(one, Arrival)]
        assert client.recv(2) == struct.pack("<H", 4)  # closed from the other side, too
        arrival = wait_for(got, Arrival)
    slices = [one for one in got if isinstance(one, SliceArrival)]
    assert len(slices) == len(images) + 1
    assert {(one.examination, one.stack) for one in slices} == {(examination_of(STUDY), arrival.path.name[:-7])}
    assert STUDY not in arrival.examination
    found = read_stack(arrival.path)
    np.testing.assert_allclose(found.affine, stack.affine, atol=1e-3)
    np.testing.assert_allclose(found.data, stack.data, rtol=1e-4, atol=1e-3)
    assert found.thickness == pytest.approx(stack.thickness)
    np.testing.assert_array_equal(np.argsort(found.slice_times), np.argsort(stack.slice_times))
    first = int(np.argmin(stack.slice_times))
    np.testing.assert_allclose(slices[0].image.affine[:, 3], stack.affine @ [0, 0, first, 1], atol=1e-3)
    again: list[Any] = []
    with server(tmp_path, again):  # after a restart: the same stack, which the journal knows
        assert wait_for(again, Arrival) == arrival.__class__(**vars(arrival) | {"time": wait_for(again, Arrival).time})
    assert [type(one) for one in again] == [Arrival]


def test_paths_in_the_journal_hold_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    got: list[Any] = []
    with server(Path("out"), got) as node:
        with socket.create_connection(("127.0.0.1", node.port), 10) as client, client.makefile("wb") as file:
            for image in images_of(moving_brain().stacks[0]):
                ProtocolSerializer(file).serialize(image)
        arrival = wait_for(got, Arrival)
    assert arrival.path.is_relative_to(tmp_path / "out")


def test_a_lost_connection_loses_nothing_that_came(tmp_path: Path):
    stack, got = moving_brain().stacks[0], []
    with server(tmp_path, got) as node:
        with socket.create_connection(("127.0.0.1", node.port), 10) as client, client.makefile("wb") as file:
            stream = ProtocolSerializer(file)
            stream.serialize(header())
            for image in sorted(images_of(stack, kind=np.uint16), key=lambda image: image.slice)[:12]:
                stream.serialize(image)
            file.write(struct.pack("<H", 1022) + b"half of a header")
        arrival = wait_for(got, Arrival)
    assert read_stack(arrival.path).n_slices == 12


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no MRD stream"),
        (struct.pack("<HI", 3, 2**31), "announces a text of 2048 MiB"),
        (struct.pack("<HI", 3, 60) + b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>'.ljust(60), "defines entities"),
        (struct.pack("<HI", 3, 9) + b"not <xml>", "cannot be read"),
        (struct.pack("<H", 1022) + bytes(198) + struct.pack("<Q", 2**60), "attributes without end"),
        (struct.pack("<H", 1022) + bytes(206), "no size or kind"),
        (struct.pack("<H", 1008) + bytes(340), "raw data"),
        (struct.pack("<H", 1026) + bytes(28) + struct.pack("<HH", 65535, 65535) + bytes(8), "a waveform without end"),
    ],
)
def test_what_is_no_stream_of_images_is_refused(tmp_path: Path, content: bytes, reason: str):
    got: list[Any] = []
    with server(tmp_path, got) as node, socket.create_connection(("127.0.0.1", node.port), 10) as client:
        client.sendall(content)
        refusal = wait_for(got, Refusal)
    assert reason in refusal.reason


def test_images_that_cannot_be_used_are_refused(tmp_path: Path):
    images = images_of(moving_brain().stacks[0])
    images[0].phase_dir[:] = images[0].read_dir
    for image in images[1:3]:
        image.image_type = ismrmrd.IMTYPE_PHASE
    got: list[Any] = []
    with server(tmp_path, got) as node:
        for chosen in (images[1:3], images[:1]):
            with (
                socket.create_connection(("127.0.0.1", node.port), 10) as client,
                client.makefile("wb") as file,
                ProtocolSerializer(file) as stream,
            ):
                for image in chosen:
                    stream.serialize(image)
        assert "not perpendicular" in wait_for(got, Refusal).reason
    assert [one for one in got if not isinstance(one, Refusal)] == []  # phase images are passed over


def test_strangers_and_taken_ports_are_refused(tmp_path: Path):
    got: list[Any] = []
    with server(tmp_path, got, peers=("192.0.2.1",)) as node:
        with socket.create_connection(("127.0.0.1", node.port), 10) as client:
            assert client.recv(1) == b""
        with pytest.raises(InputError, match="choose another port"):
            MrdServer(tmp_path, MrdOptions(node.port))
    assert got == []
