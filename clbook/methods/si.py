"""Synaptic intelligence: springs as stiff as a parameter's share in the fall of the loss. Book: book/families."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.checks import InputError, Positive
from clbook.method import Carry, Rng, Spring, State, Update
from clbook.net import Net
from clbook.scenarios import Task


@dataclass(frozen=True)
class SI(Spring):
    r"""Synaptic intelligence: Omega is what each parameter did for the loss, over how far it went.

    path_i  = - sum_t g_i(t) (theta_i(t+1) - theta_i(t))             its sum over i is the fall of the task's loss
    Omega_i = max(path_i, 0) / ((theta_i - theta*_i)^2 + xi)         summed over tasks, centred at the latest theta

    g is the gradient of the task's own loss, without the springs: with the implicit step that is what the optimiser takes, with
    the explicit one the spring's share is taken off. The step is the whole one, the spring's pull included. The gradient
    is that of the batch the step was made on, so with small batches the path overstates the fall.
    xi > 0 keeps a parameter that did not move from an infinite Omega. The paper's c is lam / 2. Needs no labels.

    Raises InputError for a negative lam and xi <= 0.
    Source: Zenke et al. 2017 (arXiv:1703.04200), eqs. 3-5; negative paths cut to 0 as in the authors' code.
    """

    xi: Positive = 0.1
    carry: Carry = "latest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.carry == "separate":
            raise InputError('SI measures the way from the latest theta, so carry must be "latest", "online" or "newest"')

    def start(self, net: Net, theta: Tensor) -> State:
        return super().start(net, theta) | {"path": torch.zeros_like(theta)}

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        new, state = super().after_step(theta, state, update)
        gain = own_gradient(self, state, update) * (update.before - new)
        return new, state | {"path": state["path"] + gain}

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> Tensor:
        return state["path"].clamp_min(0) / ((theta - state["theta_star"]).square() + self.xi)

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        return super().after_task(net, theta, state, task, rng) | {"path": torch.zeros_like(theta)}  # the path starts anew


def own_gradient(method: Spring, state: State, update: Update) -> Tensor:
    """The gradient [P] of the task's loss alone: the direction taken, less the spring's share where the loss held it."""
    if method.pull == "implicit":
        return update.direction
    return update.direction - method.lam * state["omega"] * (update.before - state["theta_star"])
