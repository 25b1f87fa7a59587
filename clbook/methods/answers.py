"""Which right answer to move to: fine-tuning where several answers are right. Book: notebooks/10_finetuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clbook.checks import InputError
from clbook.likelihood import AnyOf, masked
from clbook.method import Method, Rng, State
from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task


@dataclass(frozen=True)
class OwnAnswers(Method):
    r"""Train on the right part of the network's own answers: of all distributions that are always right, the nearest one.

    loss = - 1/B sum_n sum_c q_nc log p(c | x_n),   q_nc = p_0(c | x_n) y_nc / sum_k p_0(k | x_n) y_nk

    p_0 is the network as it was before the task, y_nc is 1 where c is a right answer. q minimises KL(q || p_0) among the
    distributions with q = 0 wherever y = 0. Raises InputError where the likelihood is not AnyOf.
    Source: Shenfeld et al. 2025 (arXiv:2509.04259), on why the nearest right distribution forgets least.
    Book: notebooks/10_finetuning.
    """

    label = "own answers"
    keeps = ()  # the network as it was, and that only until the task is over

    def extend(self, net: Net, scenario: Scenario) -> Net:
        return _several(self, net, scenario)

    def start(self, net: Net, theta: Tensor) -> State:
        return {"before": theta.clone()}

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        return theta, {"before": theta.clone()}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        right = batch.mask & (batch.y > 0)
        q = masked(net(state["before"], batch.x).detach(), right).softmax(-1)
        log_p = masked(net(theta, batch.x, batch.gates), batch.mask).log_softmax(-1)
        return -(q * log_p.masked_fill(~right, 0.0)).sum(-1).mean()


@dataclass(frozen=True)
class PolicyGradient(Method):
    r"""Train on rewards: the network answers, and is told whether that was right (1) or not (0).

    Ascends J = 1/B sum_n sum_c p(c | x_n) y_nc, the expected reward. "sampled" draws one answer a_n from p(. | x_n) and takes
    (r_n - mean r) grad log p(a_n | x_n), r_n = y_{n a_n}, for the gradient (REINFORCE with a baseline); "exact" sums over all
    answers. Raises InputError where the likelihood is not AnyOf. Source: Williams 1992. Book: notebooks/10_finetuning.
    """

    label = "policy gradient"
    answers: Literal["sampled", "exact"] = "sampled"

    def extend(self, net: Net, scenario: Scenario) -> Net:
        return _several(self, net, scenario)

    def prepare(self, state: State, scenario: Scenario, k: int, batch: Batch, rng: Rng) -> Batch:
        if self.answers == "exact":
            return batch
        gumbel = -torch.empty(batch.y.shape).exponential_(generator=rng).log()  # argmax(log p + gumbel) is a draw from p
        return batch._replace(drawn={"gumbel": gumbel.to(batch.y)})

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        log_p = masked(net(theta, batch.x, batch.gates), batch.mask).log_softmax(-1)
        if self.answers == "exact":
            return -(log_p.exp() * batch.y).sum(-1).mean()
        answer = (log_p.detach() + batch.drawn["gumbel"]).argmax(-1, keepdim=True)
        reward = batch.y.gather(-1, answer)[:, 0]
        return -((reward - reward.mean()) * log_p.gather(-1, answer)[:, 0]).mean()


def _several(method: Method, net: Net, scenario: Scenario) -> Net:
    if not isinstance(scenario.likelihood, AnyOf):
        raise InputError(
            f"{method.label} is for tasks with several right answers, likelihood=AnyOf(), got {scenario.likelihood}"
        )
    return net
