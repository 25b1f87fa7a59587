"""How a score is written: for people, and for programs that go on computing with it."""

from __future__ import annotations

import math


def tenths(value: float) -> str:
    """A score for people: one decimal, none where it is whole. It is never rounded up to the next whole number."""
    rounded = f"{value:.1f}"
    if value < float(rounded) == round(value):
        rounded = f"{math.floor(10 * value) / 10:.1f}"
    return rounded.removesuffix(".0")


def number(value: float) -> str:
    """A score for a table: all of its digits, and no zeros behind them."""
    return f"{value:.12g}"
