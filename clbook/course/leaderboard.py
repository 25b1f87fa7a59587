"""The leaderboard of a contest: who learns the hidden streams best, what it costs in memory, and who is level with whom.

All methods met the same streams, so they are compared stream by stream. A method's rank is one more than the number of
methods that are better than it by more than chance: the 95 % interval of their difference, by Student's t over the streams,
lies above zero. Methods of one rank stand in the order of their memory, then of their lines, then of their mean accuracy. The
intervals are not widened for the number of comparisons. Book: book/grading.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clbook import metrics
from clbook.checks import InputError
from clbook.course.grade.grader import Entry, Grades
from clbook.course.grade.report import page, sentence, table, text
from clbook.course.grade.submission import shown

RULE = (
    "A rank is one more than the number of methods that are better by more than chance: the 95 % interval of the difference, "
    "stream by stream, lies above zero. Within a rank: less memory first, then fewer lines, then the higher mean."
)
ALONE = "There is one stream, so nothing is known about chance: the rank follows the accuracy itself."


@dataclass(frozen=True)
class Row:
    """One method: its accuracy on each stream, bytes kept between tasks, lines, and its rank."""

    student: str
    accuracy: tuple[float, ...]
    memory_bytes: int
    lines: int
    rank: int = 0

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracy))

    @property
    def half(self) -> float:
        """The half-width of the 95 % interval of the mean over streams; NaN for one stream."""
        return float(metrics.interval(np.array(self.accuracy))[1])


@dataclass(frozen=True)
class Leaderboard:
    """The rows in their order, and who is not among them, with the reason."""

    title: str
    rows: tuple[Row, ...]
    without: tuple[tuple[str, str], ...]

    @property
    def streams(self) -> int:
        return len(self.rows[0].accuracy) if self.rows else 0

    @property
    def rule(self) -> str:
        return RULE if self.streams > 1 else ALONE

    @property
    def csv(self) -> str:
        heads = ["rank", "student", "accuracy", "half_width_95", "memory_bytes", "lines"]
        heads += [f"stream_{i}" for i in range(1, self.streams + 1)]
        half = lambda r: "" if math.isnan(r.half) else round(r.half, 6)  # noqa: E731
        rows = [[r.rank, r.student, round(r.mean, 6), half(r), r.memory_bytes, r.lines, *r.accuracy] for r in self.rows]
        return table([heads, *rows])

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        width = max((len(shown(r.student, 30)) for r in self.rows), default=7)
        width = max(width, len("student"))
        yield f"{self.title}: percent on {self.streams} hidden streams, mean ± 95 % interval"
        yield f"rank  {'student':{width}}  accuracy       memory  lines"
        for r in self.rows:
            memory = f"{r.memory_bytes:,}"
            yield f"{r.rank:>4}  {shown(r.student, 30):{width}}  {_percent(r):<13}{memory:>8}  {r.lines:>5}"
        yield self.rule
        for student, why in self.without:
            yield f"without a place: {shown(student, 60)} ({shown(sentence(why, 200))})"

    @property
    def html(self) -> str:
        return page(f"{self.title}: leaderboard", self._body())

    def _body(self) -> Iterator[str]:
        yield f"<h1>{text(self.title)}</h1>"
        yield f'<p class="faint">Accuracy in percent on {self.streams} hidden streams after the last task, mean and 95 % '
        yield "interval; memory in bytes kept between tasks.</p>"
        low, high = self._range()
        yield '<div class="wide"><table>\n<tr><th scope="col" class="n">rank</th><th scope="col">student</th>'
        yield '<th scope="col" class="n">accuracy</th><th scope="col" class="n">memory</th><th scope="col" class="n">lines</th>'
        yield f'<th scope="col">interval, {100 * low:.0f} to {100 * high:.0f} %</th></tr>'
        for r in self.rows:
            yield f'<tr><td class="n">{r.rank}</td><th scope="row">{text(r.student)}</th><td class="n">{_percent(r)}</td>'
            yield f'<td class="n">{r.memory_bytes:,}</td><td class="n">{r.lines}</td><td>{_bar(r, low, high)}</td></tr>'
        yield f'</table></div>\n<p class="faint">{self.rule}</p>'
        if self.without:
            yield "<h2>Without a place</h2>\n<ul>"
            yield from (f"<li>{text(student)}: {text(why)}</li>" for student, why in self.without)
            yield "</ul>"

    def _range(self) -> tuple[float, float]:
        ends = [r.mean + side * (0 if math.isnan(r.half) else r.half) for r in self.rows for side in (-1, 1)]
        low, high = max(0.0, min(ends, default=0.0)), min(1.0, max(ends, default=1.0))
        return (low, high) if high > low else (max(0.0, low - 0.01), high + 0.01)


def leaderboard(grades: Grades, check: str | None = None) -> Leaderboard:
    """The leaderboard of one hidden check, by default the last that measures accuracy on streams.

    Raises InputError where none does.
    """
    found = {e.student: _measured(e, check) for e in grades.entries}
    names = [name for measures in found.values() for name in measures]
    if not names:
        what = f"the check {check!r}" if check else "any check"
        raise InputError(f"{what} of {grades.title!r} measures no accuracy on streams: give the grades of a contest of methods")
    name = [c.name for e in grades.entries for c in e.checks if c.name in names][-1]
    rows, without = [], []
    for e in grades.entries:
        data = found[e.student].get(name)
        if data is not None and data["counts"]:
            rows.append(Row(e.student, tuple(data["accuracy"]), int(data["memory_bytes"]), int(data["lines"])))
        else:
            without.append((e.student, _why(e, name)))
    return Leaderboard(grades.title, tuple(ranked(rows)), tuple(without))


def ranked(rows: list[Row]) -> list[Row]:
    """The rows with their ranks, in their order."""
    placed = [Row(r.student, r.accuracy, r.memory_bytes, r.lines, 1 + sum(better(o, r) for o in rows)) for r in rows]
    return sorted(placed, key=lambda r: (r.rank, r.memory_bytes, r.lines, -r.mean, r.student))


def better(a: Row, b: Row) -> bool:
    """Whether a is better than b on the same streams, by more than chance."""
    difference = np.array(a.accuracy) - np.array(b.accuracy)
    mean, half = (float(v) for v in metrics.interval(difference))
    return mean > (0.0 if math.isnan(half) else half)


def _measured(entry: Entry, check: str | None) -> dict[str, dict[str, Any]]:
    """What each check measured: the data of the criterion that has an accuracy."""
    wanted = [c for c in entry.checks if check in (None, c.name)]
    return {
        c.name: x["data"]
        for c in wanted
        for x in c.criteria
        if {"accuracy", "counts", "memory_bytes", "lines"} <= set(x["data"])
    }


def _why(entry: Entry, name: str) -> str:
    checked = next(c for c in entry.checks if c.name == name)
    broken = [x["message"] for x in checked.criteria if x["share"] < 1 and "accuracy" not in x["data"]]
    return entry.trouble or checked.reason or "; ".join(broken) or "it broke a limit"


def _percent(r: Row) -> str:
    return f"{100 * r.mean:.1f}" + ("" if math.isnan(r.half) else f" ± {100 * r.half:.1f}")


def _bar(r: Row, low: float, high: float) -> str:
    """The mean and its interval as a small picture."""
    at = lambda v: 4 + 152 * (min(high, max(low, v)) - low) / (high - low)  # noqa: E731
    half = 0.0 if math.isnan(r.half) else r.half
    return (
        f'<svg width="160" height="16" role="img" aria-label="{_percent(r)} percent">'
        f'<line x1="{at(r.mean - half):.1f}" x2="{at(r.mean + half):.1f}" y1="8" y2="8" '
        f'stroke="currentColor" stroke-width="2"/>'
        f'<circle cx="{at(r.mean):.1f}" cy="8" r="4" fill="currentColor"/></svg>'
    )
