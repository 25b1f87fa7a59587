"""Riemannian walk: springs from a running Fisher and a score along the path. Book: book/families."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.checks import Count, Positive, Share
from clbook.method import Carry, Rng, Spring, State, Update
from clbook.methods.si import own_gradient
from clbook.net import Net
from clbook.scenarios import Task


@dataclass(frozen=True)
class RWalk(Spring):
    r"""Riemannian walk: EWC and SI joined, Omega = F / max F + s / max s.

    F <- alpha g^2 + (1 - alpha) F                                    after every step, over all tasks
    s = sum over stretches of `every` steps of max(dL_i, 0) / (F_i dtheta_i^2 / 2 + xi)

    dL_i = - sum_t g_i(t) (theta_i(t+1) - theta_i(t)) is the fall of the loss in a stretch and dtheta the way gone in it.
    The score is how much a parameter lowered the loss, for the distance it went as the Fisher measures it. Scores of an old
    task and a new one are averaged, so the springs do not grow without end; both are scaled to [0, 1], and lam has the unit
    of the loss.
    g is the gradient of the batch mean and of the task's loss alone (see SI).
    The paper's lambda is lam / 2.

    Raises InputError for a negative lam, alpha outside [0, 1], xi <= 0 and every < 1.
    Source: Chaudhry et al. 2018 (arXiv:1801.10112): objective eq. 9, running Fisher eq. 10.
    """

    keeps = ("fisher", "score", "theta_star")
    alpha: Share = 0.1
    xi: Positive = 1e-3
    every: Count = 10
    carry: Carry = "newest"  # fisher and score are about all tasks already

    def start(self, net: Net, theta: Tensor) -> State:
        names = ("fisher", "score", "new_score", "fall")
        zeros = {name: torch.zeros_like(theta) for name in names}
        return super().start(net, theta) | zeros | {"anchor": theta.clone(), "steps": torch.zeros((), device=theta.device)}

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        new, state = super().after_step(theta, state, update)
        g, steps = own_gradient(self, state, update), state["steps"] + 1
        fisher = self.alpha * g.square() + (1 - self.alpha) * state["fisher"]  # of the batch's gradient, as in the paper
        state = state | {"fisher": fisher, "fall": state["fall"] - g * (new - update.before), "steps": steps}
        due = steps % self.every == 0  # the end of a stretch
        return new, state | {
            "new_score": state["new_score"] + torch.where(due, self.gain(new, state), 0.0),
            "fall": torch.where(due, 0.0, state["fall"]),
            "anchor": torch.where(due, new, state["anchor"]),
        }

    def gain(self, theta: Tensor, state: State) -> Tensor:
        """The score [P] of the stretch that ends at theta; 0 for one that has not begun."""
        way = (theta - state["anchor"]).square()
        return state["fall"].clamp_min(0) / (state["fisher"] * way / 2 + self.xi)

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> Tensor:
        return unit(state["fisher"]) + unit(self.score(theta, state, task))

    def score(self, theta: Tensor, state: State, task: Task) -> Tensor:
        """The scores of the tasks so far, the last, unfinished stretch of this one included."""
        new = state["new_score"] + self.gain(theta, state)
        return new if task.index == 0 else (state["score"] + new) / 2

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        zero = torch.zeros_like(theta)
        return super().after_task(net, theta, state, task, rng) | {
            "score": self.score(theta, state, task),
            "new_score": zero, "fall": zero, "anchor": theta, "steps": torch.zeros_like(state["steps"]),
        }  # fmt: skip


def unit(v: Tensor) -> Tensor:
    """v >= 0 [P] scaled so that its largest entry is 1; zero stays zero."""
    return v / v.max().clamp_min(torch.finfo(v.dtype).tiny)
