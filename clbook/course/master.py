"""One notebook that holds an assignment whole: stub, solution, checks that students see and checks that they do not.

The student's version and the solution are made from it, so they cannot drift. What is what is said by comments of their own
lines, exactly as written here:

    # BEGIN SOLUTION, # END SOLUTION      the lines between are the solution; in markdown <!-- BEGIN SOLUTION -->
    # BEGIN STUB, # END STUB              right after it: what students get in its place, each line behind "# "
    # CHECK name                          first line of a cell: asserts that students see
    # HIDDEN name: 3 points               first line of a cell: it never leaves the master

A hidden cell defines `ask(student, seed)`, which runs beside the student's definitions (`student.NAME` or `student["NAME"]`)
in a process that has the imports of the master and this cell without `judge`, but no answer, and returns a dict of arrays and
numbers; and `judge(answers, seed)`, which runs with the teacher, may use what the master's solution defines, and returns a list
of (criterion, share of the points between 0 and 1, message). It may also define `give(seed)`: then `ask(student, given)` gets
what that returns, and not the seed. `give(seed, earlier)` is asked again, with the list of answers so far, until it returns
None; each time a new process is asked, and `judge` gets the list. What is given and answered are dicts of arrays and numbers.
Book: book/grading.
"""

from __future__ import annotations

import ast
import builtins
import copy
import io
import json
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clbook.checks import InputError, check
from clbook.course import cells
from clbook.course.cells import Cell, source_of

MARK = re.compile(r"^(\s*)# (BEGIN|END) (SOLUTION|STUB)\s*$")
MARK_TEXT = re.compile(r"^(\s*)<!-- (BEGIN|END) (SOLUTION|STUB) -->\s*$")
# what somebody who means a marker may write
ALIKE = re.compile(r"(?i)\b(begin|end)[\W_]*(solution|stub)|(?-i:^\s*(#|<!--)\W*(BEGIN|END)\b)")
CHECK = re.compile(r"^# CHECK (\w[\w ,.'()-]*)$")
CHECK_ALIKE = re.compile(r"^\s*#\W*CHECK\b")
HIDDEN = re.compile(r"^# HIDDEN (\w[\w ,.'()-]*): (\d+(?:\.\d+)?) points?$")
HIDDEN_ALIKE = re.compile(r"(?i)^\s*#\W*hidden\b")
LEFT = re.compile(r"(?i)solution|\bhidden\b(?![\s_-]*(layer|unit|size|width|state|=))")
OWN_PLACE = "...  # your code"
OWN_WORDS = "*Your answer:*"


@dataclass(frozen=True)
class Hidden:
    """A hidden cell: what it is called, how many points it is worth, where it stands and its source."""

    name: str
    points: float
    number: int
    source: str
    imports: str = ""

    @property
    def functions(self) -> dict[str, ast.FunctionDef]:
        return {n.name: n for n in ast.parse(self.source).body if isinstance(n, ast.FunctionDef)}

    @property
    def gives(self) -> int:
        """How many arguments its `give` has, 0 where there is none."""
        give = self.functions.get("give")
        return 0 if give is None else len(give.args.args)

    @property
    def asking(self) -> str:
        """The part that goes to the student's process: `ask` and what it needs, never `judge`."""
        return "\n".join(ast.unparse(s.node) for s in self._asking)

    @property
    def asks_for(self) -> tuple[str, ...]:
        """The names of the student's definitions that `ask` uses."""
        found = (_asked(n) for s in self._asking for n in ast.walk(s.node))
        return tuple(dict.fromkeys(name for name in found if name))

    @property
    def _asking(self) -> list[cells.Statement]:
        body, _ = cells.statements([Cell(0, self.imports), Cell(self.number, self.source)])
        return cells.needed(body, ["ask"])


@dataclass(frozen=True)
class Master:
    """A master notebook: its assignment's name and title, what a check may use, and its cells.

    `seconds` and `memory_mb` are what each hidden check of a submission may take: its wall time, and its memory beyond what
    PyTorch takes by itself.
    """

    path: Path
    name: str
    title: str
    seconds: float
    memory_mb: int
    stored: dict[str, Any]
    hidden: tuple[Hidden, ...]
    checks: tuple[str, ...]

    @property
    def points(self) -> float:
        return sum(h.points for h in self.hidden)

    @property
    def imports(self) -> str:
        """The imports of all cells, as they stand."""
        return "\n".join(dict.fromkeys(h.imports for h in self.hidden))

    def solution_cells(self) -> list[Cell]:
        """The code of the solution without any check."""
        made = version(self, solution=True)["cells"]
        return [Cell(n, source_of(c)) for n, c in enumerate(made, 1) if c["cell_type"] == "code" and not is_check(source_of(c))]


def read(path: Path) -> Master:
    """The master notebook at this path, or in this folder. Raises InputError that quotes the line for anything malformed."""
    path = path / "master.ipynb" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"there is no master notebook {str(path)!r}; give the folder that holds master.ipynb")
    try:
        stored = cells.notebook(path.read_text(encoding="utf-8"))
        said = _metadata(stored)
        imports = _imports(stored)
        hidden = tuple(
            _hidden(n, source, imports) for n, kind, source in _sources(stored) if kind == "code" and _is_hidden(n, source)
        )
        checks = tuple(name for n, kind, source in _sources(stored) if kind == "code" and (name := _check_name(n, source)))
        if not hidden:
            raise InputError("it has no hidden check: a cell that begins with a line such as '# HIDDEN penalty: 3 points'")
        _once([h.name for h in hidden], "HIDDEN")
        _once(list(checks), "CHECK")
        found = Master(path, said["assignment"], _title(stored), said["seconds"], said["memory_mb"], stored, hidden, checks)
        for solution in (False, True):
            version(found, solution)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return found


def handout(master: Master, folder: Path, solution: bool = False) -> list[Path]:
    """Write student.ipynb, and solution.ipynb where that is asked for. Raises InputError where something would leak."""
    wanted = {"student.ipynb": False} | ({"solution.ipynb": True} if solution else {})
    made = {folder / name: version(master, which) for name, which in wanted.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for path, stored in made.items():
        path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return list(made)


def version(master: Master, solution: bool) -> dict[str, Any]:
    """The notebook as students get it, or its solution: no hidden cell, no output, no metadata that says what a cell was."""
    made = []
    for (number, kind, source), cell in zip(_sources(master.stored), master.stored["cells"], strict=True):
        if kind == "code" and _is_hidden(number, source):
            continue
        text = "\n".join(_cut(number, kind, source, solution)).strip("\n")
        if not text.strip() and source.strip():
            continue
        if kind == "code":
            _look(number, text, solution)
        kept = {k: copy.deepcopy(v) for k, v in cell.items() if k in ("cell_type", "id", "attachments")}
        extra: dict[str, Any] = {"outputs": [], "execution_count": None} if kind == "code" else {}
        made.append(kept | {"metadata": {}, "source": text.splitlines(keepends=True)} | extra)
    about = {k: v for k, v in master.stored["metadata"].items() if k in ("kernelspec", "language_info")}
    about["clbook"] = {"assignment": master.name}
    return {"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": master.stored.get("nbformat_minor", 5)}


def is_check(source: str) -> bool:
    """Whether a cell is a check that students see. In a submission it is the student's to change, so it does not count."""
    return bool(CHECK_ALIKE.match(_first(source)))


# what the cells are -----------------------------------------------------------------------------------------------------------


def _sources(stored: dict[str, Any]) -> Iterator[tuple[int, str, str]]:
    for number, cell in enumerate(stored["cells"], 1):
        yield number, str(cell.get("cell_type")), source_of(cell)


def _first(source: str) -> str:
    return source.split("\n", 1)[0].rstrip()


def _metadata(stored: dict[str, Any]) -> dict[str, Any]:
    said = stored.get("metadata", {}).get("clbook")
    example = '{"assignment": "springs", "seconds": 60, "memory_mb": 1024}'
    if not isinstance(said, dict) or set(said) != {"assignment", "seconds", "memory_mb"}:
        raise InputError(f"the notebook's metadata must have a key clbook such as {example}, got {said!r}")
    check(said["assignment"], str, "assignment")
    for name in ("seconds", "memory_mb"):
        if not isinstance(said[name], int | float) or isinstance(said[name], bool) or not 0 < said[name] < 10**6:
            raise InputError(f"{name} in the notebook's metadata must be a number above 0, got {said[name]!r}")
    return said


def _title(stored: dict[str, Any]) -> str:
    number, kind, source = next(_sources(stored), (1, "", ""))
    if kind != "markdown" or not _first(source).startswith("# "):
        raise InputError(f"cell {number} must be the title in markdown, such as '# Springs by hand', got {_first(source)!r}")
    return _first(source)[2:].strip()


def _is_hidden(number: int, source: str) -> bool:
    first, *rest = source.split("\n")
    if HIDDEN.match(first.rstrip()):
        return True
    for line in (first, *rest):
        if HIDDEN_ALIKE.match(line):
            raise _wrong(number, line, "a hidden cell begins with a line such as '# HIDDEN penalty: 3 points', exactly")
    return False


def _check_name(number: int, source: str) -> str:
    first = _first(source)
    found = CHECK.match(first)
    if not found and CHECK_ALIKE.match(first):
        raise _wrong(number, first, "a visible check begins with a line such as '# CHECK penalty', exactly")
    return found[1] if found else ""


def _hidden(number: int, source: str, imports: str) -> Hidden:
    """The hidden cell, once it is known to be one that can be asked and judged."""
    said = HIDDEN.match(_first(source))
    assert said is not None
    try:
        cells.parse(source)
    except InputError as error:
        raise InputError(f"cell {number}: {error}") from None
    found = Hidden(said[1], float(said[2]), number, source, imports)
    second = "given" if "give" in found.functions else "seed"
    wanted = {"ask": ["student", second], "judge": ["answers", "seed"]}
    for name, arguments in wanted.items():
        got = found.functions.get(name)
        if got is None or [a.arg for a in got.args.args] != arguments:
            raise _wrong(number, _first(source), f"it must define {name}({', '.join(arguments)})")
    if "give" in found.functions and found.gives not in (1, 2):
        raise _wrong(number, _first(source), "give takes (seed), or (seed, earlier) where it is asked again")
    _ask_alone(found)
    return found


def _ask_alone(hidden: Hidden) -> None:
    """Raise InputError where `ask` needs something that its process does not have."""
    tree = ast.parse(hidden.asking)
    own = {name for node in tree.body for name in cells.bound(node)}
    missing = {n for node in tree.body for n in cells.globals_of(node)} - own - set(dir(builtins))
    if missing:
        raise _wrong(
            hidden.number, f"ask uses {', '.join(sorted(missing))}", "the process that is asked has the imports of the master "
            "and none of its definitions: define in this cell what ask needs",
        )  # fmt: skip
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if _is_student(child) and not _asked(node):
                raise _wrong(hidden.number, ast.unparse(node), "write student.NAME: what is asked for must stand in the cell")


def _asked(node: ast.AST) -> str:
    """The NAME of student.NAME or student["NAME"], nothing for anything else."""
    if isinstance(node, ast.Attribute) and _is_student(node.value):
        return node.attr
    if isinstance(node, ast.Subscript) and _is_student(node.value) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return ""


def _is_student(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "student"


def _imports(stored: dict[str, Any]) -> str:
    """The imports of all cells that students see, as they stand."""
    found, _ = cells.statements(
        Cell(n, text) for n, kind, text in _sources(stored) if kind == "code" and not _is_hidden(n, text)
    )
    nodes = [n for s in found for n in ast.walk(s.node) if isinstance(n, ast.Import | ast.ImportFrom)]
    nodes = [n for n in nodes if not (isinstance(n, ast.ImportFrom) and n.module == "__future__")]
    return "\n".join(dict.fromkeys(map(ast.unparse, nodes)))


def _once(names: list[str], marker: str) -> None:
    if twice := [n for n in names if names.count(n) > 1]:
        raise InputError(f"two cells are called '# {marker} {twice[0]}'; each needs a name of its own")


# cutting ----------------------------------------------------------------------------------------------------------------------


def _cut(number: int, kind: str, source: str, solution: bool) -> Iterator[str]:
    """The lines of one version. Raises InputError for markers that do not pair, and for what looks like one."""
    mark, inside, place = (MARK if kind == "code" else MARK_TEXT), "", ""
    after = False  # a solution has just ended, and its place is still to be filled
    for line in source.split("\n"):
        found = mark.match(line) if kind in ("code", "markdown") else None
        if found is None and ALIKE.search(line):
            raise _wrong(number, line, f"a marker is exactly '{'# BEGIN SOLUTION' if kind == 'code' else MARKDOWN}'")
        if found is None:
            if inside == "SOLUTION":
                yield from [line] if solution else []
            elif inside == "STUB":
                yield from [] if solution else [_uncommented(number, line) if kind == "code" else line]
            else:
                if after and line.strip():
                    yield from [] if solution else [place]
                    after = False
                yield line
            continue
        space, which, what = found.groups()
        allowed = {"BEGIN SOLUTION": inside == "", "END SOLUTION": inside == "SOLUTION",
                   "BEGIN STUB": inside == "" and after, "END STUB": inside == "STUB"}  # fmt: skip
        if not allowed[f"{which} {what}"]:
            raise _wrong(number, line, "every BEGIN needs its END, and a STUB follows right after a SOLUTION")
        if which == "BEGIN" and what == "SOLUTION":
            yield from [place] if after and not solution else []
            place = space + (OWN_PLACE if kind == "code" else OWN_WORDS)
        after = which == "END" and what == "SOLUTION"
        inside = what if which == "BEGIN" else ""
    if inside:
        raise _wrong(number, _first(source), f"BEGIN {inside} has no END {inside}")
    yield from [place] if after and not solution else []


MARKDOWN = "<!-- BEGIN SOLUTION -->"


def _uncommented(number: int, line: str) -> str:
    found = re.match(r"^(\s*)#(?: (.*))?$", line)
    if found is None and line.strip():
        raise _wrong(number, line, "each line of a STUB stands behind '# '")
    return f"{found[1]}{found[2] or ''}".rstrip() if found else ""


def _look(number: int, text: str, solution: bool) -> None:
    """Raise InputError where a cell of a version is no Python, or where a student's cell still says too much."""
    source, _ = cells.plain(text)
    try:
        cells.parse(source)
    except InputError as error:
        which = "solution" if solution else "student's version"
        raise InputError(f"cell {number} of the {which} is not valid, {error}") from None
    if solution:
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        left = LEFT.search(token.string)
        if left and (token.type in (tokenize.COMMENT, tokenize.STRING) or "solution" in token.string.lower()):
            line = next((part for part in token.string.split("\n") if LEFT.search(part)), token.string)
            raise _wrong(number, line, f"the word {left[0]!r} is left in the student's version; write something else")


def _wrong(number: int, line: str, why: str) -> InputError:
    return InputError(f"cell {number}, {line.strip()[:100]!r}: {why}")
