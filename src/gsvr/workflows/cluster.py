"""Workers of a batch on a Dask cluster: each does one task at a time, in a process that has all of its threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gsvr.compiled.threads import thread_count
from gsvr.errors import InputError, InstallationError
from gsvr.workflows.batch import Place, Task
from gsvr.workflows.memory import available_memory
from gsvr.workflows.task_process import TaskCall, TaskResult, run_in_process

if TYPE_CHECKING:
    from distributed import Client

# Seconds to reach a scheduler.
_TIMEOUT = 30
# How much more memory than the estimate of the largest task a job of a cluster asks for.
_SPARE = 1.5
_LEAST_MEMORY = 10**9
# Jobs of a cluster, unless told otherwise.
_JOBS = 16
# A scheduler that does not answer for so long is gone.
_SILENCE = 20.0
# Seconds after which it is asked again who is there.
_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster, and how much of it.

    Attributes
    ----------
    kind
        ``local``, ``slurm``, or the address of a scheduler that runs (``tcp://host:8786``).
    workers
        Workers to start; None: on this machine as many as cores, on a cluster as many as tasks, but no more than a few.
    more
        Options of `dask_jobqueue.SLURMCluster`, such as ``queue``, ``account``, ``walltime``, ``cores`` and ``memory``;
        they go before those of its configuration.
    """

    kind: str
    workers: int | None = None
    more: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("local", "slurm") and "://" not in self.kind:
            raise InputError(f"`cluster` {self.kind}: give local, slurm, or the address of a scheduler (tcp://...)")


class _Sent:
    """A task that a worker has been sent."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def done(self) -> bool:
        """See `gsvr.workflows.batch.Running`."""
        return self._future.done()

    def result(self) -> TaskResult:
        """What the worker says; a worker that is gone says nothing."""
        try:
            return self._future.result()
        except Exception as error:  # whatever went wrong between here and there
            return TaskResult("lost", f"the worker is gone ({type(error).__name__})")

    def cancel(self) -> None:
        """See `gsvr.workflows.batch.Running`."""
        self._future.cancel()


class DaskWorkers:
    """All workers of a cluster that are there at the moment.

    Raises
    ------
    InstallationError
        If Dask is not installed.
    InputError
        If there is no such cluster.
    """

    def __init__(self, tasks: Sequence[Task], options: ClusterOptions) -> None:
        self._cluster: Any = None
        logging.getLogger("distributed").setLevel(logging.ERROR)  # it tells of every worker that comes and goes
        self._client = self._connect(tasks, options)
        self._answered, self._asked = time.monotonic(), -_BETWEEN_LOOKS
        self._places: list[Place] = []

    def _connect(self, tasks: Sequence[Task], options: ClusterOptions) -> Client:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise InstallationError("clusters need the package distributed: pip install 'gsvr[batch]'") from error
        if options.kind == "local":
            cores = thread_count()
            workers = max(1, min(options.workers or cores, len(tasks)))
            self._cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=max(1, cores // workers),
                memory_limit=None,  # tasks have processes of their own, which Dask does not see
                dashboard_address=None,  # pyright: ignore[reportArgumentType]
            )
        elif options.kind == "slurm":
            self._cluster = _slurm(tasks, options)
        address = options.kind if self._cluster is None else self._cluster
        try:
            return Client(address, timeout=_TIMEOUT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"no scheduler answers at {options.kind}: start it (dask scheduler) or check the address"
            ) from error

    def places(self) -> Sequence[Place]:
        """Workers that are there now.

        Raises
        ------
        InputError
            If the scheduler is gone.
        """
        now = time.monotonic()
        if self._client.status == "running":
            self._answered = now
            if now - self._asked > _BETWEEN_LOOKS:
                workers = self._client.scheduler_info(n_workers=-1)["workers"]
                self._places = [_place(address, worker) for address, worker in workers.items()]
                self._asked = now
            return self._places
        if now - self._answered > _SILENCE:
            raise InputError(
                "the scheduler of the cluster is gone: start it and run the same command again; what is done stays done"
            )
        return []

    def start(self, place: str, call: TaskCall) -> _Sent:
        """Send the task to the worker."""
        return _Sent(self._client.submit(run_in_process, call, workers=[place], pure=False, retries=0))

    def close(self) -> None:
        """Leave the cluster, and end it if it was started here."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def _place(address: str, worker: Mapping[str, Any]) -> Place:
    # a worker without a limit shares the memory of its machine with others: one task is all that it is given
    return Place(address, 1, int(worker["nthreads"]), int(worker.get("memory_limit") or available_memory()))


def _slurm(tasks: Sequence[Task], options: ClusterOptions) -> Any:
    """Jobs with one worker each, and memory for the largest task."""
    try:
        import dask.config
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise InstallationError("Slurm needs the package dask-jobqueue: pip install 'gsvr[batch]'") from error
    configured = dask.config.get("jobqueue.slurm", {})
    largest = max([int(_SPARE * task.memory) for task in tasks] + [_LEAST_MEMORY])
    given: dict[str, Any] = dict(options.more or {})
    given.setdefault("cores", configured.get("cores") or 2)
    given.setdefault("memory", configured.get("memory") or f"{largest / 1e9:.1f} GB")
    given["cores"] = int(given["cores"])
    cluster = SLURMCluster(processes=1, **given)
    jobs = max(1, min(options.workers or _JOBS, len(tasks)))
    cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)  # what ends early is asked for again
    return cluster
