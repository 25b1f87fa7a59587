"""One network per task. Book: book/families, "New models"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clbook.method import Method, Rng, State
from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task


@dataclass(frozen=True)
class Separate(Method):
    """A network of its own for every task: nothing is forgotten, memory grows with the tasks, and the test must tell the task.

    `begin` says where each new network starts: "fresh" at a new initialisation, "previous" at the network of the task
    before (duplicate and fine-tune). Raises InputError for another word, and where the task is not known at test time.
    """

    needs_task = True
    begin: Literal["fresh", "previous"] = "fresh"

    def start(self, net: Net, theta: Tensor) -> State:
        return {"thetas": theta.new_zeros(0, len(theta))}  # [tasks done, P]

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        if self.begin == "previous" or len(state["thetas"]) == 0:
            return theta, state
        seed = int(torch.randint(2**31, (), generator=rng))
        return net.init(seed).to(theta), state

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        return {"thetas": torch.cat([state["thetas"], theta[None]])}

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        thetas = torch.cat([state["thetas"], theta[None]])  # the last one: the network in training, or the latest again
        k = batch.task[:1].clamp(max=len(thetas) - 1)  # one batch is of one task
        return net(thetas.index_select(0, k)[0], batch.x)

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return super().memory_bytes({"thetas": state["thetas"][1:]}, scenario)  # theta itself is the latest
