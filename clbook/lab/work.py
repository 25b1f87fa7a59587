"""Many parts, spread over processes or machines: they are handed to an executor, and each worker keeps its own results.

Any `concurrent.futures.Executor` will do. A part that is kept is not computed again, so a sweep goes on where it was stopped,
and several sweeps may share a folder. Book: book/cluster.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from clbook import store
from clbook.checks import InputError
from clbook.lab.parts import Part, Stream
from clbook.lab.provenance import concat
from clbook.result import Result

if TYPE_CHECKING:
    import pandas as pd

BEAT, STALE = 5.0, 60.0  # seconds: how often a worker says that it is alive, and when it is taken for dead
TRIES = 3  # how often a pool is built anew that lost a process


class SweepError(RuntimeError):
    """Some parts could not be computed; all others are kept."""


@dataclass(frozen=True)
class Status:
    """How far a sweep is: keys of the parts that are there, being computed, missing, and kept but damaged."""

    done: list[str]
    running: list[str]
    missing: list[str]
    damaged: list[str]

    def __str__(self) -> str:
        return ", ".join(f"{len(getattr(self, name))} {name}" for name in ("done", "running", "missing", "damaged"))


def sweep(
    parts: Sequence[Part], folder: str | os.PathLike[str], executor: Executor, *, device: str = "auto", progress: bool = True
) -> None:
    """Have every part computed that is not kept in the folder yet; each is kept by whoever computed it, as soon as it is done.

    Raises SweepError at the end where parts failed, with the first reason, and InputError for a folder that cannot be used.
    """
    folder = _usable(Path(folder))
    waiting = [part for part in parts if kept(part, folder) is None]
    failed: list[tuple[Part, BaseException]] = []
    with tqdm(total=len(parts), initial=len(parts) - len(waiting), disable=not progress, desc="sweep") as bar:
        futures: dict[Future[str], Part] = {}
        for part in waiting:
            future = executor.submit(compute, part, str(folder), device, part.key)
            future.add_done_callback(lambda _: bar.update())
            futures[future] = part
        for future in as_completed(futures):
            bar.set_postfix_str(str(futures[future]))
            error = future.exception()
            if isinstance(error, BrokenExecutor):
                raise error
            if error is not None:
                failed.append((futures[future], error))
    if failed:
        part, error = failed[0]
        raise SweepError(f"{len(failed)} of {len(parts)} parts failed, the first being {part}: {error!r}") from error


def sweep_here(
    parts: Sequence[Part], folder: str | os.PathLike[str], workers: int = 1, *, device: str = "auto", progress: bool = True
) -> None:
    """`sweep` on this machine, on one thread for each worker: one works here, several are processes that end with this one.

    A process that dies is replaced and its part taken up again.
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    if workers == 1:
        with _one_thread():
            return sweep(parts, folder, Here(), device=device, progress=progress)
    for attempt in range(TRIES):
        try:
            with pool(workers) as executor:
                return sweep(parts, folder, executor, device=device, progress=progress)
        except BrokenExecutor:
            if attempt == TRIES - 1:
                raise SweepError(f"a process died {TRIES} times, perhaps for want of memory; take fewer workers") from None


class Here(Executor):
    """The executor that works in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of f(*args); it is computed at once."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pool(workers: int) -> ProcessPoolExecutor:
    """Processes of this machine, one thread each, that end when this one does."""
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start)


def compute(part: Part, folder: str, device: str = "auto", key: str = "") -> str:
    """Compute one part and keep it, unless someone else has; its key. This is what an executor runs.

    Where someone else is at it, wait: either they finish, or they die and the part is taken up. Raises SweepError where the
    key asked for is not that of the code which runs here: it was changed meanwhile, or this is a machine with another one.
    """
    if key not in ("", part.key):
        raise SweepError("the code is not that with which the sweep began; start it again, with one version everywhere")
    path = Path(folder) / part.key
    while kept(part, Path(folder)) is None:
        with claimed(path) as mine:
            if mine and kept(part, Path(folder)) is None:
                part.compute(device).save(path)
        if not mine:
            time.sleep(1.0)
    return part.key


def status(parts: Sequence[Part], folder: str | os.PathLike[str]) -> Status:
    """What is there, being computed, missing and damaged."""
    found = Status([], [], [], [])
    for part in parts:
        try:
            kept = part.load(Path(folder)) is not None
        except store.StoreError:
            found.damaged.append(part.key)
            continue
        alive = _age(_claim(Path(folder) / part.key)) < STALE
        (found.done if kept else found.running if alive else found.missing).append(part.key)
    return found


def table(parts: Sequence[Part], folder: str | os.PathLike[str]) -> pd.DataFrame:
    """One row a scenario and method with its fields: accuracy, forgetting and backward transfer over the seeds, in percent.

    Parts that are missing are left out.
    """
    import pandas as pd

    runs: dict[Stream, list[Result]] = {}
    for part in parts:
        if (found := part.load(Path(folder))) is not None:
            runs.setdefault(part.stream, []).append(found)
    rows = []
    for stream, results in runs.items():
        where = {"scenario": stream.name, "data": stream.data, "tasks": stream.tasks, "kind": stream.kind}
        rows += [where | row for row in concat(results).summary().to_dict("records")]
    return pd.DataFrame(rows)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process may compute the part: a file beside it says so to others for as long as its time is renewed."""
    claim = _claim(path)
    if _age(claim) >= STALE:
        claim.unlink(missing_ok=True)
    try:
        with claim.open("x") as file:
            file.write(f"{socket.gethostname()} {os.getpid()}")
    except FileExistsError:
        yield False
        return
    done = threading.Event()
    beat = threading.Thread(target=_renew, args=(claim, done), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        done.set()
        beat.join()
        claim.unlink(missing_ok=True)


def _renew(claim: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(claim)


def _claim(path: Path) -> Path:
    return path.with_name(f".{path.name}.running")


def _age(claim: Path) -> float:
    """Seconds since a claim was renewed; without end where there is none, or where its process on this machine is dead."""
    try:
        host, _, process = claim.read_text().partition(" ")
        if host == socket.gethostname() and process.isdigit() and not _alive(int(process)):
            return float("inf")
        return time.time() - claim.stat().st_mtime
    except OSError:
        return float("inf")


def _alive(process: int) -> bool:
    """Whether a process of this machine still runs; one that has ended and was not yet buried does not."""
    if os.name == "nt":
        return True  # no way to ask there without a signal being sent
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def kept(part: Part, folder: Path) -> Result | None:
    """What is kept of the part, or None; a damaged file is named, and counts as none."""
    try:
        return part.load(folder)
    except store.StoreError as error:
        print(f"clbook: {error} It is computed again.")
        return None


def _usable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror or error}); name a folder of yours") from error
    return folder


def _start() -> None:
    """What a process of the pool does first: one thread, and an eye on the process that started it."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait on the parent itself, not on its number: Windows keeps that after the parent's end."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
