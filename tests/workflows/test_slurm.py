"""A batch on a real Slurm. Needs root and Debian's slurm-wlm and munge; ``benchmarks/slurm.sh`` starts it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bids_datasets import write_dataset
from tests.conftest import REPOSITORY
from tests.workflows.test_bids_app import check_results, records, start, wait_until

pytestmark = pytest.mark.slow

SCRIPT = REPOSITORY / "benchmarks" / "slurm.sh"
SESSIONS = [(subject, session) for subject in ("01", "02", "03") for session in "ab"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of a Slurm that runs."""
    missing = [program for program in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip("no Slurm to start (as root, Debian: apt install slurm-wlm munge)")
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed (pip install 'gsvr[batch]')")
    folder = tmp_path / "slurm"
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, check=False)
    try:
        if started.returncode != 0:
            pytest.skip(f"Slurm does not start here: {started.stderr.strip().splitlines()[-1]}")
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield folder
    finally:
        subprocess.run([SCRIPT, "stop", folder], check=True)


def jobs() -> list[str]:
    """Numbers of those that run."""
    listed = subprocess.run(
        ["squeue", "--noheader", "--format=%i", "--states=R"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def test_jobs_that_are_cancelled_are_asked_for_again(slurm: Path, tmp_path: Path):
    root, output = write_dataset(tmp_path / "dataset", SESSIONS), tmp_path / "out"
    batch = start(
        *(root, output, "--cluster", "slurm", "--n-procs", "2", "--cluster-options", "cores=1", "memory=1GB"),
        *(f"log_directory={slurm / 'jobs'}", f"local_directory={slurm / 'local'}"),
    )
    wait_until(lambda: records(output) and jobs())
    before, cancelled = records(output), jobs()
    subprocess.run(["scancel", *cancelled], check=True)
    told, errors = batch.communicate(timeout=600)
    assert batch.returncode == 0, errors
    assert "6 sessions: 6 good" in told
    assert before.items() <= records(output).items()
    check_results(root, output)
    wait_until(lambda: not jobs())
