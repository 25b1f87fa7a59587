"""The only way to train: `run(scenario, methods, seeds) -> Result`, and the loop that all methods share.

`run` checks what it is given before anything is trained and sorts the runs into groups that train as one batch; `train` is the
loop. Book: notebooks/01_forgetting, "The same by run".
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, Literal

import torch

from clbook.checkpoints import Checkpoint
from clbook.checks import Count, InputError, Positive, check, check_fields, short
from clbook.evaluate import TEST_ROWS, DivergedError, Record
from clbook.method import Method
from clbook.net import Net, default_net
from clbook.result import Result, provenance
from clbook.runs import Runs
from clbook.sampling import batches
from clbook.scenarios import Scenario, check_scenario

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
    """
    how, jobs = _training(training), [(m, s) for m in _methods(methods) for s in _seeds(seeds)]
    scenario, net = _fitting(scenario, net, [m for m, _ in jobs], pick_device(device), dtype)
    chunk = check(chunk, Count | None, "chunk")
    started, outcomes = time.perf_counter(), {}
    for number, (group, extended) in enumerate(_groups(jobs, net, scenario, how, chunk)):
        runs = Runs([jobs[i] for i in group], extended, scenario, dtype)
        record = Record(runs, scenario, how, bool(keep_thetas), _show(progress))
        train(runs, scenario, how, record, Checkpoint(checkpoint, number, runs, scenario, how))
        outcomes |= dict(zip(group, record.outcomes(), strict=True))
    info = provenance(how, scenario, dtype, time.perf_counter() - started)
    return Result.join([outcomes[i] for i in range(len(jobs))], jobs, scenario, info)


def train(runs: Runs, scenario: Scenario, training: Training, record: Record, file: Checkpoint) -> None:
    """The loop of every method in the book: train on each task in turn, and after each measure all tasks seen."""
    file.restore(runs, record, training)
    for k in range(record.task, len(scenario)):
        task = scenario[k]
        steps = training.steps_for(len(task.x))
        if record.step == 0:
            runs.before_task(task, training)  # the method gets ready, and the optimiser starts anew
        for s, batch in batches(runs, scenario, k, steps, training.batch_size, start=record.step):
            if runs.alive.any():
                direction = runs.direction(batch)  # the gradient of the method's loss, or what it takes for it
                runs.descend(direction, training.lr_at(s / steps), done=(s + 1) / steps)  # the optimiser, then the method
            record.after_step()  # a point of the curve where it is time for one
            file.save_sometimes(runs, record)
        runs.after_task(task)  # what the method remembers of the task
        record.after_task()  # a row of R
        file.save(runs, record)


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """For "auto" CUDA, else MPS, else the CPU; anything else is taken as torch names it.

    Raises InputError for a device that torch does not know or that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f'unknown device {short(device)}: choose "auto", {", ".join(there)}') from error
    if not there.get(chosen.type, True):
        raise InputError(f'there is no device {device!r} here; device="auto" takes {pick_device("auto")}')
    return chosen


def fits(net: Net, batch_size: int, device: torch.device) -> int:
    """How many runs to stack: on a CPU only small networks gain by it, on a GPU a third of the free memory."""
    if device.type != "cuda":
        size = 2**20 // net.n_params
        return size if size >= 4 else 1  # a wide network fills the cores by itself, and faster than in a stack
    free, _ = torch.cuda.mem_get_info(device)
    widest = max(max(s) for s in net.shapes if len(s))
    return max(1, int(free / 3 / (4 * (12 * net.n_params + 8 * max(batch_size, TEST_ROWS) * widest))))


def _training(given: dict[str, Any]) -> Training:
    names = [f.name for f in fields(Training)]
    if unknown := sorted(set(given) - set(names)):
        raise InputError(f"run does not know {', '.join(unknown)}; it takes {', '.join(names)}")
    return Training(**given)


def _methods(methods: Any) -> list[Method]:
    """One method or several, as a list of methods."""
    given = list(methods) if isinstance(methods, Sequence) and not isinstance(methods, str) else [methods]
    if not given:
        raise InputError("run needs at least one method, got none")
    for m in given:
        if not isinstance(m, Method):
            raise InputError(f"unknown method {short(m)}: give an instance of one in clbook.methods, such as EWC(lam=100.0)")
    return given


def _seeds(seeds: Any) -> list[int]:
    """A number of seeds, or the seeds themselves, as Python's own integers."""
    given = range(int(seeds)) if isinstance(seeds, Integral) else seeds
    if not isinstance(given, Sequence) or not given or not all(isinstance(s, Integral) for s in given):
        raise InputError(f"run needs at least one seed, and seeds are whole numbers; got {short(seeds)}")
    return [int(s) for s in given]


def _fitting(
    scenario: Scenario, net: Net | None, methods: list[Method], device: torch.device, dtype: torch.dtype
) -> tuple[Scenario, Net]:
    """The scenario on the device and the network told what it is about. Raises InputError where they do not fit."""
    if not isinstance(scenario, Scenario):
        raise InputError(f"scenario must be a Scenario, such as clbook.permuted(data, 3), got {short(scenario)}")
    for m in methods:
        if m.needs_task and scenario.kind != "task":
            raise InputError(f'{m.label} must be told the task at test time: it needs kind="task", got kind="{scenario.kind}"')
    check_scenario(scenario)
    floating = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    if not floating or (device.type == "mps" and dtype == torch.float64):
        raise InputError(f"dtype must be a floating type that {device} has, such as torch.float32, got {short(dtype)}")
    scenario = scenario.to(device, dtype)
    net = default_net(scenario) if net is None else net
    if not isinstance(net, Net):
        raise InputError(f"net must be a Net, such as clbook.mlp(784, 10) or Net(lambda: my_module()), got {short(net)}")
    if net.given_likelihood not in (None, scenario.likelihood):
        raise InputError(f"the network was told {net.given_likelihood}, and the scenario says {scenario.likelihood}")
    net, x = net.told(scenario.likelihood, scenario.data.x[:1].cpu()), scenario.data.x[:1].cpu()
    try:
        with torch.no_grad():
            got = net(net.init(0).to(dtype), x).shape[-1]
    except (RuntimeError, IndexError) as error:
        raise InputError(f"the network does not take this scenario's inputs, {list(x.shape)} {x.dtype}: {error}") from error
    if got != scenario.n_outputs:
        raise InputError(f"the network has {got} outputs, and this scenario needs {scenario.n_outputs}")
    return scenario, net


def _groups(
    jobs: list[tuple[Method, int]], net: Net, scenario: Scenario, training: Training, chunk: int | None
) -> list[tuple[list[int], Net]]:
    """Positions of the jobs that can train as one batch, cut into chunks, and the network that each group trains."""
    alike: dict[Any, list[int]] = {}
    for i, (m, _) in enumerate(jobs):
        fixed = tuple((f.name, getattr(m, f.name)) for f in fields(m) if f.name not in m.hyper)
        alike.setdefault((type(m), fixed), []).append(i)
    groups = []
    for group in alike.values():
        method = jobs[group[0]][0]
        extended = method.extend(net, scenario)
        if extended is not net:
            extended = extended.told(scenario.likelihood, net.example)
        size = (chunk or fits(extended, training.batch_size, scenario.device)) if method.stacks else 1
        groups += [(group[i : i + size], extended) for i in range(0, len(group), size)]
    return groups


def _show(progress: bool | None) -> bool:
    return os.environ.get("CLBOOK_PROGRESS") != "0" if progress is None else progress
