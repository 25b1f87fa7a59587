"""A process that has PyTorch and this package loaded and holds no answer, no master and no submission: it forks, and no more.

Starting Python with PyTorch takes seconds, a fork takes milliseconds. Each fork is two processes: a keeper, which is trusted,
builds the walls, reports and ends what is left over; and the one within, which runs what a student wrote.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import clbook
from clbook.course import contest, judging
from clbook.course.grade import child, sandbox
from clbook.methods import EWC

__all__ = ["contest", "judging", "main"]  # they are loaded here for the forks
NO_WALLS = 99  # exit status


def main(number: int, imports: str = "") -> None:
    """Load what these imports name, and serve the socket of this number until it is closed."""
    door = socket.socket(fileno=number)
    torch.set_num_threads(1)
    for line in imports.splitlines():
        with contextlib.suppress(Exception):
            exec(line, {})
    _warm()
    gc.collect()
    gc.freeze()  # what is never collected is never copied
    with tempfile.TemporaryDirectory() as scratch:
        offers = sandbox.probe(scratch)
    door.sendall(json.dumps({"offers": offers, "anonymous": anonymous(os.getpid())}).encode() + b"\n")
    while True:
        asked, files, _, _ = socket.recv_fds(door, 2**16, 4)
        if not asked:
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pid = os.fork()
        if pid == 0:
            door.close()
            with contextlib.suppress(BaseException):
                _keep(json.loads(asked), *files)
            os._exit(0)
        for file in files:
            os.close(file)
        door.sendall(json.dumps({"keeper": pid}).encode() + b"\n")


def _warm() -> None:
    """Something small of all that is used later, so that it is loaded once and not in every fork."""
    data = contest.glyphs(0, 40, 8)
    scenario = clbook.permuted(data, 2)
    net = clbook.mlp(data.x.shape[1], scenario.n_outputs, (4,))
    clbook.load("digits")  # it loads much of scikit-learn
    clbook.run(scenario, EWC(lam=1.0), 2, net=net, steps=2, batch_size=4, device="cpu", progress=False)
    clbook.fisher(net, net.init(0), data.x[:4], data.y[:4] if data.y is not None else None)


def _keep(job: dict[str, Any], code: int, answers: int, printed: int, status: int) -> None:
    """Build the walls, fork once more, and see to it that nothing is left."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sandbox.adopts_orphans()
    if job["namespaces"]:
        sandbox.enter_namespaces()
    sandbox.dies_with_its_parent()
    pid = os.fork()
    if pid == 0:
        leave = os._exit
        try:
            content = _within(job, code, answers, printed)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            leave(NO_WALLS)
        try:
            child.answer(content)
        except BaseException:  # it has changed Python itself
            leave(1)
        leave(0)
    _say(status, {"pid": pid})
    for file in (code, answers, printed):
        os.close(file)
    _, ended, used = os.wait4(pid, 0)
    _end_what_is_left()
    _say(status, {"exit": os.waitstatus_to_exitcode(ended), "cpu": used.ru_utime + used.ru_stime})


def _within(job: dict[str, Any], code: int, answers: int, printed: int) -> bytes:
    """Close every door but two, and build the walls; what is to be run within."""
    sandbox.dies_with_its_parent()
    with os.fdopen(os.dup(code), "rb") as file:
        file.seek(0)
        content = file.read()
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (printed, 1), (printed, 2)):
        os.dup2(source, target)
    os.set_inheritable(1, True)
    os.dup2(answers, 100)
    os.dup2(100, child.ANSWERS)
    os.closerange(child.ANSWERS + 1, 2**16)
    scratch = job["scratch"]
    if job["namespaces"]:
        sandbox.own_scratch(scratch)
    os.chdir(scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch, MPLCONFIGDIR=scratch)
    tempfile.tempdir = None
    sandbox.limit(job["seconds"], job["memory_mb"], alone=bool(job["namespaces"]))
    if job["landlock"]:
        sandbox.lock(sandbox.readable(), [scratch, "/dev/null"])
    sandbox.drop_rights()
    sandbox.dies_with_its_parent()
    return content


def _end_what_is_left() -> None:
    """End every process below this one: all are stopped first, so that none forks while others end."""
    stopped: set[int] = set()
    while new := set(descendants(os.getpid())) - stopped:
        _signal(new, signal.SIGSTOP)
        stopped |= new
    with contextlib.suppress(ChildProcessError):
        while True:
            _signal(descendants(os.getpid()), signal.SIGKILL)
            if not os.waitpid(-1, os.WNOHANG)[0]:
                os.waitpid(-1, 0)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _say(status: int, what: dict[str, Any]) -> None:
    os.write(status, json.dumps(what).encode() + b"\n")


def descendants(pid: int) -> list[int]:
    """The processes below this one, as /proc knows them; none where there is no /proc."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{thread}/children").read_text().split())
        if len(found) > 10_000:
            break
    return found[1:]


def anonymous(pid: int) -> int:
    """Bytes of memory of a process that are no file, 0 where that is not known."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return 0


def processor_time(pid: int) -> float:
    """Seconds of processor time of a process, 0 where that is not known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0
