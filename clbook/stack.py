"""Runs that train as one batch, and the loop they go through.

Runs of the same kind are stacked, Theta [R, P], and one step is `torch.func.vmap` of the one-run step, so several seeds and
several strengths train in one batch and each gets what it would get alone. Book: notebooks/01_forgetting, "The same by run".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map
from tqdm.auto import tqdm

from clbook.checkpoints import Checkpoint
from clbook.method import Method, State, Step
from clbook.net import Net, masked
from clbook.scenarios import Batch, Scenario, Task
from clbook.training import OPTIMIZERS, DivergedError, Training

TEST_ROWS = 2000  # test samples at a time
CHECK_EVERY = 25  # steps between looks for runs that diverged


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


class Stack:
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
        self.alive = torch.ones(len(jobs), dtype=torch.bool)  # runs that have not diverged
        self.done_steps, self.seconds, self.next_task = 0, 0.0, 0
        self.optimizer: torch.optim.Optimizer | None = None

    # the loop -----------------------------------------------------------------------------------------------------------

    def train(self, file: Checkpoint, progress: bool) -> list[Outcome]:
        """Train on every task in turn, from where `file` left off."""
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
        self.optimizer = self.new_optimizer(theta)
        step = self._one_step(self.optimizer)
        index = self._index(k)  # [R, S, B]
        for s in range(index.shape[1]):
            if self.training.decay:
                self.optimizer.param_groups[0]["lr"] = self.training.lr * (1 - s / index.shape[1])
            if self.alive.any():
                self.theta, self.state = step(theta, self._batch(k, index[:, s]), (s + 1) / index.shape[1])
            self.done_steps += 1
            measure = self.training.eval_every and self.done_steps % self.training.eval_every == 0
            if measure or s % CHECK_EVERY == 0 or s == index.shape[1] - 1:
                self._check_finite(k, s)
            if measure:
                self._evaluate_curve(k)
            self._show(bar, k)
        self.theta = theta.detach().clone()
        self._after(task)

    def _one_step(self, opt: torch.optim.Optimizer) -> Callable[[Tensor, Batch, float], tuple[Tensor, State]]:
        """One step of every run: direction, optimiser, after_step; `done` is the part of the task that it ends."""
        method, net = self.method, self.net
        direction = self._each(lambda h, t, s, b: method.bind(h).direction(net, t, s, b))
        after = self._each(lambda h, t, s, step: method.bind(h).after_step(t, s, step))
        if len(self.jobs) == 1 and type(method).direction is Method.direction:
            direction = self._plain_direction
        reacts = type(method).after_step is not Method.after_step

        def step(theta: Tensor, batch: Batch, done: float) -> tuple[Tensor, State]:
            theta.grad = direction(self.hyper, theta.detach(), self.state, batch)
            before = theta.detach().clone() if reacts else theta
            opt.step()
            if not reacts:
                return theta.detach(), self.state
            taken = Step(before, theta.grad, _eta(opt, theta), theta.new_full((len(theta),), done))
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

    def new_optimizer(self, theta: torch.nn.Parameter) -> torch.optim.Optimizer:
        """A torch.optim optimiser over the stack: they are elementwise, so they serve [R, P] as they are."""
        fused = theta.dtype == torch.float32 and theta.device.type in ("cpu", "cuda")
        new = OPTIMIZERS[self.training.optimizer]([theta], lr=self.training.lr, fused=fused)
        if self.training.keep_optimizer and self.optimizer is not None:
            new.load_state_dict(self.optimizer.state_dict())
        return new

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
            batch = self.scenario.batch(sources[0], index)
        else:
            ends = torch.tensor([len(self.scenario.rows[j]) for j in sources], device=index.device).cumsum(0)
            task = torch.searchsorted(ends, index.contiguous(), right=True)
            starts = torch.cat([ends.new_zeros(1), ends[:-1]])
            batch = self.scenario.batch(task, index - starts[task], sources[-1])  # outputs of all tasks drawn from count
        gates = [self.net.dropout((index.shape[1],), g) for g in self.method_rng]
        if gates[0]:
            batch = batch._replace(gates=self._restack(gates))
        if type(self.method).prepare is not Method.prepare:
            drawn = []
            for r, m in enumerate(self.methods):
                drawn.append(m.prepare(self._state(r), self.scenario, k, index.shape[1], self.method_rng[r]))
            batch = batch._replace(extra=self._restack(drawn))
        return batch

    # before and after a task ---------------------------------------------------------------------------------------------
    # A run that diverged takes another's state, since a method may change its shapes between tasks; its numbers stay NaN.

    def _before(self, task: Task) -> None:
        live = self._live()
        if not live or type(self.method).before_task is Method.before_task:
            return
        new = {}
        for r in live:
            new[r] = self.methods[r].before_task(self.net, self.theta[r], self._state(r), task, self.method_rng[r])
        runs = range(len(self.jobs))
        self.theta = torch.stack([new[r][0] if r in new else self.theta[r] for r in runs])
        self.state = self._restack([new.get(r, new[live[0]])[1] for r in runs])

    def _after(self, task: Task) -> None:
        live = self._live()
        if live and type(self.method).after_task is not Method.after_task:
            new = {}
            for r in live:
                new[r] = self.methods[r].after_task(self.net, self.theta[r], self._state(r), task, self.method_rng[r])
            self.state = self._restack([new.get(r, new[live[0]]) for r in range(len(self.jobs))])
        if self.keep:
            self.thetas.append(self.theta.cpu().clone())

    def _live(self) -> list[int]:
        return self.alive.nonzero().flatten().tolist()

    def _state(self, r: int) -> State:
        return {name: value[r] for name, value in self.state.items()}

    def _restack(self, states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([s[name] for s in states]).to(self.scenario.device) for name in states[0]}

    # looking at the runs --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _scores(self, j: int, seen: int, samples: int | None = None) -> np.ndarray:
        """Every run's accuracy on task j [R] (minus the squared error for reconstruction)."""
        x, y = self.scenario.test(j, samples)
        mask = self.scenario.mask[seen, j]
        totals = torch.zeros(len(self.jobs), dtype=torch.float64)
        for i in range(0, len(x), TEST_ROWS):
            xi, yi = x[i : i + TEST_ROWS], y[i : i + TEST_ROWS]
            task = torch.full_like(yi, j)
            outputs = self._predict(Batch(xi, yi, mask.expand(len(xi), -1), task, task, {}, {}))  # [R, M, C]
            if self.net.loss_name == "reconstruction":
                totals -= (outputs - xi).square().mean(-1).sum(-1).double().cpu()
            else:
                totals += (masked(outputs, mask).argmax(-1) == yi).sum(-1).double().cpu()
        return torch.where(self.alive, totals / len(x), torch.nan).numpy()

    def _predict(self, batch: Batch) -> Tensor:
        method, net = self.method, self.net
        if len(self.jobs) == 1:
            return method.predict(net, self.theta[0], self._state(0), batch)[None]
        return vmap(lambda h, t, s: method.bind(h).predict(net, t, s, batch))(self.hyper, self.theta, self.state)

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
        diverged = self.alive & ~torch.isfinite(self.theta.sum(1)).cpu()
        if diverged.any() and self.training.on_divergence == "raise":
            raise DivergedError(self._diverged(int(diverged.nonzero()[0]), k, s))
        self.alive &= ~diverged

    def _diverged(self, r: int, k: int, s: int) -> str:
        """What happened, in numbers, and what to do."""
        method, lr, omega = self.methods[r], self.training.lr, self.state.get("omega")
        lam = getattr(method, "lam", None)
        where = f"step {s + 1} of task {k} ({self.scenario.names[k]})"
        text = f"{method} with seed {self.seeds[r]} diverged by {where}: lr = {lr:g}"
        if omega is None or lam is None:
            return f"{text}. Take a smaller lr."
        text += f", lambda = {lam:g}, eta*lambda*max(Omega) = {lr * lam * float(omega[r].max()):.3g}"
        if getattr(method, "step", None) != "explicit":
            return f"{text}. An implicit step cannot make a run diverge, so it is the optimiser's own: take a smaller lr."
        return f'{text}; an explicit step of SGD needs less than 2. Take a smaller lr or lambda, or step="implicit".'

    def _show(self, bar: tqdm, k: int) -> None:
        if bar.disable:
            return
        bar.update()
        if self.done_steps % 200 == 0 and self.alive.any():
            accuracy = np.nanmean(self._scores(k, k, 500))
            bar.set_postfix_str(f"task {k + 1}/{len(self.scenario)} {self.scenario.names[k]}, accuracy {accuracy:.3f}")

    def _outcomes(self) -> list[Outcome]:
        curve = np.stack(self.curve, 1) if self.curve else np.zeros((len(self.jobs), 0, len(self.scenario)))
        steps = np.array(self.curve_steps, dtype=int).reshape(-1, 2)
        share = self.seconds / len(self.jobs)
        outcomes = []
        for r, m in enumerate(self.methods):
            memory, thetas = m.memory_bytes(self._state(r), self.scenario), [t[r] for t in self.thetas]
            outcomes.append(Outcome(self.R[r], curve[r], steps, self.theta[r].cpu(), thetas, memory, share))
        return outcomes

    def fingerprint(self, data: str) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued; `data` is a digest of the scenario."""
        return {
            "runs": [[repr(m), seed] for m, seed in self.jobs],
            "training": {f.name: getattr(self.training, f.name) for f in fields(self.training)},
            "scenario": [self.scenario.data.name, self.scenario.kind, self.scenario.loss, len(self.scenario), data],
            "network": [self.net.n_params, repr(self.net.module)],
            "dtype": str(self.theta.dtype),
            "keep_thetas": self.keep,
        }


def _eta(optimizer: torch.optim.Optimizer, theta: Tensor) -> Tensor:
    """The step size of the optimiser's last step, for each run: lr, or lr / (sqrt(v_hat) + eps) for Adam."""
    group, kept = optimizer.param_groups[0], optimizer.state[theta]
    lr = group["lr"]
    if "exp_avg_sq" not in kept:
        return theta.new_full((len(theta),), lr)
    correction = (1 - group["betas"][1] ** float(kept["step"])) ** 0.5
    return lr / (kept["exp_avg_sq"].sqrt().div_(correction).add_(group["eps"]))


def _shuffled(n: int, wanted: int, generator: torch.Generator) -> Tensor:
    """`wanted` indices below n: whole shuffled passes, the last one cut."""
    passes = -(-wanted // n)
    return torch.cat([torch.randperm(n, generator=generator) for _ in range(passes)])[:wanted]
