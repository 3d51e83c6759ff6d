"""All sessions of a dataset, each in a process of its own: results, and what is left after something was killed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from gsvr.io.bids import BidsSelection
from gsvr.workflows.bids_app import plan_examinations
from gsvr.workflows.bids_examination import BidsExamination, ReconstructionSettings, reconstruct_examination
from tests.bids_datasets import write_dataset

SESSIONS = [("01", "a"), ("01", "b"), ("02", "a")]
# Where two of them are enough.
TWO = ("--participant-label", "01")
SETTINGS = ReconstructionSettings(preset="fast", output_resolution=2.0)
OPTIONS = ("--preset", "fast", "--output-resolution", "2", "--skip-bids-validation")

# Addresses (bytes): more than enough for a small session.
LIMIT = 700 * 2**20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sessions; not to be changed."""
    return write_dataset(tmp_path_factory.mktemp("bids") / "dataset", SESSIONS)


def plan(root: Path, output: Path) -> list[BidsExamination]:
    return plan_examinations(root, output, BidsSelection(), SETTINGS, validate=False)


def words(root: Path, output: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "gsvr", "bids", str(root), str(output), "participant", *OPTIONS, *more]


def start(root: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(words(root, output, *more), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(root: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(root, output, *more), capture_output=True, text=True, check=False)


def wait_until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.02)


def records(output: Path) -> dict[str, int]:
    """When each record was written: a session that is done twice has another."""
    return {path.name: path.stat().st_mtime_ns for path in output.rglob("*_record.json")}


def processes_of(output: Path) -> list[int]:
    """Those that reconstruct now: their logs are open, and nobody else's."""
    found = []
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            link = os.readlink(f"/proc/{process}/fd/2")
        except OSError:
            continue
        if link.startswith(str(output / "logs")):
            found.append(int(process))
    return found


def check_results(root: Path, output: Path, participant: str = "") -> None:
    """Everything is there and whole, and nothing else."""
    assert all(examination.is_done() for examination in plan(root, output) if participant in examination.name)
    assert not [path for path in output.rglob(".*") if path.name not in (".bidsignore",)]
    for path in output.rglob("*.nii.gz"):
        assert np.isfinite(nibabel.load(path).get_fdata()).all()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_the_same_bits_as_one_by_one(root: Path, tmp_path: Path):
    result = run(root, tmp_path / "batch", "--n-procs", "2", *TWO)
    assert result.returncode == 0, result.stderr
    assert "2 sessions: 2 good" in result.stdout
    assert "[2 of 2]" in result.stdout
    check_results(root, tmp_path / "batch", "sub-01")
    single = plan(root, tmp_path / "single")[1]
    assert reconstruct_examination(single) is not None
    in_batch = plan(root, tmp_path / "batch")[1]
    for name in ("volume", "mask", "poses", "model"):
        assert getattr(single.paths, name).read_bytes() == getattr(in_batch.paths, name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
def test_after_kill_9_of_the_batch_nothing_is_lost_or_redone(root: Path, tmp_path: Path):
    output = tmp_path / "out"
    batch = start(root, output, "--n-procs", "2")
    wait_until(lambda: records(output))
    wait_until(lambda: processes_of(output))
    batch.send_signal(signal.SIGKILL)
    batch.communicate()
    wait_until(lambda: not processes_of(output), 30)  # they end by themselves
    before = records(output)
    assert 1 <= len(before) < 3
    result = run(root, output, "--n-procs", "2")
    assert result.returncode == 0, result.stderr
    assert f"3 sessions ({len(before)} of them done before): 3 good" in result.stdout
    after = records(output)
    assert len(after) == 3
    assert {name: after[name] for name in before} == before
    check_results(root, output)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
def test_a_process_that_is_killed_is_started_again(root: Path, tmp_path: Path):
    output = tmp_path / "out"
    batch = start(root, output, "--n-procs", "1", "--verbose", *TWO)
    wait_until(lambda: any("stack alignment" in path.read_text() for path in output.glob("logs/*.log")))
    os.kill(processes_of(output)[0], signal.SIGKILL)
    told, errors = batch.communicate()
    assert batch.returncode == 0, errors
    assert "it was killed, perhaps for want of memory; it is tried once more" in " ".join(errors.split())
    assert "2 sessions: 2 good" in told
    check_results(root, output, "sub-01")


@pytest.mark.slow
def test_sigterm_ends_everything_and_leaves_nothing_half(root: Path, tmp_path: Path):
    output = tmp_path / "out"
    batch = start(root, output, "--n-procs", "2")
    wait_until(lambda: len(list(output.glob("logs/*.log"))) == 2)
    batch.terminate()
    _, errors = batch.communicate()
    assert batch.returncode == 143
    assert "terminated" in errors
    assert "Traceback" not in errors
    assert not processes_of(output)
    assert not list(output.rglob("*.partial*"))


def refine(path: Path, factor: int) -> None:
    """The same image in pixels that are finer by a factor."""
    image = nibabel.load(path)
    data = np.asarray(image.dataobj).repeat(factor, 0).repeat(factor, 1)  # pyright: ignore[reportAttributeAccessIssue]
    affine = image.affine @ np.diag([1 / factor, 1 / factor, 1, 1])  # pyright: ignore[reportAttributeAccessIssue]
    nibabel.save(nibabel.Nifti1Image(data, affine), path)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_one_that_has_not_enough_memory_is_reported_and_the_others_are_done(tmp_path: Path):
    """Under a limit that is enough for the first session, and not for a hundred times as many pixels."""
    root = write_dataset(tmp_path / "dataset", [("01", "a"), ("02", "a")])
    for path in root.rglob("sub-02*.nii.gz"):
        refine(path, 10)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))

    limits = {"preexec_fn": limited, "env": {**os.environ, "GSVR_THREADS": "1"}}
    command = words(root, tmp_path / "out", "--n-procs", "1")
    result = subprocess.run(command, capture_output=True, text=True, check=False, **limits)
    assert result.returncode == 1, result.stderr
    assert "sub-02_ses-a: not reconstructed: it ran out of memory (2 times)" in result.stdout
    assert "sub-01_ses-a: good" in result.stdout
    assert [examination.is_done() for examination in plan(root, tmp_path / "out")] == [True, False]
