"""The command line: `clbook run` and the others that `clbook --help` lists; also `python -m clbook`.

What the options are stands in `options`, what the commands do in `commands`; here an error becomes one line and a status.
Book: book/about, "How to run it".
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clbook.checks import InputError
from clbook.course.grade import GraderError, MasterError
from clbook.data import DataError
from clbook.lab.commands import (
    check_command,
    grade_command,
    handout_command,
    leaderboard_command,
    list_command,
    reproduce_command,
    run_command,
    sweep_command,
)
from clbook.lab.options import Check, Grade, Handout, Leaderboard, List, Reproduce, Sweep, parse
from clbook.lab.work import SweepError
from clbook.loop import DivergedError

FAILED, INPUT, BUG, STOPPED = 1, 2, 70, 130  # exit status
PACKAGE = Path(__file__).resolve().parents[1]
ISSUES = "https://github.com/clbook/clbook/issues"


def main(args: Sequence[str] | None = None) -> int:
    """The command `clbook`: 0 when all went well; otherwise one line on stderr and another status.

    2: something was given that cannot be used, or a file cannot be read or written. 1: a run or a part of a sweep failed, or
    `check` found a fault.
    70: clbook is wrong, and CLBOOK_DEBUG=1 shows where. 130: stopped from the keyboard.
    """
    try:
        options = parse(sys.argv[1:] if args is None else list(args))
        commands: dict[type, Callable[[Any], int | None]] = {
            Reproduce: reproduce_command,
            Sweep: sweep_command,
            Check: check_command,
            Handout: handout_command,
            Grade: grade_command,
            Leaderboard: leaderboard_command,
            List: list_command,
        }
        return commands.get(type(options), run_command)(options) or 0
    except (InputError, MasterError, DataError, OSError) as error:
        return _complain(f"error: {error}", INPUT)
    except (DivergedError, SweepError, GraderError) as error:
        return _complain(f"error: {error}", FAILED)
    except KeyboardInterrupt:
        return _complain("stopped; the same command goes on where it was, and run does so with --checkpoint", STOPPED)
    except Exception as error:  # no mistake of the user's, so it must not read like one
        return _complain(_bug(error), BUG)


def _bug(error: Exception) -> str:
    """What to say of an error that should not have happened: what and where it is, and to whom to report it."""
    if os.environ.get("CLBOOK_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    kind = f"{type(error).__name__} at {_where(error)}: {error}"
    return f"this is a bug in clbook, please report it at {ISSUES} ({kind}). CLBOOK_DEBUG=1 shows the traceback"


def _where(error: Exception) -> str:
    """The innermost line of the package that an error came through, such as clbook/loop.py:88."""
    frames = [(Path(f.filename).resolve(), f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    file, line = [(file, line) for file, line in frames if file.is_relative_to(PACKAGE)][-1]
    return f"{file.relative_to(PACKAGE.parent)}:{line}"


def _complain(text: str, status: int) -> int:
    print(f"clbook: {' '.join(text.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
