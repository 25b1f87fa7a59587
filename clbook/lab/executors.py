"""Where a sweep runs: processes of this machine, a Dask cluster, or Slurm through submitit. Book: book/cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from clbook.checks import InputError
from clbook.lab.work import pool

EXECUTORS = ("local", "dask", "slurm")


@contextlib.contextmanager
def executor(name: str, *, workers: int = 1, scheduler: str = "", folder: Path = Path(), **options: Any) -> Iterator[Executor]:
    """The executor of that name, for as long as it is needed.

    `scheduler` is Dask's address, such as tcp://host:8786; `folder` and `options` go to submitit. Raises InputError for an
    unknown name, a scheduler that is missing or does not answer, and a package that is not installed.
    """
    if name == "local":
        with pool(workers) as processes:
            yield processes
    elif name == "dask":
        yield from _dask(scheduler)
    elif name == "slurm":
        yield Submitit(folder / ".slurm", **options)
    else:
        raise InputError(f"executor must be one of {', '.join(EXECUTORS)}, got {name!r}")


def _dask(scheduler: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("executor dask needs Dask: pip install 'clbook[dask]'") from error
    if not scheduler:
        raise InputError("executor dask needs the address of a scheduler: --scheduler tcp://HOST:8786")
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        yield client.get_executor(pure=False)


class Submitit(Executor):
    """submitit's executor with the interface of the standard library: what is submitted is a future that can be waited for.

    `options` are submitit's: cluster ("slurm", or "local" for processes of this machine), timeout_min, slurm_partition, ...
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        try:
            import submitit
        except ImportError as error:
            raise InputError("executor slurm needs submitit: pip install 'clbook[slurm]'") from error
        self.inner = submitit.AutoExecutor(folder=folder, cluster=options.pop("cluster", None))
        self.inner.update_parameters(**options)
        self.waiting: list[Any] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A job of the cluster as a future; a thread waits for it."""
        import threading

        job, future = self.inner.submit(fn, *args, **kwargs), Future[Any]()
        future.set_running_or_notify_cancel()
        threading.Thread(target=_settle, args=(job, future), daemon=True).start()
        return future


def _settle(job: Any, future: Future[Any]) -> None:
    try:
        future.set_result(job.result())
    except BaseException as error:
        future.set_exception(error)
