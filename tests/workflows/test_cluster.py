"""A batch on Dask: schedulers and workers are real processes, and some are killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gsvr.errors import InputError, InstallationError
from gsvr.workflows.batch import BatchOptions, Outcome, Task, run_batch
from gsvr.workflows.cluster import ClusterOptions, DaskWorkers
from tests.bids_datasets import write_dataset
from tests.workflows.task_programs import attempts, task
from tests.workflows.test_batch import is_running, wait_until
from tests.workflows.test_bids_app import check_results, records, start

pytestmark = pytest.mark.slow


class Cluster:
    """A scheduler with workers that have no one who starts them again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.address = folder, f"tcp://127.0.0.1:{self.port}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def _start(self, log: str, *words: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{log}.log", "ab") as file:
            return subprocess.Popen([sys.executable, "-m", "distributed.cli." + words[0], *words[1:]], stderr=file)

    def start(self, n_workers: int = 2) -> None:
        self.scheduler = self._start(
            *("scheduler", "dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")
        )
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60")
        for number in range(n_workers):
            self.workers.append(
                self._start(f"worker-{number}", "dask_worker", self.address, *options, "--name", str(number))
            )

    def stop(self) -> None:
        for process in (self.scheduler, *self.workers):
            if process is not None:
                process.kill()
                process.wait()
        self.scheduler, self.workers = None, []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="Dask is not installed (pip install 'gsvr[batch]')")
    cluster = Cluster(tmp_path)
    cluster.start()
    yield cluster
    cluster.stop()


def run(tasks: list[Task], kind: str, folder: Path) -> list[Outcome]:
    workers = DaskWorkers(tasks, ClusterOptions(kind, 2))
    try:
        return run_batch(tasks, workers, folder / "logs", BatchOptions(patience=120.0))
    finally:
        workers.close()


def in_background(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_workers_of_this_machine_do_all_of_it(tmp_path: Path):
    pytest.importorskip("distributed", reason="Dask is not installed (pip install 'gsvr[batch]')")
    tasks = [task(tmp_path, name, "0") for name in "abcde"] + [task(tmp_path, "bad", "refuse")]
    *good, bad = run(tasks, "local", tmp_path)
    assert [outcome.result.ending for outcome in good] == ["done"] * 5
    assert (bad.result.ending, bad.attempts) == ("refused", 1)


def test_when_a_worker_is_killed_another_one_does_its_task(cluster: Cluster, tmp_path: Path):
    tasks = [task(tmp_path, name, "4", "0") for name in "ab"]
    processes: list[int] = []

    def kill() -> None:
        wait_until(lambda: all(attempts(tmp_path, name) and attempts(tmp_path, name)[0] for name in "ab"))
        processes.extend(int(attempts(tmp_path, name)[0][0]) for name in "ab")
        cluster.workers[0].send_signal(signal.SIGKILL)

    killing = in_background(kill)
    outcomes = run(tasks, cluster.address, tmp_path)
    killing.join()
    assert [outcome.result.ending for outcome in outcomes] == ["done", "done"]
    assert sorted(outcome.attempts for outcome in outcomes) == [1, 2]
    wait_until(lambda: not any(map(is_running, processes)))  # that of the lost worker did not go on


def test_when_the_scheduler_is_killed_nothing_is_lost_or_redone(cluster: Cluster, tmp_path: Path):
    root = write_dataset(tmp_path / "dataset", [("01", "a"), ("01", "b"), ("02", "a")])
    output = tmp_path / "out"
    batch = start(root, output, "--cluster", cluster.address)
    wait_until(lambda: records(output))
    assert cluster.scheduler is not None
    cluster.scheduler.send_signal(signal.SIGKILL)
    _, errors = batch.communicate()
    assert batch.returncode == 2
    assert "the scheduler of the cluster is gone" in errors
    cluster.stop()
    before = records(output)
    assert before
    cluster.start()
    again = start(root, output, "--cluster", cluster.address)
    told, errors = again.communicate()
    assert again.returncode == 0, errors
    assert f"3 sessions ({len(before)} of them done before): 3 good" in told
    assert before.items() <= records(output).items()
    check_results(root, output)


def test_what_there_is_not_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="`cluster` pbs: give local, slurm"):
        ClusterOptions("pbs")
    pytest.importorskip("distributed", reason="Dask is not installed (pip install 'gsvr[batch]')")
    monkeypatch.setattr("gsvr.workflows.cluster._TIMEOUT", 2)
    with pytest.raises(InputError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"):
        DaskWorkers([], ClusterOptions("tcp://127.0.0.1:9"))
    monkeypatch.setitem(sys.modules, "dask_jobqueue.slurm", None)
    with pytest.raises(InstallationError, match=r"pip install 'gsvr\[batch\]'"):
        DaskWorkers([], ClusterOptions("slurm"))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InstallationError, match=r"pip install 'gsvr\[batch\]'"):
        DaskWorkers([], ClusterOptions("local"))
