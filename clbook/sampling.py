"""Which samples each step sees, and where every random number comes from.

A run has four sources of randomness that do not know of each other: its initialisation (the seed itself), the order of the
data, dropout, and what its method draws. So two methods that differ in their draws alone see the same batches and the same
dropout. Book: notebooks/01_forgetting, "The same by run".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from clbook.scenarios import Batch, Scenario, Task, picked

Sees = Literal["task", "seen", "all"]
PURPOSES = {"order": 1, "dropout": 2, "method": 3}


def generator(seed: int, purpose: Literal["order", "dropout", "method"], task: int = 0) -> torch.Generator:
    """The random numbers of one run for one purpose; they depend on nothing else."""
    words = np.random.SeedSequence([seed % 2**63, PURPOSES[purpose], task]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def batches(
    scenario: Scenario, task: Task, sees: Sees, seeds: Sequence[int], steps: int, size: int, start: int = 0
) -> Iterator[tuple[int, Batch]]:
    """The steps of a task from `start` on, each with the batch of every run: x [R, B, ...], y [R, B, ...], mask [R, B, C].

    They are drawn from the task itself, from all tasks `seen` so far, or from `all`; where the scenario is in order, the task's
    own come in the order of its rows.
    """
    k = task.index
    sources = {"task": range(k, k + 1), "seen": range(k + 1), "all": range(len(scenario))}[sees]
    n = sum(len(scenario.rows[j]) for j in sources)
    shuffled = not scenario.in_order or len(sources) > 1
    index = torch.stack([order(n, steps, size, generator(seed, "order", k), shuffled) for seed in seeds]).to(scenario.device)
    for s in range(start, steps):
        yield s, of_task(task, index[:, s]) if len(sources) == 1 else of_tasks(scenario, sources, index[:, s])


def order(n: int, steps: int, size: int, rng: torch.Generator, shuffled: bool = True) -> Int64[Tensor, "steps size"]:
    """Which of n samples each step sees: shuffled passes over all of them, one after the other, the last one cut."""
    passes = max(1, -(-steps * size // n))
    each = [torch.randperm(n, generator=rng) if shuffled else torch.arange(n) for _ in range(passes)]
    return torch.cat(each)[: steps * size].view(steps, size)


def of_task(task: Task, row: Int64[Tensor, "R B"]) -> Batch:
    """Rows of the task being trained. It lies there as tensors, so that nothing is permuted or rotated step by step."""
    number = torch.full_like(row, task.index)
    return Batch(picked(task.x, row), picked(task.y, row), task.mask.expand(*row.shape, -1), number, row)


def of_tasks(scenario: Scenario, sources: range, index: Int64[Tensor, "R B"]) -> Batch:
    """The samples that the index counts through all source tasks; outputs of all of these count."""
    ends = torch.tensor([len(scenario.rows[j]) for j in sources], device=index.device).cumsum(0)
    task = torch.searchsorted(ends, index.contiguous(), right=True)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    return scenario.batch(task, index - starts[task], sources[-1])
