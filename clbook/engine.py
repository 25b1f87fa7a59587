"""The only way to train: `run(scenario, methods, seeds) -> Result`.

It checks what it is given before anything is trained, sorts the runs into stacks that train as one batch (see stack), and
joins what they leave. Book: notebooks/01_forgetting, "The same by run".
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral
from typing import Any

import torch

from clbook import checkpoints
from clbook.matmul import fast_matmul
from clbook.method import Method
from clbook.methods import __all__ as known
from clbook.net import Net, default_net
from clbook.result import Result, provenance
from clbook.scenarios import Scenario, check
from clbook.stack import TEST_ROWS, Stack
from clbook.training import DivergedError, Training

__all__ = ["DivergedError", "Training", "fits", "pick_device", "run"]


def run(
    scenario: Scenario,
    methods: Method | Sequence[Method],
    seeds: int | Sequence[int] = 1,
    *,
    net: Net | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    optimizer: str = "adam",
    lr: float = 1e-3,
    keep_optimizer: bool = False,
    decay: bool = False,
    eval_every: int | None = None,
    eval_samples: int | None = None,
    future: bool = False,
    on_divergence: str = "raise",
    keep_thetas: bool = False,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
    chunk: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Result:
    """Train every method with every seed on the tasks in turn; R[r, i, j] is run r's accuracy on task j after task i.

    The runs are all pairs of `methods` and `seeds` (a number n means seeds 0 .. n-1), methods first. Runs that differ only in
    seed and in float fields of the method train as one stack, at most `chunk` at a time (default: what fits).

    Each task gets `epochs` passes over its samples, in whole batches, or `steps` batches of `batch_size`, with a fresh
    torch.optim optimiser unless keep_optimizer; `decay` lets lr fall linearly to zero over each task. Every `eval_every`
    steps, accuracy on all tasks seen goes into Result.curve (on `eval_samples` test samples of each). `future` measures tasks
    not yet trained as well. on_divergence="nan" lets the other runs go on and leaves NaN. `keep_thetas` keeps theta after
    every task. `device`: "auto" takes CUDA, MPS or CPU. `checkpoint` names a folder from which a run that was cut short goes
    on. `progress` shows a bar (default: unless CLBOOK_PROGRESS=0).

    Raises ValueError for bad input before training starts, DivergedError when parameters stop being finite.
    """
    training = Training(
        epochs, steps, batch_size, optimizer, lr, keep_optimizer, decay, eval_every, eval_samples, future, on_divergence
    )  # fmt: skip
    methods, seeds = _methods(methods), _seeds(seeds)
    _check(scenario, methods)
    where = pick_device(device)
    _check_dtype(dtype, where)
    scenario = scenario.to(where, dtype)
    net = (default_net(scenario) if net is None else net).with_loss(scenario.loss)
    _check_net(net, scenario)
    started, outcomes = time.perf_counter(), {}
    jobs = [(m, s) for m in methods for s in seeds]
    digest = "" if checkpoint is None else checkpoints.digest(scenario)
    for number, group in enumerate(_groups(jobs, net, scenario, training, where, chunk)):
        stack = Stack([jobs[i] for i in group], net, scenario, training, dtype, keep_thetas)
        file = checkpoints.Checkpoint(checkpoint, number, stack.fingerprint(digest))
        with fast_matmul():
            trained = stack.train(file, _show(progress))
        outcomes |= dict(zip(group, trained, strict=True))
    seconds = time.perf_counter() - started
    return Result.join(
        [outcomes[i] for i in range(len(jobs))],
        jobs,
        scenario,
        provenance(training, scenario, where, dtype, seconds, net),
    )


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """For "auto" CUDA, else MPS, else the CPU; anything else is taken as torch names it.

    Raises ValueError for a device that torch does not know or that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'unknown device {device!r}: choose "auto", {", ".join(there)}') from error
    if not there.get(chosen.type, True):
        raise ValueError(f'there is no device {device!r} here; device="auto" takes {pick_device("auto")}')
    return chosen


def _methods(methods: Any) -> list[Any]:
    """One method or several, as a list of methods."""
    given = list(methods) if isinstance(methods, Sequence) and not isinstance(methods, str) else [methods]
    if not given:
        raise ValueError("run needs at least one method, got none")
    for m in given:
        if not isinstance(m, Method):
            names = ", ".join(known)
            raise ValueError(f"unknown method {m!r}: give an instance, such as EWC(lam=100); clbook.methods has {names}")
    return given


def _seeds(seeds: Any) -> list[int]:
    """A number of seeds, or the seeds themselves, as Python's own integers."""
    given = list(range(int(seeds))) if isinstance(seeds, Integral) else list(seeds)
    if not given or not all(isinstance(s, Integral) for s in given):
        raise ValueError(f"run needs at least one seed, and seeds are whole numbers; got {seeds!r}")
    return [int(s) for s in given]


def _check(scenario: Scenario, methods: list[Method]) -> None:
    for m in methods:
        if m.needs_labels and scenario.loss != "classification":
            raise ValueError(f"{m.label} needs labels, and the tasks have none; use MAS, L2, generative replay or Finetune")
        if m.needs_task and scenario.kind != "task":
            raise ValueError(f'{m.label} must be told the task at test time: it needs kind="task", got kind="{scenario.kind}"')
    check(scenario)


def _check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    if not dtype.is_floating_point or (device.type == "mps" and dtype == torch.float64):
        raise ValueError(f"dtype must be a floating type that the device {device} has, such as torch.float32, got {dtype}")


def _check_net(net: Net, scenario: Scenario) -> None:
    x = scenario.data.x[:1].cpu()
    try:
        with torch.no_grad():
            got = net(net.init(0).to(x.dtype), x).shape[-1]
    except RuntimeError as error:
        raise ValueError(f"the network does not take this scenario's inputs, which are [B, {x.shape[1]}]: {error}") from error
    wanted = x.shape[-1] if scenario.loss == "reconstruction" else scenario.n_outputs
    if got != wanted:
        raise ValueError(f"the network has {got} outputs, and this scenario needs {wanted}")


def _groups(
    jobs: list[tuple[Method, int]], net: Net, scenario: Scenario, training: Training, device: torch.device, chunk: int | None
) -> list[list[int]]:
    """Positions of the jobs that can train as one stack, cut into chunks."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    alike: dict[Any, list[int]] = {}
    for i, (m, _) in enumerate(jobs):
        fixed = tuple((f.name, getattr(m, f.name)) for f in fields(m) if f.name not in m.hyper)
        alike.setdefault((type(m), fixed), []).append(i)
    most = chunk or fits(net, training.batch_size, device)
    sizes = {key: most if key[0].stacks else 1 for key in alike}
    return [group[i : i + sizes[key]] for key, group in alike.items() for i in range(0, len(group), sizes[key])]


def fits(net: Net, batch_size: int, device: torch.device) -> int:
    """How many runs to stack: on a CPU only small networks gain by it, on a GPU a third of the free memory."""
    if device.type != "cuda":
        size = 2**20 // net.n_params
        return size if size >= 4 else 1  # a wide network fills the cores by itself, and faster than in a stack
    free, _ = torch.cuda.mem_get_info(device)
    widest = max(max(s) for s in net.shapes if len(s))
    return max(1, int(free / 3 / (4 * (12 * net.n_params + 8 * max(batch_size, TEST_ROWS) * widest))))


def _show(progress: bool | None) -> bool:
    return os.environ.get("CLBOOK_PROGRESS") != "0" if progress is None else progress
