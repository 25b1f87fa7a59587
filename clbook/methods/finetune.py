"""The two bounds: no memory at all, and all data all the time. Book: notebooks/01_forgetting, "Two bounds"."""

from __future__ import annotations

from dataclasses import dataclass

from clbook.method import Method, State
from clbook.scenarios import Scenario


@dataclass(frozen=True)
class Finetune(Method):
    """Train each task in turn and protect nothing: the lower bound."""


@dataclass(frozen=True)
class Joint(Method):
    """Train on the data of all tasks at once, from the start: the upper bound, and no continual learning at all.

    Each task's turn draws as many batches as any method gets for it, from all tasks alike and with all outputs.
    """

    sees = "all"

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return all_data(scenario)


@dataclass(frozen=True)
class Cumulative(Method):
    """Train on the data of all tasks seen so far: what unlimited memory would allow.

    Each task's turn draws as many batches as any method gets for it, so the passes over the growing data grow fewer.
    """

    sees = "seen"

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return all_data(scenario)


def all_data(scenario: Scenario) -> int:
    """Bytes of all training data of all tasks: one for each input value, as in the files of MNIST, and one for the label."""
    return sum(len(rows) for rows in scenario.rows) * (scenario.data.x[0].numel() + 1)
