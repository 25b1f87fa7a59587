"""Riemannian walk: springs from a running Fisher and a score along the path. Book: book/families."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.method import Spring, State, Step, nonnegative
from clbook.methods.si import own_gradient
from clbook.net import Net
from clbook.scenarios import Scenario, Task


@dataclass(frozen=True)
class RWalk(Spring):
    r"""Riemannian walk: EWC and SI joined, Omega = F / max F + s / max s.

    F <- alpha g^2 + (1 - alpha) F                                    after every step, over all tasks
    s = sum over stretches of `every` steps of max(dL_i, 0) / (F_i dtheta_i^2 / 2 + xi)

    dL_i = - sum_t g_i(t) (theta_i(t+1) - theta_i(t)) is the fall of the loss in a stretch and dtheta the way gone in it.
    The score is how much a parameter lowered the loss, for the distance it went as the Fisher measures it. Scores of an old
    task and a new one are averaged, so the springs do not grow without end; both are scaled to [0, 1], so lam needs no unit.
    g is the gradient of the batch mean and of the task's loss alone (see SI).
    The paper's lambda is lam / 2.

    Raises ValueError for a negative lam, alpha outside [0, 1], xi <= 0 and every < 1.
    Source: Chaudhry et al. 2018 (arXiv:1801.10112): objective eq. 9, running Fisher eq. 10.
    """

    alpha: float = 0.1
    xi: float = 1e-3
    every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        nonnegative(self, "alpha", "xi")
        if self.alpha > 1:
            raise ValueError(f"RWalk.alpha must lie between 0 and 1, got {self.alpha}")
        if self.xi == 0 or self.every < 1:
            raise ValueError(f"RWalk.xi must be positive and every at least 1, got {self.xi} and {self.every}")

    def start(self, net: Net, theta: Tensor) -> State:
        names = ("fisher", "score", "new_score", "fall")
        zeros = {name: torch.zeros_like(theta) for name in names}
        return super().start(net, theta) | zeros | {"anchor": theta.clone(), "steps": torch.zeros((), device=theta.device)}

    def after_step(self, theta: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        new, state = super().after_step(theta, state, step)
        g, steps = own_gradient(self, state, step), state["steps"] + 1
        fisher = self.alpha * g.square() + (1 - self.alpha) * state["fisher"]
        fall = state["fall"] - g * (new - step.before)
        gain = fall.clamp_min(0) / (fisher * (new - state["anchor"]).square() / 2 + self.xi)
        due = steps % self.every == 0  # the end of a stretch
        return new, state | {
            "fisher": fisher,
            "new_score": state["new_score"] + torch.where(due, gain, 0.0),
            "fall": torch.where(due, 0.0, fall),
            "anchor": torch.where(due, new, state["anchor"]),
            "steps": steps,
        }

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> State:
        score = state["new_score"] if task.index == 0 else (state["score"] + state["new_score"]) / 2
        zero = torch.zeros_like(theta)
        return state | {
            "omega": unit(state["fisher"]) + unit(score), "theta_star": theta, "score": score,
            "new_score": zero, "fall": zero, "anchor": theta, "steps": torch.zeros_like(state["steps"]),
        }  # fmt: skip

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return super().memory_bytes({k: state[k] for k in ("fisher", "score", "theta_star")}, scenario)


def unit(v: Tensor) -> Tensor:
    """v >= 0 [P] scaled so that its largest entry is 1; zero stays zero."""
    return v / v.max().clamp_min(torch.finfo(v.dtype).tiny)
