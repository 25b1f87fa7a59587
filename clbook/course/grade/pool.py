"""The teacher's side of a process that is not trusted: it starts it, watches it, reads one message, and ends it.

Nothing here executes, unpickles or compares by the student's own code: what comes back is bytes of limited number.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clbook.checks import InputError
from clbook.course.grade import GraderError, wire
from clbook.course.grade.forker import NO_WALLS, anonymous, descendants, processor_time
from clbook.course.grade.sandbox import PROCESSES, SCRATCH

START, TICK, GRACE = 180.0, 0.05, 10.0  # seconds
NEARLY = 0.9  # the kernel limits processor time by its ticks, which say more than what it counts where a machine is busy
PRINTED, SHOWN, ANSWERS = 2**24, 4_000, 2**26  # bytes that may be printed, are kept, and may be answered
PACKAGE = Path(__file__).resolve().parents[3]
PASSED = ("PATH", "LD_LIBRARY_PATH", "CLBOOK_PRESET", "CLBOOK_DATA", "TMPDIR")


@dataclass
class Outcome:
    """What came of one job: answers, or the reason why there are none; what was printed, notes, and seconds."""

    answers: dict[str, Any] | None = None
    reason: str = ""
    printed: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What one job may take: seconds of processor time, and memory.

    On the clock it has a little more than twice that, and up to ten times where it works and does not sleep: a machine that
    is busy with something else is not the student's fault.
    """

    seconds: float
    memory_mb: float

    @property
    def wall(self) -> float:
        return 2 * self.seconds + 1

    @property
    def most(self) -> float:
        return 10 * self.seconds + 1


class Forker:
    """A warm process that forks for every job; started when it is first needed, and again when a job has taken it down.

    `imports` are loaded once, so that no fork has to load them. Walls that are weaker than `least`, a level from 1 to 3, are
    refused; once it has started, it never starts again with weaker ones.
    """

    def __init__(self, imports: str = "") -> None:
        self.imports = imports
        self.process: subprocess.Popen[bytes] | None = None
        self.offers: dict[str, int] = {}
        self.least = 0
        self._anonymous = 0

    @property
    def level(self) -> int:
        """How strong the walls are, from 1 to 3."""
        return 1 if not self.offers["landlock"] else 3 if self.offers["namespaces"] else 2

    def start(self) -> None:
        """Start the process and wait until it is warm; once more where its walls come out weaker than `least`.

        Raises GraderError where it does not start, or only with weaker walls.
        """
        self._begin()
        if self.level < self.least:  # a machine that is busy may fail at what it can do
            self._begin()
        if self.level < self.least:
            self.stop()
            raise GraderError(f"the walls came out at level {self.level}, and at level {self.least} before")
        self.least = self.level

    def _begin(self) -> None:
        self.stop()
        here, there = socket.socketpair()
        code = f"import sys; sys.path[:0] = [{str(PACKAGE)!r}]; "
        code += f"from clbook.course.grade.forker import main; main({there.fileno()}, {self.imports!r})"
        env = {name: os.environ[name] for name in PASSED if name in os.environ}
        env |= {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        env |= {
            "LANG": "C.UTF-8",
            "MPLBACKEND": "agg",
            "JOBLIB_MULTIPROCESSING": "0",  # it would look for semaphores within the walls, and warn that there are none
            "CLBOOK_PROGRESS": "0",
            "CUDA_VISIBLE_DEVICES": "",
            "HOME": "/nonexistent",
        }
        env["CLBOOK_DATA"] = str(Path(env.get("CLBOOK_DATA", "~/.cache/clbook")).expanduser().absolute())
        with there, tempfile.TemporaryFile() as said:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", code], pass_fds=[there.fileno()], env=env, stdin=subprocess.DEVNULL,
                stdout=said, stderr=said, cwd="/", start_new_session=True,
            )  # fmt: skip
            there.close()
            here.settimeout(START)
            self.door, self._lines = here, here.makefile("rb")
            line = self._lines.readline()
            if not line:
                said.seek(0)
                raise GraderError(f"the process that forks could not start: {said.read()[-500:].decode(errors='replace')}")
        hello = json.loads(line)
        self.offers, self._anonymous = hello["offers"], hello["anonymous"]
        self._settle()

    def _settle(self) -> None:
        """Ask something within the walls, and go without those within which nothing runs."""
        words = {
            "seed": 0,
            "given": False,
            "cells": {},
            "picked": [],
            "asking": "def ask(student, seed):\n    return {'seed': seed}",
        }
        weaker: list[dict[str, int]] = [{}, {"namespaces": 0}, {"landlock": 0}]
        for less in weaker:
            self.offers |= less
            outcome = self.run(wire.pack(words, {}), Limits(10, 500))
            if outcome.answers == {"seed": 0}:
                return
            if self.process is None:
                break
        raise GraderError(f"not even a question without code is answered: {outcome.reason} {outcome.printed[-300:]}")

    def stop(self) -> None:
        """End the process; `start` and `run` start another."""
        if self.process is not None:
            self._lines.close()
            self.door.close()
            self.process.kill()
            self.process.wait()
            self.process = None

    def run(self, job: bytes, limits: Limits) -> Outcome:
        """Run one job within walls. Whatever it does, this returns."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        with tempfile.TemporaryDirectory(prefix="clbook-", ignore_cleanup_errors=True) as scratch:
            with contextlib.ExitStack() as files:
                reads, writes = zip(*(os.pipe() for _ in range(3)), strict=True)
                for number in reads:
                    files.callback(os.close, number)
                with tempfile.TemporaryFile() as code:
                    code.write(job)
                    code.flush()
                    asked = {"scratch": scratch, "seconds": limits.seconds, "memory_mb": limits.memory_mb, **self.offers}
                    try:
                        socket.send_fds(self.door, [json.dumps(asked).encode()], [code.fileno(), *writes])
                        keeper = json.loads(self._lines.readline() or b"{}").get("keeper")
                    except OSError:
                        keeper = None
                    finally:
                        for number in writes:
                            os.close(number)
                if keeper is None:
                    self.stop()
                    return Outcome(reason=KILLED)
                answers, printed, status = reads
                found = _Watch(answers, printed, status, keeper, limits, self._anonymous, scratch).outcome()
            if self.process is not None and self.process.poll() is not None:
                self.stop()
                found = Outcome(None, KILLED, found.printed, found.notes, found.seconds)
        return found


def written(folder: str, most: int = 1000) -> int:
    """Bytes of the files in a folder, of the first so many that are found."""
    total, folders, seen = 0, [folder], 0
    while folders and seen < most:
        with contextlib.suppress(OSError):
            for entry in os.scandir(folders.pop()):
                seen += 1
                about = entry.stat(follow_symlinks=False)
                total += about.st_size
                folders += [entry.path] if entry.is_dir(follow_symlinks=False) else []
    return total


KILLED = "it ended the process that had started it, which no answer should do"
BARE = "the walls around it could not be built, and so it was not run"
MACHINE = "it was the machine and not what was handed in"
ACCIDENTS = (KILLED, BARE, MACHINE)  # how reasons begin that may be nobody's fault


class _Watch:
    """One job under way: what it prints, what it answers, and whether it keeps within its limits."""

    def __init__(
        self, answers: int, printed: int, status: int, keeper: int, limits: Limits, anonymous: int, scratch: str
    ) -> None:
        self.answers, self.printed, self.status, self.scratch = answers, printed, status, scratch
        self.keeper, self.limits, self.anonymous = keeper, limits, anonymous
        self.message, self.shown, self.said = bytearray(), bytearray(), bytearray()
        self.length: int | None = None
        self.n_printed, self.reason = 0, ""
        self.begun = time.monotonic()

    def outcome(self) -> Outcome:
        with selectors.DefaultSelector() as doors:
            for number in (self.answers, self.printed, self.status):
                os.set_blocking(number, False)
                doors.register(number, selectors.EVENT_READ)
            looked = self.begun
            while not self.reason and not self._complete and b'"exit"' not in self.said:
                for key, _ in doors.select(TICK):
                    if not self._read(key.fd):
                        doors.unregister(key.fd)
                if not doors.get_map():
                    break
                if time.monotonic() - looked > TICK:
                    looked = time.monotonic()
                    self._look()
            seconds = time.monotonic() - self.begun
            if b'"exit"' in self.said:
                self._read_the_rest()
            self._end(doors)
        printed = self.shown.decode(errors="replace")
        if self._complete and not self.reason:
            try:
                words, answers = wire.unpack(bytes(self.message))
            except InputError as error:
                return Outcome(None, str(error), printed, [], seconds)
            notes = [str(n)[:600] for n in words.get("notes", [])[:50]] if isinstance(words.get("notes", []), list) else []
            if "error" in words:
                return Outcome(None, str(words["error"])[:600], printed, notes, seconds)
            return Outcome(answers, "", printed, notes, seconds)
        return Outcome(None, self.reason or self._why_it_ended(), printed, [], seconds)

    @property
    def _complete(self) -> bool:
        return self.length is not None and len(self.message) >= self.length

    def _read(self, number: int) -> bool:
        try:
            got = os.read(number, 2**16)
        except BlockingIOError:
            return True
        if number == self.answers:
            self.message += got
            try:
                self.length = wire.lengths(bytes(self.message[: wire.HEAD.size]), ANSWERS)
            except InputError as error:
                self.reason = str(error)
            if self.length is not None and len(self.message) > self.length:
                del self.message[self.length :]
        elif number == self.printed:
            self.n_printed += len(got)
            self.shown += got[: SHOWN - len(self.shown)]
            if self.n_printed > PRINTED:
                self.reason = f"it printed more than {PRINTED // 2**20} MB and was stopped"
        else:
            self.said += got
        return bool(got)

    def _read_the_rest(self) -> None:
        """What was answered and printed before the end: word of the end may have been read first."""
        for number in (self.answers, self.printed):
            before = -1
            while not self.reason and (now := len(self.message) + self.n_printed) > before:
                before = now
                self._read(number)

    def _look(self) -> None:
        """Whether it takes longer, or more memory or processes, than it may."""
        found, elapsed = descendants(self.keeper), time.monotonic() - self.begun
        if elapsed > self.limits.wall:
            worked = sum(map(processor_time, found))
            if elapsed > self.limits.most or not 0.1 * elapsed < worked < self.limits.seconds:
                self.reason = self._too_long
                return
        if len(found) > PROCESSES:
            self.reason = f"it started more than {PROCESSES} processes and was stopped"
        if written(self.scratch) > SCRATCH:  # where it is a folder in memory, it looks empty from here and limits itself
            self.reason = f"it wrote more than {SCRATCH // 2**20} MB and was stopped"
        used = sum(max(0, anonymous(pid) - self.anonymous) for pid in found)
        if used > self.limits.memory_mb * 2**20:
            self.reason = f"it needed more than {self.limits.memory_mb:g} MB of memory and was stopped"

    @property
    def _too_long(self) -> str:
        return f"it took longer than {self.limits.seconds:g} seconds and was stopped; is there a loop without an end?"

    def _end(self, doors: selectors.BaseSelector) -> None:
        """End all that runs, and wait until the keeper says that it is over."""
        end = time.monotonic() + GRACE
        while b'"exit"' not in self.said and time.monotonic() < end:
            for pid in self._started():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if self.status not in doors.get_map():
                break
            if not self._read_status(doors):
                break
        for pid in [*descendants(self.keeper), self.keeper]:
            if b'"exit"' not in self.said:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _started(self) -> list[int]:
        found = descendants(self.keeper)
        first = [json.loads(line)["pid"] for line in bytes(self.said).split(b"\n") if line.startswith(b'{"pid"')]
        return [*first, *found]

    def _read_status(self, doors: selectors.BaseSelector) -> bool:
        for key, _ in doors.select(TICK):
            if key.fd == self.status and not self._read(self.status):
                return False
            if key.fd != self.status:
                with contextlib.suppress(OSError):
                    if not os.read(key.fd, 2**16):
                        doors.unregister(key.fd)
        return True

    def _why_it_ended(self) -> str:
        lines = [json.loads(line) for line in bytes(self.said).split(b"\n") if line]
        ended = next((line for line in lines if "exit" in line), None)
        if ended is None:
            return KILLED
        if ended["exit"] == -signal.SIGKILL and ended["cpu"] > NEARLY * self.limits.seconds:
            return self._too_long
        if ended["exit"] == NO_WALLS:
            return BARE
        if ended["exit"] < 0:
            with contextlib.suppress(ValueError):
                return f"it crashed ({signal.Signals(-ended['exit']).name})"
        return f"it ended the process by itself (exit status {ended['exit']}) before anything was answered"
