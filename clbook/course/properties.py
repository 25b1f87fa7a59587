"""What a piece of code must do, the answers that known mistakes give, and which of them an answer is.

A *property* has small problems with known answers. What the code says to them is compared with the right answer, with the right
answer under every convention that the field uses, and then with the answer of each known mistake. Nothing is guessed from the
text of the code: a mistake is named because its formula gives the reader's numbers. Book: book/check, "How a mistake is named".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

CLOSE = 1e-4  # relative to the largest number; the readers' code computes in single precision
Formula = Callable[[Any], Tensor]
Verdict = Literal["right", "convention", "fault", "unknown", "error"]


@dataclass(frozen=True)
class Section:
    """A place of the book, written as in the docstrings: book/ewc, "The springs"."""

    page: str
    heading: str

    def __str__(self) -> str:
        return f'{self.page}, "{self.heading}"'


@dataclass(frozen=True)
class Fault:
    """A known mistake: what the code does, what that would mean in training, and the answer it gives to a problem.

    `seen` are places where public code that did so was discussed. A fault without a formula is told by `tells`, which looks at
    the problem and the answer.
    """

    id: str
    says: str
    means: str
    formula: Formula | None
    section: Section
    seen: tuple[str, ...] = ()
    tells: Callable[[Any, Tensor], bool] | None = None


class Told(Exception):
    """Raised by `observe` where the mistake shows in another way than in numbers."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.says)
        self.fault = fault


class Noted(Exception):
    """Raised by `observe` where something is right only under a condition that the numbers cannot tell: the note says which."""


@dataclass(frozen=True)
class Choice:
    """One value of a convention: how the right answer changes with it, and what that asks for elsewhere."""

    value: Any
    says: str
    asks: str = ""
    factor: Callable[[Any], float] | None = None  # the answer times a number that depends on the problem


@dataclass(frozen=True)
class Convention:
    """A choice that the field makes in several ways, all of them right; the first is the book's. `name` is what is declared."""

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Property:
    """One thing that a piece of code must do.

    `observe(subject, problem)` asks the code and returns its numbers as one vector [K]; `right(problem, **declared)` are those
    that belong there, with conventions by name. `scale` says whether a constant factor is a matter of convention, too; `scales`
    are factors that depend on the problem, such as the number of samples.
    """

    id: str
    says: str
    problems: Callable[[Any], Sequence[Any]]
    observe: Callable[[Any, Any], Tensor]
    right: Callable[..., Tensor]
    section: Section
    faults: tuple[Fault, ...] = ()
    conventions: tuple[Convention, ...] = ()
    scale: bool = False
    scales: dict[str, Callable[[Any], float]] = field(default_factory=dict)
    applies: Callable[[Any], bool] = lambda subject: True
    needs: str = ""  # another property without which this one says nothing
    own: str = ""  # what an answer is called that is neither right nor a known mistake, where that is allowed

    def answers(self, declared: dict[str, Any]) -> list[tuple[dict[str, Any], Formula]]:
        """The right answers under every combination of conventions, what was declared first, then the book's own."""
        names = [c.name for c in self.conventions]
        every = itertools.product(*([o.value for o in c.choices] for c in self.conventions))
        combined = [dict(zip(names, values, strict=True)) for values in every]
        firsts = {c.name: declared.get(c.name, c.choices[0].value) for c in self.conventions}
        combined.sort(key=lambda chosen: sum(chosen[n] != firsts[n] for n in names))
        return [(chosen, partial(self._right, chosen=chosen)) for chosen in combined]

    def _right(self, problem: Any, chosen: dict[str, Any]) -> Tensor:
        scale, formulas = 1.0, {}
        for c in self.conventions:
            choice = next(o for o in c.choices if o.value == chosen[c.name])
            if choice.factor is None:
                formulas[c.name] = choice.value
            else:
                scale *= choice.factor(problem)
        return scale * self.right(problem, **formulas)


@dataclass(frozen=True)
class Finding:
    """What was found of one property: the verdict, and the numbers and words behind it."""

    id: str
    says: str
    verdict: Verdict
    section: str
    problem: str = ""
    expected: tuple[float, ...] = ()
    got: tuple[float, ...] = ()
    off: float = 0.0  # the largest difference, relative to the largest number expected
    fault: str = ""
    this_is: str = ""
    fits: float = math.nan
    means: str = ""
    where: str = ""  # the section that explains the fault
    notes: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.verdict in ("right", "convention")


def distance(got: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number expected; infinite for other shapes and numbers that are none."""
    if got.shape != expected.shape or not bool(torch.isfinite(got).all()):
        return math.inf
    scale = expected.abs().max().item() if expected.numel() else 0.0
    gap = (got - expected).abs().max().item() if got.numel() else 0.0
    return gap / scale if scale > 0 else (0.0 if gap < CLOSE else math.inf)


def fit(got: Sequence[Tensor], answers: Sequence[Tensor]) -> float:
    """How far the answers to all problems are from these, the worst of them."""
    return max(distance(g, a) for g, a in zip(got, answers, strict=True))


def factors(got: Sequence[Tensor], answers: Sequence[Tensor]) -> list[float] | None:
    """The number for each problem that takes `answers` to `got` in the sense of least squares; None where there is none."""
    found = []
    for g, a in zip(got, answers, strict=True):
        if (
            g.shape != a.shape
            or not bool(torch.isfinite(g).all())
            or not bool(torch.isfinite(a).all())
            or a.square().sum() == 0
        ):
            return None
        found.append(float((g * a).sum() / a.square().sum()))
    return found if all(abs(c) > 1e-9 for c in found) else None


def scaled(
    got: Sequence[Tensor], answers: Sequence[Tensor], problems: Sequence[Any], scales: dict[str, Any]
) -> tuple[str, float] | None:
    """The factor that explains the difference between two answers, in words, and how well: one number, or one of `scales`."""
    found = factors(got, answers)
    if found is None:
        return None
    rest = fit(got, [c * a for c, a in zip(found, answers, strict=True)])
    if rest > CLOSE:
        return None
    for name, of in scales.items():
        if all(abs(c / of(q) - 1) < CLOSE for c, q in zip(found, problems, strict=True)):
            return name, rest
    if max(found) - min(found) < CLOSE * abs(found[0]):
        return number(found[0]), rest
    return None


def number(c: float) -> str:
    """A factor as one would write it: 2, 1/2, -1, 3.25."""
    for top, bottom in ((1, 1), (2, 1), (1, 2), (4, 1), (1, 4), (-1, 1), (-2, 1), (-1, 2), (3, 1), (1, 3)):
        if abs(c * bottom / top - 1) < CLOSE:
            return f"{top}" if bottom == 1 else f"{top}/{bottom}"
    return f"{c:.4g}"


def examine(prop: Property, subject: Any, declared: dict[str, Any]) -> Finding:
    """What the subject's answers to the problems of a property are: right, right by a convention, a known mistake, or neither.

    Anything that the subject's own code raises passes through.
    """
    problems = list(prop.problems(subject))
    try:
        got = [prop.observe(subject, q).detach().double() for q in problems]
    except Told as told:
        return _fault(prop, told.fault, ("1", math.nan), {"problem": str(problems[0])})
    except Noted as noted:
        return Finding(prop.id, prop.says, "convention", str(prop.section), str(problems[0]), notes=(str(noted),))
    declared = {k: v for k, v in declared.items() if k in {c.name for c in prop.conventions}}
    answers = prop.answers(declared)
    shown = _shown(prop, problems, got, answers[0][1])
    for chosen, formula in answers:
        if (close := fit(got, [formula(q) for q in problems])) <= CLOSE:
            return _right(prop, chosen, declared, close, shown)
    for fault in prop.faults:
        if (distance_to := _is(fault, problems, got)) is not None:
            return _fault(prop, fault, ("1", distance_to), shown)
    if prop.scale and (found := scaled(got, [answers[0][1](q) for q in problems], problems, prop.scales)):
        return _scaled(prop, found, shown)
    for fault in prop.faults:
        if prop.scale and (found := _is_scaled(fault, prop, problems, got)):
            return _fault(prop, fault, found, shown)
    if prop.own:
        return Finding(prop.id, prop.says, "right", str(prop.section), notes=(prop.own,))
    return Finding(prop.id, prop.says, "unknown", str(prop.section), **shown)


def _shown(prop: Property, problems: list[Any], got: list[Tensor], right: Formula) -> dict[str, Any]:
    """The problem to show, the one with the largest difference, and its numbers, those that differ most first."""
    expected = [right(q).double() for q in problems]
    worst = max(range(len(problems)), key=lambda i: distance(got[i], expected[i]))
    g, e = got[worst], expected[worst]
    order = (g - e).abs().nan_to_num(math.inf).argsort(descending=True)[:4].sort().values if g.shape == e.shape else slice(4)
    off = max(distance(a, b) for a, b in zip(got, expected, strict=True))
    return {
        "problem": str(problems[worst]), "expected": tuple(e[order].tolist()), "got": tuple(g[order].tolist()), "off": off,
    }  # fmt: skip


def _right(prop: Property, chosen: dict[str, Any], declared: dict[str, Any], close: float, shown: dict[str, Any]) -> Finding:
    """Right; a note for each convention that was not declared and is not the book's; a fault where another was declared."""
    notes, broken = [], []
    for c in prop.conventions:
        choice = next(o for o in c.choices if o.value == chosen[c.name])
        if c.name in declared and declared[c.name] != choice.value:
            broken.append(
                f"{c.name}={declared[c.name]!r} is declared, and the numbers are those of "
                f"{c.name}={choice.value!r}: {choice.says}"
            )
        elif c.name not in declared and choice != c.choices[0]:
            notes.append(f"a convention: {choice.says}. {choice.asks} Declare it: {c.name}={choice.value!r}".replace(" .", "."))
    if broken:
        words = "; ".join(broken)
        return Finding(
            prop.id, prop.says, "fault", str(prop.section), **shown, fault="declared", this_is=words, fits=close,
            means="Whoever reads the declaration chooses a strength for other numbers than those that are computed.",
            where=str(prop.section),
        )  # fmt: skip
    verdict: Verdict = "convention" if notes else "right"
    kept = shown if notes else {"problem": shown["problem"], "off": close}
    return Finding(prop.id, prop.says, verdict, str(prop.section), **kept, fits=close, notes=tuple(notes))


def _scaled(prop: Property, found: tuple[str, float], shown: dict[str, Any]) -> Finding:
    factor, close = found
    if factor.startswith("-"):
        return Finding(
            prop.id, prop.says, "fault", str(prop.section), **shown, fault="sign", fits=close, where=str(prop.section),
            this_is=f"the right answer with the wrong sign, times {factor}",
            means="What should hold the parameters drives them away, and training diverges.",
        )  # fmt: skip
    note = (
        f"a convention, off by exactly {factor} everywhere: a constant factor changes nothing but the strength that belongs "
        f"to it. Divide the book's lam by {factor} to get yours"
    )
    return Finding(prop.id, prop.says, "convention", str(prop.section), **shown, fits=close, notes=(note,))


def _is(fault: Fault, problems: list[Any], got: list[Tensor]) -> float | None:
    """The distance if the answers are those of this fault."""
    if fault.tells is not None:
        return math.nan if all(fault.tells(q, g) for q, g in zip(problems, got, strict=True)) else None
    close = math.inf if fault.formula is None else fit(got, [fault.formula(q).double() for q in problems])
    return close if close <= CLOSE else None


def _is_scaled(fault: Fault, prop: Property, problems: list[Any], got: list[Tensor]) -> tuple[str, float] | None:
    """The factor and the distance if the answers are those of this fault times a number."""
    if fault.formula is None:
        return None
    return scaled(got, [fault.formula(q).double() for q in problems], problems, prop.scales)


def _fault(prop: Property, fault: Fault, found: tuple[str, float], shown: dict[str, Any]) -> Finding:
    factor, close = found
    times = "" if factor == "1" else f" (times {factor})"
    return Finding(
        prop.id, prop.says, "fault", str(prop.section), **shown, fault=fault.id, this_is=fault.says + times, fits=close,
        means=fault.means, where=str(fault.section), seen=fault.seen,
    )  # fmt: skip
