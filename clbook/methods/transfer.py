"""Transfer without a defence of the old task: keep the features and train only the top. Book: notebooks/04_lwf."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.checks import Count
from clbook.method import Method, Rng, State, Update
from clbook.net import Net
from clbook.scenarios import Scenario, Task


class Frozen(Method):
    """Trains only the parameters that are `open` [P] in the state: all of them, until a subclass closes some after a task.

    What is not open stays the same to the last bit.
    """

    keeps = ()  # the network says which they are

    def start(self, net: Net, theta: Tensor) -> State:
        return {"open": torch.ones_like(theta).bool()}

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        return torch.where(state["open"], theta, update.before), state


@dataclass(frozen=True)
class FeatureExtraction(Frozen):
    """Train everything on the first task, then freeze the features theta_s and train only the last `trainable` layers.

    trainable=1 is feature extraction: a linear classifier on the features of the first task. More layers are the fine-tuning of
    the top of the network. Frozen parameters stay the same to the last bit. Outputs that do not count for the
    new task (theta_o) get no gradient, so with heads of their own the old tasks are kept exactly at trainable=1.

    Raises InputError for more layers than there are, or fewer than one. Source: the baselines of Li & Hoiem 2017, section 2.
    """

    trainable: Count = 1

    def extend(self, net: Net, scenario: Scenario) -> Net:
        net.last(self.trainable)  # speaks up before training starts
        return net

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        return {"open": net.last(self.trainable).to(theta.device)}
