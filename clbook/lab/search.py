"""The search for a value on held-out data: a grid that grows until its best value lies inside, and a second look at the top.

A search asks for trials and is told their scores, so whoever runs it may compute the trials where and in whatever order it
likes. Book: notebooks/08_choosing, "The benchmark".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from math import isclose
from typing import Any, TypeVar

import numpy as np

from clbook.checks import InputError, Number, check_fields

FLAT = 0.3  # percentage points: a curve that varies by less than this has no top to be found
MOST = 10  # values that are tried at most
SEEDS = (1000, 1001)  # the second only at the best value and its neighbours; no run whose number is shown has them

Asked = TypeVar("Asked")
Trial = tuple[float, int]  # a value and which of SEEDS
Scores = dict[float, list[float]]  # the values that were tried, and the score with each seed


@dataclass(frozen=True)
class Tuned:
    """A field that is searched, and where: `start` in ascending order, then by `factor` beyond an end that scores best.

    `own` starts elsewhere where the scenario is of that kind. With `complement` it is 1 - value that grows by the factor, as
    rates of decay are spaced. `whole` values are integers. Values stay within [least, most]. Raises InputError for fewer than
    three values to start with.
    """

    name: str
    start: tuple[Number, ...]
    factor: Number = 10.0
    least: Number = 0.0
    most: Number = float(10**15)
    complement: bool = False
    whole: bool = False
    own: Mapping[str, tuple[Number, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        for start in (self.start, *self.own.values()):
            if len(start) < 3 or list(start) != sorted(set(start)):
                raise InputError(f"Tuned.start must be three ascending values or more, got {start}")

    def first(self, kind: str = "") -> tuple[float, ...]:
        """The values that are tried first."""
        return tuple(map(self._rounded, self.own.get(kind, self.start)))

    def beyond(self, value: float, up: bool) -> float | None:
        """The next value above or below, or None where there is none."""
        if self.complement:
            value = 1 - (1 - value) * (1 / self.factor if up else self.factor)
        else:
            value = value * self.factor if up else value / self.factor
        value = self._rounded(value)
        return value if self.least <= value <= self.most and (value > 0 or self.complement) else None

    def _rounded(self, value: float) -> float:
        return round(value) if self.whole else float(f"{value:.6g}")  # 0.1 * 3 is 0.3


def told(asking: Generator[Asked, list[float], Any], scores: list[float] | None = None) -> Asked | None:
    """What is asked for first, or, once it is told these scores, next; None when nothing more is."""
    try:
        return next(asking) if scores is None else asking.send(scores)
    except StopIteration:
        return None


@dataclass
class Search:
    """One search and what it found: the scores of every value that was tried, and the best one."""

    tuned: Tuned
    kind: str = ""
    scores: Scores = field(default_factory=dict)

    def trials(self) -> Generator[list[Trial], list[float], float]:
        """Ask for trials, be told their scores (higher is better), and return the best value.

        The grid grows while its best value lies at an end and the curve there is not flat, to MOST values; then the best value
        and its neighbours get a second seed, and if another value is best now, its neighbours too. Where the first values are
        all alike, one more is tried at either end, and if that is like them too, the search is over.
        """
        wanted: list[Trial] = [(v, 0) for v in self.tuned.first(self.kind)]
        while wanted:
            for (value, _), score in zip(wanted, (yield wanted), strict=True):
                self.scores.setdefault(value, []).append(score)
            wanted = self._next()
        return self.best

    def climb(self, score: Callable[[float, int], float]) -> float:
        """Try what is wanted, one trial after the other, and return the best value; score(value, seed) is one trial's."""
        asking = self.trials()
        wanted = told(asking)
        while wanted:
            wanted = told(asking, [score(value, seed) for value, seed in wanted])
        return self.best

    def table(self) -> np.ndarray:
        """value, mean score and number of seeds of all that was tried [values, 3]."""
        return np.array([[v, self.mean(v), len(self.scores[v])] for v in sorted(self.scores)])

    @property
    def best(self) -> float:
        """The value with the highest mean score."""
        return max(self.scores, key=self.mean)

    @property
    def edge(self) -> bool:
        """Whether the search was stopped by MOST: its best value lies at an end that still rises."""
        return self._beyond() is not None

    def mean(self, value: float) -> float:
        return sum(self.scores[value]) / len(self.scores[value])

    def _next(self) -> list[Trial]:
        tried = sorted(self.scores)
        if self._flat(tried):
            ends = [self.tuned.beyond(tried[0], up=False), self.tuned.beyond(tried[-1], up=True)]
            grown = len(tried) > len(self.tuned.first(self.kind))
            return [] if grown else [(v, 0) for v in ends if v is not None and v not in self.scores]
        if len(tried) < MOST and (new := self._beyond()) is not None:
            return [(new, 0)]
        i = tried.index(self.best)
        top = tried[max(0, i - 1) : i + 2]
        return [(v, len(self.scores[v])) for v in top if len(self.scores[v]) < len(SEEDS)]

    def _beyond(self) -> float | None:
        """The value to try next to the best one, where that lies at an end that is not flat; None where there is none."""
        tried = sorted(self.scores)
        i = tried.index(self.best)
        if i not in (0, len(tried) - 1) or self._flat(tried[:3] if i == 0 else tried[-3:]):
            return None
        new = self.tuned.beyond(self.best, up=i > 0)
        return None if new is None or any(isclose(new, v) for v in tried) else new

    def _flat(self, values: list[float]) -> bool:
        means = [self.mean(v) for v in values]
        return max(means) - min(means) < FLAT
