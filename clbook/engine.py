"""The only training loop: `run(scenario, methods, seeds) -> Result`.

Runs of the same kind are stacked, Theta [runs, P], and one step is `torch.func.vmap` of the one-run step, so several seeds and
several strengths train in one batch and each gets what it would get alone. Book: notebooks/01_forgetting, "The same by run".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map
from tqdm.auto import tqdm

from clbook import checkpoints
from clbook.method import Method, State, Step
from clbook.net import Net, default_net, masked
from clbook.result import Result, provenance
from clbook.scenarios import Batch, Scenario, check

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
TEST_ROWS = 2000  # test samples at a time
CHECK_EVERY = 25  # steps between looks for runs that diverged


class DivergedError(ArithmeticError):
    """A run whose parameters are no longer finite."""


@dataclass(frozen=True)
class Training:
    """How every run of one call is trained; the arguments of `run` of the same names."""

    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    keep_optimizer: bool = False
    eval_every: int | None = None
    eval_samples: int | None = None
    future: bool = False
    on_divergence: str = "raise"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"give either epochs or steps per task, got epochs={self.epochs} and steps={self.steps}")
        for name in ("epochs", "steps", "batch_size", "eval_every", "eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if self.on_divergence not in ("raise", "nan"):
            raise ValueError(f'on_divergence must be "raise" or "nan", got {self.on_divergence!r}')

    def steps_for(self, n: int) -> int:
        """Steps on a task of n samples."""
        return self.steps or max(1, (self.epochs or 0) * n // self.batch_size)


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
    eval_every: int | None = None,
    eval_samples: int | None = None,
    future: bool = False,
    on_divergence: str = "raise",
    keep_thetas: bool = False,
    device: str = "auto",
    dtype: torch.dtype = torch.float32,
    chunk: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Result:
    """Train every method with every seed on the tasks in turn; R[r, i, j] is run r's accuracy on task j after task i.

    The runs are all pairs of `methods` and `seeds` (a number n means seeds 0 .. n-1), methods first. Runs that differ only in
    seed and in float fields of the method train as one stack, at most `chunk` at a time (default: what fits).

    Each task gets `epochs` passes over its samples or `steps` batches of `batch_size`, with a fresh torch.optim optimiser
    unless keep_optimizer. `eval_every` steps, accuracy on all tasks seen goes into Result.curve (on `eval_samples` test
    samples of each). `future` measures tasks not yet trained as well. on_divergence="nan" lets the other runs go on and
    leaves NaN. `keep_thetas` keeps theta after every task. `device`: "auto" takes CUDA, MPS or CPU. `checkpoint` names a folder from which
    a run that was cut short goes on. `progress` shows a bar (default: unless CLBOOK_PROGRESS=0).

    Raises ValueError for bad input before training starts, DivergedError when parameters stop being finite.
    """
    training = Training(
        epochs, steps, batch_size, optimizer, lr, keep_optimizer, eval_every, eval_samples, future, on_divergence
    )  # fmt: skip
    methods, seeds = _list(methods), list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    _check(scenario, methods, seeds)
    where = pick_device(device)
    scenario = scenario.to(where, dtype)
    net = (default_net(scenario) if net is None else net).with_loss(scenario.loss)
    _check_net(net, scenario)
    started, outcomes = time.perf_counter(), {}
    jobs = [(m, s) for m in methods for s in seeds]
    for number, group in enumerate(_groups(jobs, net, scenario, training, where, chunk)):
        stack = _Stack([jobs[i] for i in group], net, scenario, training, dtype, keep_thetas)
        file = checkpoints.Checkpoint(checkpoint, number, stack.fingerprint())
        for i, outcome in zip(group, stack.train(file, _show(progress)), strict=True):
            outcomes[i] = outcome
    seconds = time.perf_counter() - started
    return Result.join(
        [outcomes[i] for i in range(len(jobs))],
        jobs,
        scenario,
        provenance(training, scenario, where, dtype, seconds, net),
    )


def pick_device(device: str = "auto") -> torch.device:
    """"auto": CUDA, else MPS, else the CPU; anything else is taken as torch names it."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@dataclass
class Outcome:
    """One run's share of a Result."""

    R: np.ndarray
    curve: np.ndarray
    curve_steps: np.ndarray
    theta: Tensor
    thetas: list[Tensor]
    memory_bytes: int
    seconds: float


class _Stack:
    """Runs that train as one batch: methods of one class with the same fields but for the floats."""

    def __init__(
        self, jobs: list[tuple[Method, int]], net: Net, scenario: Scenario, training: Training, dtype: torch.dtype, keep: bool
    ) -> None:
        self.jobs, self.scenario, self.training, self.keep = jobs, scenario, training, keep
        self.methods, self.seeds = [m for m, _ in jobs], [s for _, s in jobs]
        self.method = self.methods[0]
        self.net = self.method.extend(net, scenario)
        self.net.module.to(scenario.device)
        device = scenario.device
        self.theta = torch.stack([self.net.init(s).to(device, dtype) for s in self.seeds])  # [R, P]
        self.hyper = {
            name: torch.tensor([m.hyper[name] for m in self.methods], device=device, dtype=dtype) for name in self.method.hyper
        }
        self.data_rng = [torch.Generator().manual_seed(s) for s in self.seeds]
        self.method_rng = [torch.Generator().manual_seed(s + 1_000_003) for s in self.seeds]
        self.state = self._restack([m.start(self.net, t) for m, t in zip(self.methods, self.theta, strict=True)])
        T = len(scenario)
        self.R = np.full((len(jobs), T, T), np.nan)
        self.curve: list[np.ndarray] = []  # each [R, T]
        self.curve_steps: list[tuple[int, int]] = []  # (task, steps in all)
        self.thetas: list[Tensor] = []
        self.alive = torch.ones(len(jobs), dtype=torch.bool, device=device)
        self.done_steps, self.seconds, self.next_task = 0, 0.0, 0
        self.optimizer: torch.optim.Optimizer | None = None

    # the loop -----------------------------------------------------------------------------------------------------------

    def train(self, file: checkpoints.Checkpoint, progress: bool) -> list[Outcome]:
        file.restore(self)
        total = sum(self.training.steps_for(len(rows)) for rows in self.scenario.rows)
        with tqdm(total=total, initial=self.done_steps, disable=not progress, desc=self.method.label) as bar:
            for k in range(self.next_task, len(self.scenario)):
                started = time.perf_counter()
                self._train_task(k, bar)
                self._evaluate_into(k)
                self.next_task, self.seconds = k + 1, self.seconds + time.perf_counter() - started
                file.save(self)
        return self._outcomes()

    def _train_task(self, k: int, bar: tqdm) -> None:
        task = self.scenario[k]
        self._before(task)
        theta = torch.nn.Parameter(self.theta)
        self.optimizer = self._optimizer(theta)
        step = self._one_step(k)
        index = self._index(k)  # [R, S, B]
        for s in range(index.shape[1]):
            self.theta, self.state = step(theta, self._batch(k, index[:, s]), (s + 1) / index.shape[1])
            self.done_steps += 1
            if s % CHECK_EVERY == 0 or s == index.shape[1] - 1:
                self._check_finite(k, s)
            if self.training.eval_every and self.done_steps % self.training.eval_every == 0:
                self._evaluate_curve(k)
            self._show(bar, k)
        self.theta = theta.detach().clone()
        self._after(task)

    def _one_step(self, k: int) -> Callable[[Tensor, Batch], tuple[Tensor, State]]:
        """One step of every run: direction, optimiser, after_step."""
        method, net, opt = self.method, self.net, self.optimizer
        runs = len(self.jobs)
        direction = self._each(lambda h, t, s, b: method.bind(h).direction(net, t, s, b))
        after = self._each(lambda h, t, s, step: method.bind(h).after_step(t, s, step))
        if runs == 1 and type(method).direction is Method.direction:
            direction = self._plain_direction
        reacts = type(method).after_step is not Method.after_step

        def step(theta: Tensor, batch: Batch, done: float) -> tuple[Tensor, State]:
            theta.grad = direction(self.hyper, theta.detach(), self.state, batch)
            before = theta.detach().clone() if reacts else None
            opt.step()
            if not reacts:
                return theta.detach(), self.state
            taken = Step(before, theta.grad, self._eta(theta), theta.new_full((runs,), done))
            new, state = after(self.hyper, theta.detach(), self.state, taken)
            theta.data.copy_(new)
            return theta.detach(), state

        return step

    def _plain_direction(self, hyper: dict[str, Tensor], theta: Tensor, state: State, batch: Batch) -> Tensor:
        """One run needs no vmap: the gradient by plain autograd."""
        t = theta[0].requires_grad_()
        one = tree_map(lambda v: v[0], (hyper, state, batch))
        return torch.autograd.grad(self.method.bind(one[0]).loss(self.net, t, one[1], one[2]), t)[0][None]

    def _each(self, f: Callable) -> Callable:
        """f of one run as a function of the stack."""
        if len(self.jobs) > 1:
            return vmap(f)
        return lambda *args: tree_map(lambda v: v[None], f(*tree_map(lambda v: v[0], args)))

    # what goes into a step ------------------------------------------------------------------------------------------------

    def _optimizer(self, theta: torch.nn.Parameter) -> torch.optim.Optimizer:
        """A torch.optim optimiser over the stack: they are elementwise, so they serve [R, P] as they are."""
        fused = theta.dtype == torch.float32 and theta.device.type in ("cpu", "cuda")
        new = OPTIMIZERS[self.training.optimizer]([theta], lr=self.training.lr, fused=fused)
        if self.training.keep_optimizer and self.optimizer is not None:
            new.load_state_dict(self.optimizer.state_dict())
        return new

    def _eta(self, theta: Tensor) -> Tensor:
        """The step size of the optimiser's last step, for each run: lr, or lr / (sqrt(v_hat) + eps) for Adam."""
        group, kept = self.optimizer.param_groups[0], self.optimizer.state[theta]
        lr = group["lr"]
        if "exp_avg_sq" not in kept:
            return theta.new_full((len(theta),), lr)
        correction = (1 - group["betas"][1] ** float(kept["step"])) ** 0.5
        return lr / (kept["exp_avg_sq"].sqrt().div_(correction).add_(group["eps"]))

    def _index(self, k: int) -> Tensor:
        """Which samples each step of each run sees [R, S, B]: shuffled passes over the data, one after the other."""
        n = sum(len(self.scenario.rows[j]) for j in self._sources(k))
        steps, size = self.training.steps_for(len(self.scenario.rows[k])), self.training.batch_size
        return torch.stack([_shuffled(n, steps * size, g).view(steps, size) for g in self.data_rng]).to(self.theta.device)

    def _sources(self, k: int) -> range:
        """The tasks from which batches are drawn while task k is trained."""
        return {"task": range(k, k + 1), "seen": range(k + 1), "all": range(len(self.scenario))}[self.method.sees]

    def _batch(self, k: int, index: Tensor) -> Batch:
        """The batch of every run: x [R, B, D], y [R, B], mask [R, B, C]."""
        sources = self._sources(k)
        if len(sources) == 1:
            batch = self.scenario.batch(k, index)
        else:
            ends = torch.tensor([len(self.scenario.rows[j]) for j in sources], device=index.device).cumsum(0)
            task = torch.searchsorted(ends, index.contiguous(), right=True)
            starts = torch.cat([ends.new_zeros(1), ends[:-1]])
            batch = self.scenario.batch(task, index - starts[task], k)
        gates = [self.net.dropout((index.shape[1],), g) for g in self.method_rng]
        if gates[0]:
            batch = batch._replace(gates=self._restack(gates))
        if type(self.method).prepare is not Method.prepare:
            extra = [
                m.prepare(self._state(r), self.scenario, k, index.shape[1], self.method_rng[r]) for r, m in enumerate(self.methods)
            ]
            batch = batch._replace(extra=self._restack(extra))
        return batch

    # before and after a task ---------------------------------------------------------------------------------------------

    def _before(self, task: Any) -> None:
        if type(self.method).before_task is Method.before_task:
            return
        pairs = [
            m.before_task(self.net, self.theta[r], self._state(r), task, self.method_rng[r]) for r, m in enumerate(self.methods)
        ]
        self.theta, self.state = torch.stack([t for t, _ in pairs]), self._restack([s for _, s in pairs])

    def _after(self, task: Any) -> None:
        live = [r for r in range(len(self.jobs)) if self.alive[r]]
        if live and type(self.method).after_task is not Method.after_task:
            new = {r: self.methods[r].after_task(self.net, self.theta[r], self._state(r), task, self.method_rng[r]) for r in live}
            # a run that diverged keeps the shapes of the others, which a method may change between tasks
            self.state = self._restack([new.get(r, new[live[0]]) for r in range(len(self.jobs))])
        if self.keep:
            self.thetas.append(self.theta.cpu().clone())

    def _state(self, r: int) -> State:
        return {name: value[r] for name, value in self.state.items()}

    def _restack(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([s[name] for s in states]).to(self.scenario.device) for name in states[0]}

    # looking at the runs --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _scores(self, j: int, seen: int, samples: int | None = None) -> np.ndarray:
        """Every run's accuracy on task j [R] (minus the squared error for reconstruction)."""
        x, y = self.scenario.test(j)
        x, y = x[:samples], y[:samples]
        mask = self.scenario.mask[seen, j]
        totals = torch.zeros(len(self.jobs), dtype=torch.float64)
        for i in range(0, len(x), TEST_ROWS):
            xi, yi = x[i : i + TEST_ROWS], y[i : i + TEST_ROWS]
            task = torch.full_like(yi, j)
            batch = Batch(xi, yi, mask.expand(len(xi), -1), task, task, {}, {})
            outputs = self._predict(batch)  # [R, M, C]
            if self.net.loss_name == "reconstruction":
                totals -= (outputs - xi).square().mean(-1).sum(-1).double().cpu()
            else:
                totals += (masked(outputs, mask).argmax(-1) == yi).sum(-1).double().cpu()
        scores = (totals / len(x)).numpy()
        scores[~self.alive.cpu().numpy()] = np.nan
        return scores

    def _predict(self, batch: Batch) -> Tensor:
        method, net = self.method, self.net
        if len(self.jobs) == 1:
            return method.predict(net, self.theta[0], self._state(0), batch)[None]
        one = lambda h, t, s: method.bind(h).predict(net, t, s, batch)  # noqa: E731
        return vmap(one)(self.hyper, self.theta, self.state)

    def _evaluate_into(self, k: int) -> None:
        for j in range(len(self.scenario) if self.training.future else k + 1):
            self.R[:, k, j] = self._scores(j, k)

    def _evaluate_curve(self, k: int) -> None:
        now = np.full((len(self.jobs), len(self.scenario)), np.nan)
        for j in range(len(self.scenario) if self.training.future else k + 1):
            now[:, j] = self._scores(j, k, self.training.eval_samples)
        self.curve.append(now)
        self.curve_steps.append((k, self.done_steps))

    def _check_finite(self, k: int, s: int) -> None:
        finite = torch.isfinite(self.theta.sum(1))
        if bool((finite | ~self.alive).all()):
            return
        r = int((~finite & self.alive).nonzero()[0])
        if self.training.on_divergence == "raise":
            raise DivergedError(self._diverged(r, k, s))
        self.alive &= finite

    def _diverged(self, r: int, k: int, s: int) -> str:
        method, lr = self.methods[r], self.training.lr
        text = f"{method} with seed {self.seeds[r]} diverged by step {s + 1} of task {k} ({self.scenario.names[k]}): lr = {lr:g}"
        if "omega" in self.state and hasattr(method, "lam"):
            largest = lr * method.lam * float(self.state["omega"][r].max())
            text += f", lambda = {method.lam:g}, eta*lambda*max(Omega) = {largest:.3g}, and an explicit step needs less than 2"
        return text + '. Take a smaller lr or lambda, or step="implicit", which no lambda makes diverge.'

    def _show(self, bar: tqdm, k: int) -> None:
        if bar.disable:
            return
        bar.update()
        if self.done_steps % 200 == 0:
            accuracy = self._scores(k, k, 500).mean()
            bar.set_postfix_str(f"task {k + 1}/{len(self.scenario)} {self.scenario.names[k]}, accuracy {accuracy:.3f}")

    def _outcomes(self) -> list[Outcome]:
        curve = np.stack(self.curve, 1) if self.curve else np.zeros((len(self.jobs), 0, len(self.scenario)))
        steps = np.array(self.curve_steps, dtype=int).reshape(-1, 2)
        memory = [m.memory_bytes(self._state(r), self.scenario) for r, m in enumerate(self.methods)]
        return [
            Outcome(
                self.R[r], curve[r], steps, self.theta[r].cpu(), [t[r] for t in self.thetas], memory[r], self.seconds / len(self.jobs)
            )
            for r in range(len(self.jobs))
        ]

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued."""
        s = self.scenario
        return {
            "runs": [[repr(m), seed] for m, seed in self.jobs],
            "training": {f.name: getattr(self.training, f.name) for f in fields(self.training)},
            "scenario": [s.data.name, s.kind, list(s.names), [len(r) for r in s.rows], s.n_outputs],
            "n_params": self.net.n_params,
        }


def _check(scenario: Scenario, methods: list[Method], seeds: list[int]) -> None:
    if not methods or not seeds:
        raise ValueError(f"run needs at least one method and one seed, got {len(methods)} and {len(seeds)}")
    for m in methods:
        if not isinstance(m, Method):
            raise ValueError(f"{m!r} is not a method: give an instance, such as clbook.methods.EWC(lam=100)")
        if m.needs_labels and scenario.loss != "classification":
            raise ValueError(f"{m.label} needs labels, and the tasks have none; use MAS, L2, generative replay or Finetune")
        if m.needs_task and scenario.kind != "task":
            raise ValueError(f'{m.label} must be told the task at test time: it needs kind="task", got kind="{scenario.kind}"')
    check(scenario)


def _check_net(net: Net, scenario: Scenario) -> None:
    x = scenario.data.x[:1].cpu()
    with torch.no_grad():
        got = net(net.init(0).to(x.dtype), x).shape[-1]
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
    fits = chunk or _fits(net, training.batch_size, device)
    sizes = {key: fits if key[0].stacks else 1 for key in alike}
    return [group[i : i + sizes[key]] for key, group in alike.items() for i in range(0, len(group), sizes[key])]


def _fits(net: Net, batch_size: int, device: torch.device) -> int:
    """How many runs to stack: on a CPU only small networks gain by it, on a GPU a third of the free memory."""
    if device.type != "cuda":
        size = 2**20 // net.n_params
        return size if size >= 4 else 1  # a wide network fills the cores by itself, and faster than in a stack
    free, _ = torch.cuda.mem_get_info(device)
    widest = max(max(s) for s in net.shapes if len(s))
    return max(1, int(free / 3 / (4 * (12 * net.n_params + 8 * max(batch_size, TEST_ROWS) * widest))))


def _shuffled(n: int, wanted: int, generator: torch.Generator) -> Tensor:
    """`wanted` indices below n: whole shuffled passes, the last one cut."""
    passes = -(-wanted // n)
    return torch.cat([torch.randperm(n, generator=generator) for _ in range(passes)])[:wanted]


def _list(methods: Method | Sequence[Method]) -> list[Method]:
    return [methods] if isinstance(methods, Method) else list(methods)


def _show(progress: bool | None) -> bool:
    return os.environ.get("CLBOOK_PROGRESS") != "0" if progress is None else progress
