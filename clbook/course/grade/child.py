"""The process that runs what a student wrote. Nobody trusts it: it holds no expected value, and what it says is only data.

It gets the code cells, which of their statements are needed, what is to be asked, and a seed or what the teacher's process
gives; it sends one message back. Whoever reads the message compares, and ends this process as soon as it has come.
"""

from __future__ import annotations

import ast
import contextlib
import linecache
import os
import random
import re
import sys
import traceback
import types
from typing import Any

import numpy as np
import torch

from clbook.checks import InputError
from clbook.course import cells
from clbook.course.grade import wire

ANSWERS = 3  # the file descriptor that the message goes to
MESSAGE = 600
HINTS = {
    "^PermissionError": "what is graded reads no files of others, starts no program and has no network",
    "^FileNotFoundError": "what is graded has no file beside it",
    "doesn't have storage": "NumPy cannot look into a tensor whose gradient is taken: write it with torch",
    "requires grad is being used in an in-place": "return a new tensor, and change nothing that was given",
}


class NotDefined(AttributeError):
    """Something that is asked for and not there."""


class Student:
    """The student's definitions, as student.NAME or student["NAME"]."""

    def __init__(self, names: dict[str, Any], troubles: list[str]) -> None:
        self.__dict__.update(_names=names, _troubles=troubles)

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            why = f" ({'; '.join(self._troubles[:3])})" if self._troubles else ""
            raise NotDefined(f"there is no {name} in what was handed in{why}")
        return self._names[name]

    __getitem__ = __getattr__


def answer(job: bytes) -> None:
    """Run the statements, ask, and send what is answered."""
    words, given = wire.unpack(job)
    notes: list[str] = []
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        _seed(words["seed"])
        names = run(words["cells"], words["picked"], notes)
        asking = _module("asking")
        exec(compile(words["asking"], "the check", "exec", dont_inherit=True), asking)
        answers = asking["ask"](Student(names, notes), given if words["given"] else words["seed"])
        if not isinstance(answers, dict):
            raise TypeError(f"ask returned {type(answers).__name__} and no dict")
        message = wire.pack({"notes": notes}, answers)
    except BaseException as error:  # whatever a student's code may raise
        message = wire.pack({"notes": notes, "error": told(error)}, {})
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    while message:
        message = message[os.write(ANSWERS, message) :]


def run(sources: dict[str, str], picked: list[list[int]], notes: list[str]) -> dict[str, Any]:
    """The names that the picked statements leave: each is run on its own, and one that raises does not keep the next from it.

    What needs a name that a later cell defines is tried again at the end, as long as that brings one more to its end. What
    failed is noted, but not what failed because of it.
    """
    names, bodies = _module("submission"), dict[str, list[ast.stmt]]()
    for number, source in sources.items():
        plain = cells.plain(source)[0]
        bodies[number] = ast.parse(plain).body
        file = f"cell {number}"
        linecache.cache[file] = (len(plain), None, plain.splitlines(keepends=True), file)
    flags = _futures(bodies)
    waiting, failed = [(str(c), i) for c, i in picked], dict[tuple[str, int], str]()
    while waiting:
        before = len(waiting)
        for cell, i in waiting:
            failed.pop((cell, i), None)
            try:
                one = ast.Module([bodies[cell][i]], [])
                exec(compile(one, f"cell {cell}", "exec", flags=flags, dont_inherit=True), names)
            except (NameError, Exception) as error:
                failed[cell, i] = told(error, cell)
            except BaseException as error:
                failed[cell, i] = f"{told(error, cell)} (ignored)"
        again = [at for at in waiting if "NameError" in failed.get(at, "")]
        waiting = again if len(again) < before else []
    notes.extend(_causes({said: cells.bound(bodies[c][i]) for (c, i), said in failed.items()}))
    return names


def _causes(failed: dict[str, set[str]]) -> list[str]:
    """What is said of statements that failed, by the names that each was to bind: without those that lacked such a name."""
    lost = set().union(*failed.values())
    lacks = {said: re.search(r"NameError: name '(\w+)' is not defined", said) for said in failed}
    return [said for said, name in lacks.items() if not (name and name[1] in lost)] or list(failed)[:1]


def told(error: BaseException, cell: str = "") -> str:
    """An error with the innermost line of the notebook that it came through, such as: cell 3, line 5: ValueError: ..."""
    found = _in_cells(error)
    where = f"{found[-1].filename}, line {found[-1].lineno}" if found else f"cell {cell}" if cell else ""
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = "(an error that cannot be shown)"
    kind = type(error).__name__
    line = text if isinstance(error, NotDefined | InputError) else f"{kind}: {text}" if text else kind
    if isinstance(error, InputError):  # what PyTorch says of vmap is about PyTorch, and the sentence before it is for students
        line = re.sub(r" PyTorch says: (?=.*(vmap|functorch)).*", "", line)
    hints = [hint for words, hint in HINTS.items() if re.search(words, line)]
    line = f"{line.rstrip('.')} ({hints[0]})" if hints else line
    return f"{where}: {line}"[:MESSAGE] if where else line[:MESSAGE]


def _in_cells(error: BaseException | None) -> list[traceback.FrameSummary]:
    """The lines of the notebook that an error came through, or else that what caused it came through."""
    found: list[traceback.FrameSummary] = []
    for _ in range(10):  # who raised it may have closed the chain to a ring
        if error is not None and not found:
            found = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("cell ")]
            error = error.__cause__
    return found


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    return vars(module)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (students use it)
    random.seed(seed)


def _futures(bodies: dict[str, list[ast.stmt]]) -> int:
    """The flags of `from __future__ import ...` of any cell, which count for all of them."""
    import __future__

    nodes = [n for body in bodies.values() for n in body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    found = 0
    for name in (a.name for n in nodes for a in n.names):
        found |= getattr(getattr(__future__, name, None), "compiler_flag", 0)
    return found
