"""What a hidden check says of an answer, and the comparison that most of them need. Book: book/grading."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from clbook.checks import InputError, short

Answers = dict[str, Any]
MOST_RUNS = 10_000  # of one arm


@dataclass(frozen=True)
class Verdict:
    """One criterion of a hidden check: the share of the points in [0, 1], what to do, and numbers for the leaderboard.

    A tuple (criterion, share, message) is taken as well.
    """

    criterion: str
    share: float
    message: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def agrees(
    criterion: str, answers: Answers, key: str, expected: Any, *, rtol: float = 1e-4, atol: float = 1e-6, hint: str = ""
) -> Verdict:
    """Whether the answer of this name is a finite array of the same shape as `expected` and |a - e| <= atol + rtol |e|.

    The message quotes both at the place that is furthest off; `hint` is added to it.
    """
    right = np.asarray(expected.detach().cpu() if isinstance(expected, torch.Tensor) else expected, dtype=float)
    trouble = _trouble(answers, key, right)
    if not trouble:
        got = np.asarray(answers[key], dtype=float)
        over = np.abs(got - right) - atol - rtol * np.abs(right)
        if right.size and (over > 0).any():
            worst = np.unravel_index(int(over.argmax()), right.shape)
            where = f" at {tuple(map(int, worst))}" if worst else ""
            share = f"; {100 * (over > 0).mean():.0f} % of the numbers differ" if right.size > 1 else ""
            trouble = f"{key}{where} is {float(got[worst]):.5g}, and {float(right[worst]):.5g} was expected{share}"
    return Verdict(criterion, float(not trouble), f"{trouble}. {hint}".strip(". ") + "." if trouble else "")


def _trouble(answers: Answers, key: str, right: np.ndarray) -> str:
    if key not in answers:
        return f"there is no answer {key!r}"
    got = np.asarray(answers[key])
    if got.dtype.kind not in "biuf":
        return f"{key} is {answers[key]!r:.60}, where numbers are expected"
    if got.shape != right.shape:
        return f"{key} has the shape {list(got.shape)}, and {list(right.shape)} was expected"
    if not np.isfinite(got).all():
        return f"{key} holds {int((~np.isfinite(got)).sum())} numbers that are NaN or infinite"
    return ""


def verdict(given: Any) -> Verdict:
    """A Verdict from what a judge returned for one criterion, its share kept within [0, 1]. NaN counts as nothing."""
    if not isinstance(given, Verdict):
        criterion, share, *more = given
        given = Verdict(str(criterion), float(share), *more)
    share = given.share
    share = min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0
    return Verdict(str(given.criterion), share, str(given.message), dict(given.data))


# a study of two arms ----------------------------------------------------------------------------------------------------------


def entries(found: Any, name: str, *keys: str) -> list[Any]:
    """The values of a student's dictionary under these keys. Raises InputError for another thing, and where one is missing."""
    if not isinstance(found, dict):
        raise InputError(f"{name} must be a dictionary, got {short(found, 60)}")
    if lacks := [key for key in keys if key not in found]:
        raise InputError(f"{name} must have {', '.join(map(repr, keys))}, and it lacks {', '.join(map(repr, lacks))}")
    return [found[key] for key in keys]


def number(found: Any, name: str) -> float:
    """A student's number. Raises InputError, with what it is called, for anything else."""
    try:
        return float(found)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number, got {short(found, 60)}") from None


def arms(plan: dict[str, Any], results: dict[str, Any]) -> list[np.ndarray]:
    """The results of both arms, in the order of the plan. Raises InputError where an arm has none."""
    (names,), _ = entries(plan, "plan", "arms"), entries(results, "results")
    if lacks := [arm for arm in names if not np.size(results.get(arm, ()))]:
        raise InputError(f"results has no numbers for {lacks[0]!r} yet; copy them there")
    return [np.array(results[arm], float) for arm in names]


def row(answers: Answers, key: str) -> np.ndarray:
    """The answer of this name as one row [n] of finite numbers, whatever shape it came in: [n, 1] - [n] would be [n, n].

    Raises InputError for more than MOST_RUNS of them, and for NaN and infinity.
    """
    found = np.asarray(answers[key], float).ravel()
    if len(found) > MOST_RUNS:
        raise InputError(f"{key} holds {len(found):,} numbers, and at most {MOST_RUNS:,} are looked at")
    if not np.isfinite(found).all():
        raise InputError(f"{key} holds numbers that are NaN or infinite")
    return found
