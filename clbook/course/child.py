"""A reader's file, run in a process of its own: whatever it does, the command answers in time and in words.

The file is run as it stands, with the rights of whoever calls: this guards against mistakes, not against malice.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import warnings
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from clbook.checks import InputError
from clbook.course.check import Report, check_module, short_line, where

START = 120  # seconds that a process may take to load PyTorch


def check_file(path: str | os.PathLike[str], *, only: tuple[str, ...] = (), limit: float = 20.0) -> Report:
    """Look at all that a file holds. What it prints goes to stderr. Raises InputError where there is no such file.

    A file that cannot be read or run, that ends the process or takes longer than `limit` seconds gives a Report that says so.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    if limit <= 0:
        raise InputError(f"limit must be a number of seconds above 0, got {limit}")
    # a fork has PyTorch at once; where a fork is not safe it is loaded anew
    safe = sys.platform == "linux" and not torch.cuda.is_initialized()
    context: Any = multiprocessing.get_context("fork" if safe else "spawn")
    here, there = context.Pipe(duplex=False)
    # not as a daemon, which may start no process: a reader's DataLoader may have workers
    process = context.Process(target=_child, args=(str(path), only, there))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of a fork beside threads: the child starts none and waits for none
        process.start()
    there.close()
    try:
        return _wait(path, process, here, limit)
    finally:
        process.kill()
        process.join()
        here.close()


def _wait(path: Path, process: Any, here: Connection, limit: float) -> Report:
    doing, end, given = "was started", time.monotonic() + START, float(START)
    while here.poll(max(0.0, end - time.monotonic())):
        try:
            kind, text = json.loads(here.recv_bytes(2**22))
        except (EOFError, OSError, ValueError):
            process.join(1)
            return Report(
                path.name, trouble=f"the file ended the process by itself while it {doing} (exit status {process.exitcode})"
            )
        if kind == "report":
            return Report.of(text)
        if doing == "was started":
            end, given = time.monotonic() + limit, limit
        doing = text
    return Report(path.name, trouble=f"it took longer than {given:g} seconds while it {doing}; is there a loop without an end?")


def _child(path: str, only: tuple[str, ...], there: Connection) -> None:
    torch.set_num_threads(1)
    say = lambda kind, what: there.send_bytes(json.dumps([kind, what]).encode())  # noqa: E731
    say("doing", "was being read")
    with redirect_stdout(sys.stderr):
        try:
            report = _look(Path(path), only, lambda what: say("doing", what))
        except SystemExit as stop:
            report = Report(Path(path).name, trouble=f"it calls exit{where(stop)}")
    say("report", report.data)


def _look(path: Path, only: tuple[str, ...], doing: Any) -> Report:
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        return Report(path.name, trouble=f"{path.name}{line}: {error.msg}: {(error.text or '').strip()}".rstrip(": "))
    except ValueError as error:
        return Report(path.name, trouble=f"it is no Python file: {error}")
    module = ModuleType("checked_" + "".join(c if c.isalnum() else "_" for c in path.stem))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.resolve().parent))
    sys.argv = [str(path)]
    try:
        exec(code, vars(module))
    except Exception as error:
        return Report(path.name, trouble=short_line(f"it stopped{where(error)}: {type(error).__name__}: {error}"))
    doing("was being checked")
    return check_module(module, path.name, only)
