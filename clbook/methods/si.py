"""Synaptic intelligence: springs as stiff as a parameter's share in the fall of the loss. Book: book/families."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.method import Spring, State, Step, nonnegative
from clbook.net import Net
from clbook.scenarios import Scenario, Task


@dataclass(frozen=True)
class SI(Spring):
    r"""Synaptic intelligence: Omega is what each parameter did for the loss, over how far it went.

    path_i  = - sum_t g_i(t) (theta_i(t+1) - theta_i(t))             its sum over i is the fall of the task's loss
    Omega_i = max(path_i, 0) / ((theta_i - theta*_i)^2 + xi)         summed over tasks, centred at the latest theta

    g is the gradient of the task's own loss, without the springs: with the implicit step that is what the optimiser takes, with
    the explicit one the spring's share is taken off. The step is the whole one, the spring's pull included. The gradient
    is that of the batch the step was made on, so with small batches the path overstates the fall.
    xi > 0 keeps a parameter that did not move from an infinite Omega. The paper's c is lam / 2. Needs no labels.

    Raises ValueError for a negative lam and xi <= 0.
    Source: Zenke et al. 2017 (arXiv:1703.04200), eqs. 3-5; negative paths cut to 0 as in the authors' code.
    """

    xi: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        nonnegative(self, "xi")
        if self.xi == 0:
            raise ValueError(f"SI.xi must be positive, got {self.xi}")

    def start(self, net: Net, theta: Tensor) -> State:
        return super().start(net, theta) | {"path": torch.zeros_like(theta)}

    def after_step(self, theta: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        new, state = super().after_step(theta, state, step)
        return new, state | {"path": state["path"] - own_gradient(self, state, step) * (new - step.before)}

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> Tensor:
        return state["path"].clamp_min(0) / ((theta - state["theta_star"]).square() + self.xi)

    def consolidate(self, state: State, omega: Tensor, theta: Tensor) -> State:
        return {"omega": state["omega"] + omega, "theta_star": theta, "path": torch.zeros_like(theta)}

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return super().memory_bytes({k: state[k] for k in ("omega", "theta_star")}, scenario)  # the path starts anew


def own_gradient(method: Spring, state: State, step: Step) -> Tensor:
    """The gradient [P] of the task's loss alone: the one taken, less the spring's share where the loss held it."""
    if method.step == "implicit":
        return step.grad
    return step.grad - method.lam * state["omega"] * (step.before - state["theta_star"])
