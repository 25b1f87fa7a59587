"""What was handed in: one notebook or .py file for each student, or one folder for each. It is read as data, never trusted."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from clbook.checks import InputError
from clbook.course import cells, master
from clbook.course.cells import Cell, Statement

SUFFIXES = (".ipynb", ".py")
MOST = 2**25  # bytes of a notebook, its outputs included
LEFT_OUT = re.compile(r"cell (\d+) was left out")


@dataclass(frozen=True)
class Submission:
    """One student's work: who, which file, a digest of its bytes, its statements, and why it cannot be read, if it cannot."""

    student: str
    file: str
    sha: str = ""
    sources: dict[int, str] = field(default_factory=dict)
    body: tuple[Statement, ...] = ()
    notes: tuple[str, ...] = ()
    trouble: str = ""

    @classmethod
    def of(cls, student: str, file: str, content: bytes) -> Submission:
        """From the bytes of a file; what cannot be read becomes `trouble`."""
        sha = hashlib.sha256(content).hexdigest()
        try:
            text = content.decode("utf-8-sig")
            found = [c for c in cells.code_cells(text, Path(file).suffix.lower()) if not master.is_check(c.source)]
            if not any(c.source.strip() for c in found):
                return cls(student, file, sha, trouble="there is no code in it; was it saved before it was handed in?")
            return cls.from_cells(student, file, sha, found)
        except UnicodeDecodeError:
            return cls(student, file, sha, trouble="it is no text in UTF-8")
        except InputError as error:
            return cls(student, file, sha, trouble=str(error))
        except (RecursionError, MemoryError):
            return cls(student, file, sha, trouble="it is nested too deeply to be read")

    @classmethod
    def from_cells(cls, student: str, file: str, sha: str, found: list[Cell]) -> Submission:
        body, notes = cells.statements(found)
        return cls(student, file, sha, {c.number: c.source for c in found}, tuple(body), tuple(notes))

    def needed(self, names: tuple[str, ...]) -> list[Statement]:
        """The statements that these names need."""
        return cells.needed(list(self.body), names)

    def definitions(self, names: tuple[str, ...]) -> str:
        """What defines these names, as Python writes it anew."""
        return "\n".join(ast.unparse(s.node) for s in cells.needed(list(self.body), names, setters=False))

    def instead(self, name: str) -> str:
        """What may have become of a definition that is not there: a cell that was left out, or another name like it."""
        lost = [n for n in self.notes if (cell := LEFT_OUT.match(n)) and re.search(rf"\b{name}\b", self.sources[int(cell[1])])]
        own = {n for s in self.body if not isinstance(s.node, ast.Import | ast.ImportFrom) for n in cells.bound(s.node)}
        like = get_close_matches(name, own - {name}, n=1, cutoff=0.75)
        return f": {lost[0]}" if lost else f" (there is {like[0]})" if like else ""


def collect(folder: Path) -> tuple[list[Submission], list[str]]:
    """What lies in the folder, by student, and the names of what was left out. Raises InputError where there is nothing."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r}")
    found, left_out = [], []
    entries = sorted((e for e in os.scandir(folder) if not e.name.startswith((".", "__"))), key=lambda e: e.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            found.append(_of_folder(entry.name, Path(entry.path)))
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            found.append(_read(Path(entry.name).stem, Path(entry.path)))
        else:
            left_out.append(entry.name)
    if not found:
        raise InputError(f"{str(folder)!r} holds no .ipynb, no .py and no folder; give the folder with what was handed in")
    names = [s.student for s in found]
    twice = {n for n in names if names.count(n) > 1}
    return [Submission(**{**vars(s), "student": s.file}) if s.student in twice else s for s in found], left_out


def _of_folder(student: str, folder: Path) -> Submission:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    notebooks = [p for p in files if p.suffix.lower() == ".ipynb"]
    chosen = [p for p in files if p.stem == "student"] or notebooks or files
    if len(chosen) != 1:
        what = (
            f"{len(chosen)} files that could be it ({', '.join(p.name for p in chosen[:5])})"
            if chosen
            else "no .ipynb and no .py"
        )
        return Submission(student, student, trouble=f"the folder holds {what}; hand in one notebook")
    return _read(student, chosen[0], f"{student}/{chosen[0].name}")


def _read(student: str, path: Path, name: str | None = None) -> Submission:
    """The file's bytes, if it is a file: no link, which could lead anywhere, and nothing that could keep a reader waiting."""
    name = name or path.name
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as file:
            about = os.fstat(number)
            if not stat.S_ISREG(about.st_mode):
                return Submission(student, name, trouble="it is no file")
            if about.st_size > MOST:
                return Submission(
                    student, name, trouble=f"it has more than {MOST // 2**20} MB; clear the outputs and hand it in again"
                )
            content = file.read(MOST + 1)
    except OSError as error:
        why = "it is a link and no file" if path.is_symlink() else f"it cannot be read ({error.strerror})"
        return Submission(student, name, trouble=why)
    return Submission.of(student, name, content)


def shown(text: str, most: int = 200) -> str:
    """A name or a line that somebody else wrote, for a terminal: no control characters, not endless."""
    return re.sub(r"[^\S ]|[^\w\s!-~°-￯]", "?", text)[:most]
