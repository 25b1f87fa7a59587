"""Elastic weight consolidation: springs as stiff as the Fisher information. Book: book/ewc; notebooks/03_ewc."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.checks import Count
from clbook.importance import Estimator, fisher
from clbook.method import Rng, Spring, State
from clbook.net import Net
from clbook.scenarios import Task


@dataclass(frozen=True)
class EWC(Spring):
    """Elastic weight consolidation: Omega is the diagonal of the Fisher information at the end of each task.

    loss = L_task + (lam / 2) sum_i F_i (theta_i - theta*_i)^2

    `estimator` and `n_samples` say how the Fisher is estimated: see importance.fisher. `carry` says how several old tasks are
    carried on: "separate" is the paper's, "latest" Huszar's, "online" that of Schwarz et al. The loss and the Fisher are both
    means per observation, so Bayes' rule asks for lam = N_old / N_new, which is 1 for tasks of one size; what protects best is
    stronger by orders of magnitude, so there is no default. Needs no labels unless the estimator does.

    Raises InputError for a negative lam, gamma outside "online", and unknown words.
    Source: Kirkpatrick et al. 2017 (arXiv:1612.00796), eq. 3. Book: book/ewc.
    """

    estimator: Estimator = "exact"
    n_samples: Count = 1000

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> Tensor:
        rows = torch.randperm(len(task.x), generator=rng)[: self.n_samples].to(task.x.device)
        return fisher(net, theta, task.x[rows], task.y[rows], mask=task.mask, estimator=self.estimator, rng=rng)
