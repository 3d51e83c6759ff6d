"""Orthanc, the DICOM server, for tests."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Orthanc:
    """A running server.

    Attributes
    ----------
    http, dicom
        Its ports.
    """

    http: int
    dicom: int

    def ask(self, path: str, content: bytes | None = None) -> Any:
        """GET a path, or POST content to it; JSON becomes what it says, all else is bytes."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/{path}", data=content)
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        try:
            return json.loads(body)
        except ValueError:
            return body


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def running_orthanc(folder: Path, modalities: Mapping[str, list[Any]] | None = None) -> Iterator[Orthanc]:
    """A server of its own, with nothing in it; skips where Orthanc is not installed."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None:
        pytest.skip("Orthanc is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    server = Orthanc(free_port(), free_port())
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": server.http,
        "DicomPort": server.dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomModalities": dict(modalities or {}),
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with open(folder / "orthanc.log", "wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                server.ask("system")
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None:
                    pytest.fail((folder / "orthanc.log").read_text()[-2000:])
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)
