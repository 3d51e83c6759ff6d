"""A simulated scanner, `gsvr live` and its page on one machine: open the address that is printed, and watch.

Run it with ``make live-demo``, or ``python examples/live_demo.py`` where ``gsvr[live]`` is installed. The scanner
images a moving phantom and sends every slice by C-STORE; outputs land in demo-output/live/.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from gsvr.io.json_lines import read_json_lines

OUTPUT = Path("demo-output") / "live"
# Seconds to go on after the last volume, so that it can be looked at.
_LINGER = 120.0


def main(folder: Path = OUTPUT, pace: float = 1.0, quick: bool = False, linger: float = _LINGER) -> int:
    """Play an examination of six stacks.

    Parameters
    ----------
    folder
        Outputs; those of an earlier demonstration are taken up again.
    pace
        Seconds a slice.
    quick
        Two coarse stacks: a look at the machinery, not at what it can do.
    linger
        Seconds to go on after the last volume.

    Returns
    -------
    int
        The node's exit code.
    """
    dicom_port, http_port = _free_port(), _free_port()
    ports = ["--dicom-port", str(dicom_port), "--http-port", str(http_port)]
    volumes = folder / "volumes"
    node = subprocess.Popen([*_GSVR, "live", "--output-dir", str(volumes), *ports])
    try:
        _wait_for(dicom_port)
        scanner = [*_GSVR, "simulate", "phantom", "--output-dir", str(folder / "truth")]
        scanner += (
            ["--n-stacks", "2", "--in-plane-spacing", "2.5", "--thickness", "5"] if quick else ["--n-stacks", "6"]
        )
        subprocess.run([*scanner, "--live", f"GSVR@127.0.0.1:{dicom_port}", "--pace", str(pace)], check=True)
        while not _has_all(volumes) and node.poll() is None:
            time.sleep(0.2)
        time.sleep(linger)
    finally:
        node.send_signal(signal.SIGTERM)
        code = node.wait()
    return code


_GSVR = (sys.executable, "-m", "gsvr")


def _has_all(volumes: Path) -> bool:
    """Whether there is a volume of all stacks that arrived."""
    events = [line["event"] for path in volumes.glob("*/events.jsonl") for line in read_json_lines(path)]
    return "volume" in events and "stack" not in events[len(events) - events[::-1].index("volume") :]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for(port: int) -> None:
    """Until somebody listens."""
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("gsvr live did not start")


if __name__ == "__main__":
    sys.exit(0 if main() in (0, 143) else 1)
