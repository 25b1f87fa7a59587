"""The only way to train: `run(scenario, methods, seeds) -> Result`, and the loop that all methods share.

`run` checks what it is given before anything is trained and sorts the runs into groups that train as one batch; `train` is the
loop. Book: notebooks/01_forgetting, "The same by run".
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch

from clbook import inputs
from clbook.checkpoints import Checkpoint
from clbook.checks import Count, InputError, Positive, check, check_fields
from clbook.evaluate import TEST_ROWS, DivergedError, Outcome, Record
from clbook.inputs import pick_device
from clbook.method import Method
from clbook.net import Net
from clbook.result import Result, provenance
from clbook.runs import Runs
from clbook.sampling import batches
from clbook.scenarios import Scenario

__all__ = ["DivergedError", "Training", "fits", "pick_device", "run", "train"]

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class Training:
    """How every run of one call is trained; `run` takes each of these by name.

    Each task gets `epochs` passes over its samples, in whole batches of `batch_size`, or `steps` batches, with a fresh
    torch.optim optimiser at `lr` unless keep_optimizer; with lr_decay, lr falls linearly to zero over each task. Every
    `eval_every` steps the score on all tasks seen goes into Result.curve (on `eval_samples` test samples of each). `future`
    measures tasks not yet trained as well. on_divergence="nan" lets the other runs go on and leaves NaN.

    Raises InputError for numbers below 1, an lr that is not a positive number, and unknown words.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count = 128
    optimizer: Literal["sgd", "adam"] = "adam"
    lr: Positive = 1e-3
    keep_optimizer: bool = False
    lr_decay: bool = False
    eval_every: Count | None = None
    eval_samples: Count | None = None
    future: bool = False
    on_divergence: Literal["raise", "nan"] = "raise"

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.epochs is None) == (self.steps is None):
            raise InputError(f"give either epochs or steps per task, got epochs={self.epochs} and steps={self.steps}")

    @classmethod
    def of(cls, given: dict[str, Any]) -> Training:
        """From what `run` was given. Raises InputError for names that it does not know."""
        names = [f.name for f in fields(cls)]
        if unknown := sorted(set(given) - set(names)):
            raise InputError(f"run does not know {', '.join(unknown)}; it takes {', '.join(names)}")
        return cls(**given)

    @property
    def optimizer_class(self) -> Any:
        """The class in torch.optim."""
        return OPTIMIZERS[self.optimizer]

    def steps_for(self, n: int) -> int:
        """Steps on a task of n samples: whole batches, so `epochs` passes over the data are rounded down."""
        return self.steps or max(1, (self.epochs or 0) * n // self.batch_size)

    def lr_at(self, done: float) -> float:
        """The learning rate once a share `done` of the task's steps has been taken."""
        return self.lr * (1 - done) if self.lr_decay else self.lr


def run(
    scenario: Scenario,
    methods: Method | Sequence[Method],
    seeds: int | Sequence[int] = 1,
    *,
    net: Net | None = None,
    keep_thetas: bool = False,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
    chunk: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **training: Any,
) -> Result:
    """Train every method with every seed on the tasks in turn; R[r, i, j] is run r's score on task j after task i.

    The runs are all pairs of `methods` and `seeds` (a number n means seeds 0 .. n-1), methods first. Runs that differ only in
    seed and hyper-parameters train as one batch, at most `chunk` at a time (default: what fits). `training` are the fields of
    Training: epochs or steps, batch_size, optimizer, lr, lr_decay, eval_every and so on.

    `net` is an MLP where none is given. `keep_thetas` keeps theta after every task. `device`: "auto" takes CUDA, MPS or CPU.
    `checkpoint` names a folder from which a run that was cut short goes on. `progress` shows a bar (default: unless
    CLBOOK_PROGRESS=0).

    Raises InputError for bad input before training starts, DivergedError when parameters stop being finite.

    >>> from clbook import load, split
    >>> from clbook.methods import EWC, Finetune
    >>> two = [Finetune(), EWC(lam=1e3)]
    >>> result = run(split(load("digits"), 5), two, seeds=3, steps=20, progress=False)
    >>> result.R.shape  # 2 methods with 3 seeds; after each of 5 tasks; on each of them
    (6, 5, 5)
    """
    how, jobs = Training.of(training), [(m, s) for m in inputs.methods(methods) for s in inputs.seeds(seeds)]
    scenario, net = inputs.fitting(scenario, net, [m for m, _ in jobs], pick_device(device), dtype)
    chunk, keep_thetas = check(chunk, Count | None, "chunk"), check(keep_thetas, bool, "keep_thetas")
    progress = check(progress, bool | None, "progress")
    started, outcomes = time.perf_counter(), dict[int, Outcome]()
    for number, (group, extended) in enumerate(_groups(jobs, net, scenario, how, chunk)):
        runs = Runs([jobs[i] for i in group], extended, scenario, dtype)
        record = Record(runs, scenario, how, keep_thetas, progress)
        train(runs, scenario, how, record, Checkpoint(checkpoint, number, runs, scenario, how))
        outcomes |= dict(zip(group, record.outcomes(), strict=True))
    info = provenance(how, scenario, dtype, time.perf_counter() - started)
    return Result.join([outcomes[i] for i in range(len(jobs))], jobs, scenario, info)


def train(runs: Runs, scenario: Scenario, training: Training, record: Record, file: Checkpoint) -> None:
    """The loop of every method in the book: train on each task in turn, and after each measure all tasks seen."""
    file.restore(runs, record, training)
    for k in range(record.task, len(scenario)):
        task = scenario[k]
        steps = 0 if k < runs.net.knows else training.steps_for(len(task.x))
        if record.step == 0:
            runs.before_task(task, training)  # the method gets ready, and the optimiser starts anew
        for s, batch in batches(scenario, task, runs.method.sees, runs.seeds, steps, training.batch_size, record.step):
            if runs.alive.any():
                batch = runs.prepare(scenario, k, batch)  # dropout, and the old samples that the method replays
                runs.observe(scenario, batch)  # a method that is told of no boundary looks at what comes in
                direction = runs.direction(batch)  # the gradient of the method's loss, or what it takes for it
                runs.descend(direction, training.lr_at(s / steps), done=(s + 1) / steps)  # the optimiser, then the method
            record.after_step()  # a point of the curve where it is time for one
            file.save_sometimes(runs, record)
        runs.after_task(task)  # what the method remembers of the task
        record.after_task()  # a row of R
        file.save(runs, record)


def fits(net: Net, batch_size: int, device: torch.device) -> int:
    """How many runs to stack: on a CPU only small networks gain by it, on a GPU a third of the free memory."""
    if device.type != "cuda":
        size = 2**20 // net.n_params
        return size if size >= 4 else 1  # a wide network fills the cores by itself, and faster than in a stack
    free, _ = torch.cuda.mem_get_info(device)
    widest = max(max(s) for s in net.shapes if len(s))
    return max(1, int(free / 3 / (4 * (12 * net.n_params + 8 * max(batch_size, TEST_ROWS) * widest))))


def _groups(
    jobs: list[tuple[Method, int]], net: Net, scenario: Scenario, training: Training, chunk: int | None
) -> list[tuple[list[int], Net]]:
    """Positions of the jobs that can train as one batch, cut into chunks, and the network that each group trains."""
    alike: dict[Any, list[int]] = {}
    for i, (m, _) in enumerate(jobs):
        alike.setdefault(m.fixed, []).append(i)
    groups = []
    for group in alike.values():
        method = jobs[group[0]][0]
        extended = inputs.extended(method, net, scenario)
        together = method.stacks and extended.stacks
        size = (chunk or fits(extended, training.batch_size, scenario.device)) if together else 1
        groups += [(group[i : i + size], extended) for i in range(0, len(group), size)]
    return groups
