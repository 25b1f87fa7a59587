"""Averages of networks: incremental moment matching, and the plain average. Book: book/families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clbook.checks import Count, InputError, Strength
from clbook.importance import fisher
from clbook.method import Rng, State, merge
from clbook.methods.l2 import L2
from clbook.net import Net
from clbook.scenarios import Batch, Task


@dataclass(frozen=True)
class IMM(L2):
    r"""Incremental moment matching: train the tasks in turn, then predict with a weighted mean of the networks.

    merged = sum_k w_k theta_k / sum_k w_k, for each parameter;   mean: w_k = 1,   mode: w_k = F_k, the Fisher of task k

    theta_k starts at theta_{k-1} (`transfer` = "weights") or at the first task's start ("none"), and lam ties it to theta_{k-1}
    (L2-transfer: lam / 2 ||theta - theta_{k-1}||^2). The merged network is for use between tasks; the next task goes on
    from theta_k. The mode is the lowest point of the merged spring of EWC; with equal Fishers it is the mean.

    Raises InputError for a negative lam and unknown words. Needs no labels.
    Source: Lee et al. 2017 (arXiv:1703.08475), section 3, with equal alphas.
    """

    lam: Strength = 0.0
    matching: Literal["mean", "mode"] = "mode"
    transfer: Literal["weights", "none"] = "weights"
    n_samples: Count = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.carry != "newest":
            raise InputError(f'{self.label} ties theta to the network before alone: carry must be "newest", got {self.carry!r}')

    def start(self, net: Net, theta: Tensor) -> State:
        mine = {"weight": torch.zeros_like(theta), "merged": theta.clone(), "origin": theta.clone()}
        return super().start(net, theta) | mine | {"between": torch.zeros((), dtype=torch.bool, device=theta.device)}

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        start = state["origin"] if self.transfer == "none" else theta
        return start, state | {"between": torch.zeros_like(state["between"])}

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        weight = torch.ones_like(theta)
        if self.matching == "mode":
            rows = torch.randperm(len(task.x), generator=rng)[: self.n_samples].to(task.x.device)
            weight = fisher(net, theta, task.x[rows], mask=task.mask)
        both = merge({"omega": state["weight"], "theta_star": state["merged"]}, weight, theta)
        spring = super().after_task(net, theta, state, task, rng)
        done = torch.ones_like(state["between"])
        return state | spring | {"weight": both["omega"], "merged": both["theta_star"], "between": done}

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        return net(torch.where(state["between"], state["merged"], theta), batch.x)

    @property
    def keeps(self) -> tuple[str, ...]:  # type: ignore[override]
        """The merged network, and what its next merging or the next task's start needs."""
        return ("merged", *["weight"] * (self.matching == "mode"), *["origin"] * (self.transfer == "none"))


@dataclass(frozen=True)
class Average(IMM):
    """The plain average of networks that were each trained on one task, all from the same start.

    theta = 1/K sum_k theta_k. What IMM's mean would be without carrying the weights from task to task.
    """

    matching: Literal["mean", "mode"] = "mean"
    transfer: Literal["weights", "none"] = "none"
