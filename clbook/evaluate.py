"""What is measured while runs train: the rows of R, the curve, and whether anything has diverged.

Book: notebooks/01_forgetting, "The matrix R".
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from clbook.runs import Runs
from clbook.scenarios import Batch, Scenario

if TYPE_CHECKING:
    from clbook.loop import Training

TEST_ROWS = 2000  # test samples at a time
CHECK_EVERY = 25  # steps between looks for runs that diverged


class DivergedError(ArithmeticError):
    """A run whose parameters are no longer finite."""


@dataclass
class Outcome:
    """One run's share of a Result."""

    R: np.ndarray
    curve: np.ndarray
    curve_steps: np.ndarray
    memory_bytes: int
    seconds: float
    n_params: int
    theta: Tensor
    thetas: list[Tensor]


class Record:
    """What R runs have shown so far: R [R, T, T], the curve [E of R, T] at curve_steps [E of (task, steps in all)].

    `task` is the one being trained, `step` how many steps of it are done and `steps` how many in all; thetas [R, P] are kept
    after each task where that was asked for.
    """

    def __init__(self, runs: Runs, scenario: Scenario, training: Training, keep_thetas: bool, progress: bool | None) -> None:
        self.runs, self.scenario, self.training, self.keep_thetas = runs, scenario, training, keep_thetas
        tasks = len(scenario)
        self.R = np.full((len(runs), tasks, tasks), np.nan)
        self.curve: list[np.ndarray] = []
        self.curve_steps: list[tuple[int, int]] = []
        self.thetas: list[Tensor] = []
        self.task, self.step, self.steps, self.seconds, self._looked = 0, 0, 0, 0.0, time.perf_counter()
        total = sum(training.steps_for(len(rows)) for rows in scenario.rows[runs.net.knows :])
        shown = os.environ.get("CLBOOK_PROGRESS") != "0" if progress is None else progress
        self.bar = tqdm(total=total, disable=not shown, desc=runs.method.label)

    def after_step(self) -> None:
        """Count a step, look for runs that diverged, and measure where it is time to. Raises DivergedError."""
        self.step, self.steps = self.step + 1, self.steps + 1
        measure = bool(self.training.eval_every) and self.steps % (self.training.eval_every or 1) == 0
        last = self.step == self.training.steps_for(len(self.scenario.rows[self.task]))
        if measure or last or self.step % CHECK_EVERY == 1:
            self._check_finite()
        if measure:
            self.curve.append(self.row(self.training.eval_samples))
            self.curve_steps.append((self.task, self.steps))
        if not self.bar.disable:
            self._show()

    def after_task(self) -> None:
        """A row of R, and on to the next task."""
        self.R[:, self.task] = self.row()
        if self.keep_thetas:
            self.thetas.append(self.runs.theta.cpu().clone())
        self.task, self.step = self.task + 1, 0

    def outcomes(self) -> list[Outcome]:
        """What each run leaves."""
        self.bar.close()
        runs, tasks = self.runs, len(self.scenario)
        curve = np.stack(self.curve, 1) if self.curve else np.zeros((len(runs), 0, tasks))
        steps = np.array(self.curve_steps, dtype=int).reshape(-1, 2)
        share, thetas = self._time() / len(runs), runs.theta.cpu().clone()
        return [
            Outcome(
                self.R[r], curve[r], steps, memory, share, runs.net.n_params, thetas[r], [after[r] for after in self.thetas]
            )
            for r, memory in enumerate(runs.memory_bytes(self.scenario))
        ]

    def row(self, samples: int | None = None) -> np.ndarray:
        """Every run's score on every task seen (or all, where the future is asked for too) [R, T]; NaN elsewhere."""
        row = np.full((len(self.runs), len(self.scenario)), np.nan)
        for j in range(len(self.scenario) if self.training.future else self.task + 1):
            row[:, j] = score(self.runs, self.scenario, j, self.task, samples)
        return row

    def saved(self) -> dict[str, Tensor]:
        """Everything measured, by name."""
        return {
            "R": torch.from_numpy(self.R),
            "curve": torch.from_numpy(np.array(self.curve).reshape(-1, *self.R.shape[:2])),
            "curve_steps": torch.tensor(self.curve_steps, dtype=torch.int64).reshape(-1, 2),
            "counters": torch.tensor([self.task, self.step, self.steps, self._time()], dtype=torch.float64),
            **{f"thetas.{i}": theta for i, theta in enumerate(self.thetas)},
        }

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Go back to what `saved` gave."""
        self.R = saved["R"].numpy()
        self.curve, self.curve_steps = list(saved["curve"].numpy()), [(int(k), int(s)) for k, s in saved["curve_steps"]]
        self.thetas = [saved[f"thetas.{i}"] for i in range(sum(name.startswith("thetas.") for name in saved))]
        task, step, steps, self.seconds = saved["counters"].tolist()
        self.task, self.step, self.steps = int(task), int(step), int(steps)
        self._looked = time.perf_counter()
        self.bar.update(self.steps)

    def _time(self) -> float:
        """Seconds spent, those before a stop included."""
        now = time.perf_counter()
        self.seconds, self._looked = self.seconds + now - self._looked, now
        return self.seconds

    def _check_finite(self) -> None:
        gone = self.runs.check_finite()
        if gone and self.training.on_divergence == "raise":
            raise DivergedError(self._diverged(gone[0]))

    def _diverged(self, r: int) -> str:
        """What happened, in numbers, and what to do."""
        runs, lr = self.runs, self.training.lr
        method, omega = runs.methods[r], runs.state.get("omega")
        lam = getattr(method, "lam", None)
        where = f"step {self.step} of task {self.task} ({self.scenario.names[self.task]})"
        text = f"{method} with seed {runs.seeds[r]} diverged by {where}: lr = {lr:g}"
        if omega is None or lam is None:
            return f"{text}. Take a smaller lr."
        text += f", lambda = {lam:g}, eta*lambda*max(Omega) = {lr * lam * float(omega[r].max()):.3g}"
        if getattr(method, "pull", None) != "explicit":
            return f"{text}. An implicit step cannot make a run diverge, so it is the optimiser's own: take a smaller lr."
        return f'{text}; an explicit step of SGD needs less than 2. Take a smaller lr or lambda, or pull="implicit".'

    def _show(self) -> None:
        self.bar.update()
        if self.steps % 200 == 0 and self.runs.alive.any():
            now = np.nanmean(score(self.runs, self.scenario, self.task, self.task, 500))
            name = self.scenario.names[self.task]
            self.bar.set_postfix_str(f"task {self.task + 1}/{len(self.scenario)} {name}, {now:.3f}")


def score(runs: Runs, scenario: Scenario, j: int, seen: int, samples: int | None = None) -> np.ndarray:
    """Every run's mean score on the test samples of task j [R] once task `seen` is being trained; NaN for a diverged run."""
    x, y = scenario.test(j, samples)
    mask, total = scenario.mask[seen, j], torch.zeros(len(runs), dtype=torch.float64)
    for i in range(0, len(x), TEST_ROWS):
        xi, yi = x[i : i + TEST_ROWS], y[i : i + TEST_ROWS]
        task = torch.full((len(xi),), j, device=x.device)
        batch = Batch(xi, yi, mask.expand(len(xi), -1), task, task)
        total += runs.scores(batch).cpu().double().sum(-1)
    return torch.where(runs.alive, total / len(x), torch.nan).numpy()
