"""`clbook check`: which mistake is this? A reader's code is run on small problems with known answers.

`check(function, kind="fisher")` looks at one function, class or Method, here and now; `check_file` at all that a file holds, in
a process of its own with a time limit. The result is a Report: text for people, `data` for programs. Book: book/check.
"""

from __future__ import annotations

import inspect
import math
import sysconfig
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from clbook.checks import InputError, short
from clbook.course.calling import CannotCheck, Subject
from clbook.course.kinds import KINDS, OF_NAME
from clbook.course.properties import Finding, Property, examine
from clbook.method import Method

RIGHT, FAULT, UNCHECKED = 0, 1, 2  # exit status
WIDTH = 84


@dataclass(frozen=True)
class Report:
    """What was found of everything that was looked at: each by its name, its kind and its line, with a Finding per property.

    `trouble` says why nothing could be looked at. `status`: 0 all right, 1 a fault, 2 something could not be checked.
    """

    source: str
    checked: tuple[tuple[str, str, int, tuple[Finding, ...]], ...] = ()
    trouble: str = ""

    @property
    def findings(self) -> list[Finding]:
        return [f for *_, findings in self.checked for f in findings]

    @property
    def faults(self) -> list[str]:
        """The names of the mistakes, such as "batched"; "unknown" where no known one fits."""
        return [f.fault or "unknown" for f in self.findings if f.verdict in ("fault", "unknown")]

    @property
    def status(self) -> int:
        if self.faults:
            return FAULT
        return UNCHECKED if self.trouble or any(f.verdict == "error" for f in self.findings) else RIGHT

    @property
    def data(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "source": self.source, "status": self.status, "trouble": self.trouble, "faults": self.faults,
            "checked": [
                {"name": name, "kind": kind, "line": line, "findings": [_plain(f) for f in findings]}
                for name, kind, line, findings in self.checked
            ],
        }  # fmt: skip

    @classmethod
    def of(cls, data: dict[str, Any]) -> Report:
        """From `data`."""
        read = lambda f: Finding(**{k: _number(tuple(v) if isinstance(v, list) else v) for k, v in f.items()})  # noqa: E731
        checked = tuple((c["name"], c["kind"], c["line"], tuple(map(read, c["findings"]))) for c in data["checked"])
        return cls(data["source"], checked, data["trouble"])

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    __repr__ = __str__  # what a notebook shows


def check(target: Any, kind: str | None = None, *, name: str | None = None, **declared: Any) -> Report:
    """Look at one function, class or Method: what it must do, which known mistake its numbers are, and what that means.

    `kind` is one of `clbook check --list`; it may be left out where the name says it. `declared` are conventions, such as
    estimator="empirical" or half=False; attributes of the function or class of these names are taken, too. Runs here, without a
    time limit. Raises InputError for an unknown kind or convention. Book: book/check.
    """
    name = str(name or getattr(target, "__name__", type(target).__name__))
    if kind is None:
        kind = "method" if _is_method(target) else OF_NAME.get(name)
    if kind is None or kind not in KINDS:
        raise InputError(f"unknown kind {short(kind)}: give kind=, one of {', '.join(KINDS)}")
    return Report(name, (_look(_subject(kind, name, target, declared)),))


def check_module(module: ModuleType, source: str, only: Sequence[str] = ()) -> Report:
    """Look at everything of a known name in a module; `only` are KIND:NAME pairs to look at in its place."""
    try:
        found = list(_asked(module, only)) if only else list(_known(module))
    except InputError as error:
        return Report(source, trouble=str(error))
    if not found:
        own = [n for n, v in vars(module).items() if not n.startswith("_") and _of(module, v)]
        names = ", ".join(n for k in KINDS.values() for n in k.names[:1])
        return Report(source, trouble=f"nothing in it has a name that is known here ({names}, or a clbook.Method); it has "
                      f"{', '.join(own) or 'no function of its own'}. Say which is what: --as fisher:NAME, see clbook "
                      f"check --list")  # fmt: skip
    checked = []
    for kind, name, target in found:
        try:
            checked.append(_look(_subject(kind, name, target, {})))
        except InputError as error:
            checked.append((name, kind, _line(target), (_error(KINDS[kind].properties[0], str(error)),)))
    return Report(source, tuple(checked))


# what there is to look at -----------------------------------------------------------------------------------------------------


def _known(module: ModuleType) -> Iterator[tuple[str, str, Any]]:
    """Kind, name and value of what a module defines under a known name; Methods as instances, or else their classes."""
    own = {n: v for n, v in vars(module).items() if not n.startswith("_")}
    instances = {n: v for n, v in own.items() if isinstance(v, Method)}
    classes = {n: v for n, v in own.items() if inspect.isclass(v) and issubclass(v, Method) and _of(module, v)}
    made = {type(v) for v in instances.values()}
    for name, value in own.items():
        if name in instances:
            yield "method", type(value).__name__, value
        elif (
            name in classes
            and value not in made
            and not any(issubclass(c, value) for c in made | set(classes.values()) - {value})
        ):
            yield "method", name, value
        elif name not in classes and name in OF_NAME and callable(value) and _of(module, value):
            yield OF_NAME[name], name, value


def _asked(module: ModuleType, only: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    for words in only:
        kind, _, name = words.partition(":")
        if kind not in KINDS or not name:
            raise InputError(f"--as takes KIND:NAME, with a kind of {', '.join(KINDS)}; got {words!r}")
        if not hasattr(module, name):
            own = [n for n, v in vars(module).items() if not n.startswith("_") and _of(module, v)]
            raise InputError(f"there is no {name!r} in it; it has {', '.join(own) or 'no function of its own'}")
        yield kind, name, getattr(module, name)


def _of(module: ModuleType, value: Any) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _is_method(target: Any) -> bool:
    return isinstance(target, Method) or (inspect.isclass(target) and issubclass(target, Method))


def _subject(kind: str, name: str, target: Any, declared: dict[str, Any]) -> Subject:
    """What is looked at. Raises InputError for an unknown convention, and for a method of which no instance can be made."""
    made = _instance(target) if kind == "method" else target
    return Subject(kind, name, made, _declared(target, kind, declared), _line(target))


def _instance(target: Any) -> Method:
    """A Method, made with lam=1 where it must be told a strength. Raises InputError where that is not enough."""
    if isinstance(target, Method):
        return target
    if not _is_method(target):
        raise CannotCheck(f"a method is a subclass of clbook.Method or an instance of one, got {short(target, 60)}")
    needs = [n for n, p in inspect.signature(target).parameters.items() if p.default is p.empty]
    if set(needs) - {"lam"}:
        raise CannotCheck(
            f"{target.__name__} must be told {', '.join(needs)}: write an instance into the file, method = "
            f"{target.__name__}(...)"
        )
    return target(**dict.fromkeys(needs, 1.0))


def conventions(kind: str) -> dict[str, list[Any]]:
    """What may be declared of this kind, and the values it may have; the first is the book's."""
    if kind == "method":
        return {}
    found = {c.name: [o.value for o in c.choices] for p in KINDS[kind].properties for c in p.conventions}
    return found | ({"mode": ["train", "eval"]} if any(p.id.endswith(".left") for p in KINDS[kind].properties) else {})


def _declared(target: Any, kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The conventions that were given or stand on the function or class. Raises InputError for values that there are not."""
    known = conventions(kind)
    names = [*known, "gamma"] if kind == "ewc" else list(known)
    if unknown := sorted(set(given) - set(names)):
        raise InputError(f"{kind} has no convention {unknown[0]!r}; it has {', '.join(names) or 'none'}")
    found = {n: getattr(target, n) for n in names if hasattr(target, n)} | given
    for name, value in found.items():
        if name in known and value not in known[name]:
            raise InputError(f"{name} must be {' or '.join(map(repr, known[name]))}, got {short(value)}")
    return found


def _line(target: Any) -> int:
    try:
        return inspect.getsourcelines(target)[1]
    except (OSError, TypeError):
        return 0


# looking ----------------------------------------------------------------------------------------------------------------------


def _look(subject: Subject) -> tuple[str, str, int, tuple[Finding, ...]]:
    found: dict[str, Finding] = {}
    open_to = {""}  # what later properties may build upon
    for prop in KINDS[subject.kind].properties:
        if prop.needs not in open_to:
            continue
        if prop.applies(subject):
            found[prop.id] = _examined(prop, subject)
        if prop.id not in found or found[prop.id].ok:
            open_to.add(prop.id)
    return subject.name, subject.kind, subject.line, tuple(found.values())


def _examined(prop: Property, subject: Subject) -> Finding:
    """One finding, whatever the reader's code does."""
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        return examine(prop, subject, subject.declared)
    except InputError as error:
        return _error(prop, str(error))
    except Exception as error:  # whatever the reader's code may raise
        return _error(prop, f"{subject.name} stopped{where(error)}: {type(error).__name__}: {error}")
    finally:
        torch.random.set_rng_state(state)


def _error(prop: Property, text: str) -> Finding:
    return Finding(prop.id, prop.says, "error", str(prop.section), this_is=short_line(text))


def where(error: BaseException) -> str:
    """The innermost line of the reader's own code that an error came through, such as " at my_ewc.py, line 12"."""
    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    ours, own = [Path(__file__).parents[1], *map(Path, installed)], []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.exists() and not any(path.resolve().is_relative_to(p.resolve()) for p in ours):
            own.append(f" at {path.name}, line {frame.lineno}")
    return own[-1] if own else ""


def short_line(text: str, most: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


# text -------------------------------------------------------------------------------------------------------------------------


def _plain(finding: Finding) -> dict[str, Any]:
    """A finding as JSON has it: numbers that are none become words."""
    plain = lambda v: str(v) if isinstance(v, float) and not math.isfinite(v) else v  # noqa: E731
    return {k: [plain(x) for x in v] if isinstance(v, tuple) else plain(v) for k, v in asdict(finding).items()}


def _number(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_number, value))
    return float(value) if value in ("nan", "inf", "-inf") else value


def _lines(report: Report) -> Iterator[str]:
    if report.trouble:
        yield f"{report.source} could not be checked: {report.trouble}"
        return
    for name, kind, line, findings in report.checked:
        yield f"{name}{f' (line {line})' if line else ''}: {KINDS[kind].says}"
        for f in findings:
            yield from _of_finding(f)
        yield ""
    yield _verdict(report)


def _of_finding(f: Finding) -> Iterator[str]:
    mark = {"right": "ok", "convention": "ok", "error": "??"}.get(f.verdict, "NO")
    yield from wrapped(f.says if f.verdict != "error" else f"cannot be checked: {f.this_is}", f"  {mark}  ", "      ")
    if f.verdict in ("fault", "unknown") and f.expected:
        yield from wrapped(f.problem, "      on        ", "                ")
        yield f"      expected  {_numbers(f.expected)}"
        yield f"      got       {_numbers(f.got)}{_off(f.off) if any(f.expected) else ''}"
    if f.verdict == "fault":
        fits = f" [fits to {f.fits:.0e}]" if math.isfinite(f.fits) and f.fits > 0 else " [fits exactly]" if f.fits == 0 else ""
        yield from wrapped(f"{f.fault}: {f.this_is}{fits}", "      this is   ", "                ")
        yield from wrapped(f.means, "      it means  ", "                ")
        yield f"      the book  {f.where}"
        for address in f.seen[:2]:
            yield f"      seen in   {address}"
    elif f.verdict == "unknown":
        yield from wrapped("no mistake that is known here gives these numbers", "      this is   ", "                ")
        yield f"      the book  {f.section}"
    for note in f.notes:
        yield from wrapped(note, "      note      ", "                ")


def _verdict(report: Report) -> str:
    faults, errors = len(report.faults), sum(f.verdict == "error" for f in report.findings)
    notes = sum(f.verdict == "convention" for f in report.findings)
    words = [f"{faults} fault{'s' * (faults != 1)}" if faults else "", f"{errors} could not be checked" if errors else ""]
    found = ", ".join(w for w in words if w) or "all right"
    noted = f", with {notes} convention{'s' * (notes != 1)} to note" if notes else ""
    return f"{report.source}: {found}{noted}"


def _numbers(values: tuple[float, ...]) -> str:
    return "  ".join(f"{v:>9.4g}" for v in values)


def _off(off: float) -> str:
    if not math.isfinite(off):
        return "   (nothing like it)"
    return f"   (off by {100 * off:.3g} %)" if off < 10 else f"   (off by {off:.3g} times)"


def wrapped(text: str, first: str, rest: str) -> list[str]:
    """Lines of at most WIDTH characters; an address is never cut."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
