"""A class of submissions against one master: run, judged, and kept, so that it can go on. Book: book/grading."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import hashlib
import json
import os
import queue
import secrets
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clbook.checks import InputError, short
from clbook.code import digest_of
from clbook.course import cells
from clbook.course.cells import Statement
from clbook.course.grade import GraderError, MasterError, sandbox, wire
from clbook.course.grade.pool import ACCIDENTS, MACHINE, Forker, Limits, Outcome
from clbook.course.grade.scores import tenths
from clbook.course.grade.submission import Submission, collect
from clbook.course.judging import verdict
from clbook.course.master import Hidden, Master
from clbook.store import replace

CODE = "from clbook.course.grade import forker, grader"  # with what the master imports, all that a result depends on
VERSIONS = [f"{name} {version(name)}" for name in ("torch", "numpy")]  # another one may round otherwise
ROUNDS = 1000
JUDGING = 60.0  # seconds on the clock for one judge, while all others wait
SEEDS = 2**48  # too many to try them all
LEVELS = {
    3: "level 3: namespaces of its own for processes, users, mounts, messages and the network; Landlock for files; limits",
    2: "level 2: Landlock for files, programs and TCP; limits. Processes are ended one by one, and one may survive",
    1: "level 1: no sandbox, limits on time, memory and output alone. Files and the network are open",
}


@dataclass
class Checked:
    """A hidden check of one submission: points, the score, why there is none, each criterion, and what was printed."""

    name: str
    points: float
    score: float = 0.0
    reason: str = ""
    criteria: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""
    seconds: float = 0.0


@dataclass
class Entry:
    """One student's result."""

    student: str
    file: str
    score: float
    points: float
    isolation: str
    trouble: str = ""
    notes: list[str] = field(default_factory=list)
    checks: list[Checked] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def of(cls, data: dict[str, Any]) -> Entry:
        return cls(**{**data, "checks": [Checked(**c) for c in data["checks"]]})


@dataclass
class Grades:
    """A class: the assignment, the seed of the hidden checks, how submissions were kept apart, and an entry for each."""

    assignment: str
    title: str
    points: float
    seed: int
    isolation: str
    entries: list[Entry]
    left_out: list[str] = field(default_factory=list)

    @property
    def data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, data: dict[str, Any]) -> Grades:
        """From `data`. Raises InputError where it is something else."""
        try:
            return cls(**{**data, "entries": [Entry.of(e) for e in data["entries"]]})
        except (TypeError, KeyError) as error:
            raise InputError(f"these are no grades of clbook grade: {error}") from None


class Grader:
    """Grades submissions against a master with one seed, each hidden check in a process of its own."""

    def __init__(self, master: Master, seed: int, kept: Path | None = None) -> None:
        self.master, self.seed, self.kept = master, seed, kept
        self.limits = Limits(master.seconds, master.memory_mb)
        self.sha = hashlib.sha256(master.path.read_bytes()).hexdigest()
        self.code = digest_of(CODE, master.imports, *(h.source for h in master.hidden))
        self._names: dict[str, dict[str, Any]] = {}
        self._idle: queue.LifoQueue[Forker] = queue.LifoQueue()
        self._started: list[Forker] = []
        self._lock, self._stopping = threading.Lock(), False

    @contextlib.contextmanager
    def forker(self) -> Iterator[Forker]:
        """A process that forks and that nobody else is using; a new one where all are busy."""
        try:
            one = self._idle.get_nowait()
        except queue.Empty:
            one = Forker(self.master.imports)
            one.least = self.__dict__.get("level", 0)  # what the first has, all others must have
            self._started.append(one)
            one.start()
        try:
            yield one
        finally:
            self._idle.put(one)

    @cached_property
    def level(self) -> int:
        """How strong the walls are on this machine, from 1 to 3."""
        with self.forker() as forker:
            return forker.level

    def stop(self) -> None:
        """End the processes; what is under way is not kept."""
        self._stopping = True
        for forker in self._started:
            forker.stop()

    def entry(self, submission: Submission) -> Entry:
        """The entry of one submission, whatever it makes of the grader itself."""
        try:
            return self.grade(submission)
        except (InputError, MasterError):
            raise
        except Exception as error:  # so that nobody else waits for it
            trouble = f"the grader could not deal with it ({type(error).__name__}: {short(str(error), 150)})"
            return self.grade(Submission(submission.student, submission.file, submission.sha, trouble=trouble))

    def grade(self, submission: Submission) -> Entry:
        """The entry of one submission: the one that is kept, if there is one of the same bytes, master, seed and code."""
        blank = Entry(submission.student, submission.file, 0.0, self.master.points, LEVELS[self.level], submission.trouble)
        blank.notes = list(submission.notes)
        if submission.trouble:
            blank.checks = [Checked(h.name, h.points, reason=submission.trouble) for h in self.master.hidden]
            return blank
        if (found := self._read(submission)) is not None:
            return Entry.of({**found, "student": submission.student, "file": submission.file})
        for hidden in self.master.hidden:
            checked, notes = self.check(hidden, submission)
            blank.checks.append(checked)
            blank.notes += [n for n in notes if n not in blank.notes]
        blank.score = round(sum(c.score for c in blank.checks), 4)
        blank.seconds = round(sum(c.seconds for c in blank.checks), 3)
        if self._stopping:
            raise InputError("stopped")
        if not any(c.reason.startswith(ACCIDENTS) for c in blank.checks):
            self._write(submission, blank)
        return blank

    def check(self, hidden: Hidden, submission: Submission) -> tuple[Checked, list[str]]:
        """One hidden check: ask, in a process of its own for every round, and judge here."""
        seed, picked = self.seed_of(hidden), submission.needed(hidden.asks_for)
        source = submission.definitions(hidden.asks_for)
        checked, notes, answers = Checked(hidden.name, hidden.points), list[str](), list[dict[str, Any]]()
        try:
            for given in self._rounds(hidden, seed, answers):
                outcome = self._ask(hidden, submission, picked, seed, given)
                notes += [n for n in outcome.notes if n not in notes]
                checked.seconds += outcome.seconds
                checked.printed = checked.printed or outcome.printed
                if outcome.answers is None:
                    raise InputError(outcome.reason)
                answers.append(outcome.answers | {"source": source})
            self._judge(hidden, seed, answers if hidden.gives == 2 else answers[0], checked)
        except InputError as error:
            checked.reason = _why(str(error), submission, picked, hidden.asks_for)
        checked.seconds = round(checked.seconds, 3)
        return checked, notes

    def seed_of(self, hidden: Hidden) -> int:
        """The seed of one hidden check, from which no other follows."""
        return int(hashlib.sha256(f"{self.seed}/{hidden.name}".encode()).hexdigest(), 16) % SEEDS

    def _rounds(self, hidden: Hidden, seed: int, answers: list[dict[str, Any]]) -> Iterable[dict[str, Any] | None]:
        """What each round is given; `answers` grows in between."""
        if not hidden.gives:
            yield None
        elif hidden.gives == 1:
            yield self._call(hidden, "give", seed)
        else:
            for _ in range(ROUNDS):
                given = self._call(hidden, "give", seed, answers)
                if given is None:
                    return
                yield given

    def _ask(
        self, hidden: Hidden, submission: Submission, picked: list[Statement], seed: int, given: dict[str, Any] | None
    ) -> Outcome:
        if self._stopping:
            raise InputError("stopped")
        used = {s.cell for s in picked}
        words = {
            "seed": 0 if given is not None else seed, "given": given is not None, "asking": hidden.asking,
            "cells": {str(n): source for n, source in submission.sources.items() if n in used},
            "picked": [[s.cell, s.index] for s in picked],
        }  # fmt: skip
        outcome = self._run(wire.pack(words, given or {}))
        if outcome.reason.startswith(ACCIDENTS) and not self._stopping:  # once more, lest a student pay for an accident
            outcome = self._run(wire.pack(words, given or {}))
        return outcome

    def _run(self, job: bytes) -> Outcome:
        """What comes of one job; a reason, too, where there is no process that could run it within the walls that it needs."""
        try:
            with self.forker() as forker:
                return forker.run(job, self.limits)
        except (GraderError, OSError) as error:
            return Outcome(reason=f"{MACHINE}: {error}; grade once more")

    def _judge(self, hidden: Hidden, seed: int, answers: Any, checked: Checked) -> None:
        said = [verdict(v) for v in self._call(hidden, "judge", answers, seed)]
        if not said:
            raise InputError("the judge said nothing")
        checked.criteria = [asdict(v) for v in said]
        checked.score = round(hidden.points * sum(v.share for v in said) / len(said), 4)

    def _call(self, hidden: Hidden, name: str, *args: Any) -> Any:
        """`give` or `judge` of a hidden cell. Whatever a strange answer makes of it counts as no answer."""
        with self._lock:
            if hidden.name not in self._names:
                self._names[hidden.name] = self._executed(hidden)
            try:
                return at_most(JUDGING, self._names[hidden.name][name], *args)
            except InputError:
                raise
            except Exception as error:
                kind = type(error).__name__
                raise InputError(f"its answers could not be judged ({kind}: {short(str(error), 150)})") from None

    def _executed(self, hidden: Hidden) -> dict[str, Any]:
        """The names of a hidden cell, and of what it needs of the master's solution."""
        body, _ = cells.statements(self.master.solution_cells())
        tree = ast.parse(hidden.source)
        module = types.ModuleType(f"master_{hidden.number}")
        sys.modules[module.__name__] = module
        picked = [s.node for s in cells.needed(body, {n for node in tree.body for n in cells.globals_of(node)})]
        code = ast.Module([*picked, *tree.body], [])
        try:
            with contextlib.redirect_stdout(sys.stderr):
                exec(compile(code, f"{self.master.path.parent.name}, # HIDDEN {hidden.name}", "exec"), vars(module))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise MasterError(f"{self.master.path}: cell {hidden.number}, # HIDDEN {hidden.name}: {what}") from error
        return vars(module)

    def _file(self, submission: Submission) -> Path | None:
        if self.kept is None:
            return None
        suffix = Path(submission.file).suffix.lower()
        preset = os.environ.get("CLBOOK_PRESET", "")
        parts = [submission.sha, suffix, self.sha, self.seed, self.code, self.level, preset, *VERSIONS]
        return self.kept / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.json"

    def _read(self, submission: Submission) -> dict[str, Any] | None:
        file = self._file(submission)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if file is not None:
                found = json.loads(file.read_text(encoding="utf-8"))
                Entry.of(found)
                return found
        return None

    def _write(self, submission: Submission, entry: Entry) -> None:
        if (file := self._file(submission)) is not None:
            replace(file, json.dumps(asdict(entry), indent=1))


class TooLong(BaseException):
    """Raised in the midst of a function whose time is up; no `except Exception` holds it."""


def at_most(seconds: float, function: Callable[..., Any], *args: Any) -> Any:
    """What the function returns. Raises InputError where it has not returned after so many seconds on the clock.

    It is ended between two steps of Python: one long step, such as a product of large matrices, is waited for.
    """
    thread, lock, over = ctypes.c_ulong(threading.get_ident()), threading.Lock(), list[bool]()

    def end() -> None:
        with lock:
            if not over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TooLong))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    try:
        try:
            timer.start()
            return function(*args)
        finally:
            with lock:
                over.append(True)
            timer.cancel()
    except TooLong:
        raise InputError(f"its answers could not be judged within {seconds:g} seconds") from None


def _why(reason: str, submission: Submission, picked: list[Statement], names: tuple[str, ...]) -> str:
    """Why a check has no answer, in the words that help most."""
    if empty := unwritten(picked, names):
        return f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} not written yet"
    lacking = [n for n in names if reason == f"there is no {n} in what was handed in"]
    return reason + submission.instead(lacking[0]) if lacking else reason


def unwritten(body: list[Statement], names: tuple[str, ...]) -> list[str]:
    """The functions among these names that still do nothing but `...`."""
    last = {s.node.name: s.node for s in body if isinstance(s.node, ast.FunctionDef)}
    left = {n: f.body[1:] if ast.get_docstring(f) is not None else f.body for n, f in last.items() if n in names}
    return [n for n, rest in left.items() if all(ast.unparse(line) in ("...", "pass") for line in rest)]


def grade_folder(
    folder: Path, master: Master, out: Path, *, seed: int | None = None, workers: int = 2, trust: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Grades:  # fmt: skip
    """Grade all that lies in `folder`, `workers` at a time, and keep each result in `out` at once.

    The master's own solution is graded first and must get all points. Raises InputError where it does not, where nothing was
    handed in, and where this machine offers no sandbox and `trust` is not said.
    """
    if sys.platform == "win32":
        raise InputError("clbook grade needs a system that can fork: Linux (the strongest walls), WSL on Windows, or macOS")
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    submissions, left_out = collect(folder)
    _apart(folder, master.path)
    if out.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{out} lies in {folder}, where it would be taken for something handed in; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    grader = Grader(master, _seed(out, seed), out / "kept")
    try:
        level = grader.level
        if level < 2 and not trust:
            raise InputError(
                f"this machine offers no sandbox ({LEVELS[level]}). Linux from 5.13 on has one, unless a container forbids it. "
                "If you have read the submissions and trust them: --trust-submissions"
            )
        tell(LEVELS[level])
        _own_solution(grader)
        entries = _all(grader, submissions, workers, tell)
    finally:
        grader.stop()
    return Grades(master.name, master.title, master.points, grader.seed, LEVELS[level], entries, left_out)


def _all(grader: Grader, submissions: list[Submission], workers: int, tell: Callable[[str], None]) -> list[Entry]:
    found: dict[int, Entry] = {}
    pool = ThreadPoolExecutor(workers)
    try:
        waiting = {pool.submit(grader.entry, s): i for i, s in enumerate(submissions)}
        for done in as_completed(waiting):
            entry = found[waiting[done]] = done.result()
            tell(f"{len(found)}/{len(submissions)}  {entry.student}: {tenths(entry.score)} of {tenths(entry.points)}")
    except BaseException:
        grader.stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [found[i] for i in range(len(submissions))]


def _own_solution(grader: Grader) -> None:
    """Raise InputError where the master's own solution does not get all points."""
    master = grader.master
    own = Submission.from_cells("the master's solution", "solution.ipynb", f"solution of {grader.sha}", master.solution_cells())
    for checked in grader.grade(own).checks:
        if checked.reason.startswith(MACHINE):
            raise GraderError(f"the master's own solution could not be run: {checked.reason}")
        if checked.score < checked.points:
            missing = [f"{c['criterion']}: {c['message']}" for c in checked.criteria if c["share"] < 1]
            why = checked.reason or "; ".join(missing)
            raise InputError(
                f"{master.path}: the master's own solution gets {checked.score:g} of {checked.points:g} at "
                f"'# HIDDEN {checked.name}' ({why}). Mend the master before anybody is graded with it"
            )


def _apart(folder: Path, master: Path) -> None:
    """Raise InputError where submissions or the master lie in a folder that every submission may read."""
    for path in (folder.resolve(), master.resolve()):
        for place in sandbox.readable():
            if path.is_relative_to(place):
                raise InputError(f"{path} lies in {place}, which every submission may read; put it elsewhere")


def _seed(out: Path, given: int | None) -> int:
    """The seed that was given, the one that was drawn before, or a new one that nobody can guess."""
    file = out / "seed.json"
    if given is None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads(file.read_text())["seed"])
    seed = secrets.randbits(62) if given is None else given
    replace(file, json.dumps({"seed": seed}))
    return seed
