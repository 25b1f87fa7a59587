"""L2: every spring equally stiff. Book: book/ewc, "The springs"; notebooks/03_ewc, "Three tasks"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.method import Carry, Rng, Spring, State
from clbook.net import Net
from clbook.scenarios import Task


@dataclass(frozen=True)
class L2(Spring):
    """Tie every parameter to its value after the last task with the same stiffness.

    loss = L_task + (lam / 2) sum_i (theta_i - theta*_i)^2, so Omega = 1. Works without labels.
    Source: Kirkpatrick et al. 2017, fig. 2A (the "L2" curves).
    """

    keeps = ("theta_star",)  # the ones need no memory
    carry: Carry = "newest"

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> Tensor:
        return torch.ones_like(theta)
