"""Transfer without a defence of the old task: keep the features and train only the top. Book: notebooks/04_lwf."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.method import Method, State, Step
from clbook.net import Net
from clbook.scenarios import Scenario, Task


@dataclass(frozen=True)
class FeatureExtraction(Method):
    """Train everything on the first task, then freeze the features theta_s and train only the last `trainable` layers.

    trainable=1 is feature extraction: a linear classifier on the features of the first task. More layers are the fine-tuning of
    the top of the network. Frozen parameters stay the same to the last bit. Outputs that do not count for the
    new task (theta_o) get no gradient, so with heads of their own the old tasks are kept exactly at trainable=1.

    Raises ValueError for more layers than there are, or fewer than one. Source: the baselines of Li & Hoiem 2017, section 2.
    """

    trainable: int = 1

    def __post_init__(self) -> None:
        if self.trainable < 1:
            raise ValueError(f"FeatureExtraction.trainable must be at least 1, got {self.trainable}")

    def extend(self, net: Net, scenario: Scenario) -> Net:
        net.last(self.trainable)  # speaks up before training starts
        return net

    def start(self, net: Net, theta: Tensor) -> State:
        return {"open": torch.ones_like(theta).bool()}

    def after_step(self, theta: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        return torch.where(state["open"], theta, step.before), state

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> State:
        return {"open": net.last(self.trainable).to(theta.device)}

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return 0
