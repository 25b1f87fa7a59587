"""Elastic weight consolidation: springs as stiff as the Fisher information. Book: book/ewc; notebooks/03_ewc."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor

from clbook.importance import FISHERS, fisher
from clbook.method import Spring, State, merge, nonnegative
from clbook.net import Net
from clbook.scenarios import Task

CONSOLIDATIONS = ("separate", "latest", "online")


@dataclass(frozen=True)
class EWC(Spring):
    """Elastic weight consolidation: Omega is the diagonal of the Fisher information at the end of each task.

    loss = L_task + (lam / 2) sum_i F_i (theta_i - theta*_i)^2

    `consolidation` says how the springs of several old tasks are carried:
    - "separate": one spring per task (Kirkpatrick et al. 2017), merged exactly into one, so memory is constant;
    - "latest": the Fishers summed, centred at the latest optimum (Huszar 2018, arXiv:1712.03847);
    - "online": as "latest", with the old sum decayed by gamma (Schwarz et al. 2018, arXiv:1805.06370, section 2.2).
    `kind` and `n_samples` say how the Fisher is estimated: see importance.fisher. The loss and the
    Fisher are both means per sample, so Bayes' rule asks for lam = N_old / N_new, which is 1 for tasks of one size.

    Raises ValueError for a negative lam, gamma outside [0, 1], and unknown names.
    """

    needs_labels: ClassVar[bool] = True
    consolidation: str = "separate"
    gamma: float = 1.0
    kind: str = "exact"
    n_samples: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        nonnegative(self, "gamma")
        if self.gamma > 1:
            raise ValueError(f"EWC.gamma must lie between 0 and 1, got {self.gamma}")
        if self.consolidation not in CONSOLIDATIONS:
            raise ValueError(f"EWC.consolidation must be one of {', '.join(CONSOLIDATIONS)}, got {self.consolidation!r}")
        if self.kind not in FISHERS:
            raise ValueError(f"EWC.kind must be one of {', '.join(FISHERS)}, got {self.kind!r}")
        if not isinstance(self.n_samples, Integral) or self.n_samples < 1:
            raise ValueError(f"EWC.n_samples must be a whole number of at least 1, got {self.n_samples!r}")

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> Tensor:
        rows = torch.randperm(len(task.x), generator=rng)[: self.n_samples].to(task.x.device)
        return fisher(net, theta, task.x[rows], task.y[rows], mask=task.mask, kind=self.kind, rng=rng)

    def consolidate(self, state: State, omega: Tensor, theta: Tensor) -> State:
        if self.consolidation == "separate":
            return merge(state, omega, theta)
        decay = self.gamma if self.consolidation == "online" else 1.0
        return state | {"omega": decay * state["omega"] + omega, "theta_star": theta}
