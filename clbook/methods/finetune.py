"""The two bounds: no memory at all, and all data all the time. Book: notebooks/01_forgetting, "Two bounds"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clbook.method import Method


@dataclass(frozen=True)
class Finetune(Method):
    """Train each task in turn and protect nothing: the lower bound."""


@dataclass(frozen=True)
class Joint(Method):
    """Train on the data of all tasks at once, from the start: the upper bound, and no continual learning at all.

    Each task's turn draws as many batches as any method gets for it, from all tasks alike and with all outputs.
    """

    sees: ClassVar[str] = "all"


@dataclass(frozen=True)
class Cumulative(Method):
    """Train on the data of all tasks seen so far: what unlimited memory would allow.

    Each task's turn draws as many batches as any method gets for it, so the passes over the growing data grow fewer.
    """

    sees: ClassVar[str] = "seen"
