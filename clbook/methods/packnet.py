"""PackNet: each task keeps a few of the weights for itself. Book: book/families, "Few neurons"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clbook.checks import InputError, Share
from clbook.method import Method, Rng, State, Update
from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task


@dataclass(frozen=True)
class PackNet(Method):
    """Train, prune, retrain: a task keeps the largest of the free weights and gives the others to those that follow.

    For the share `train` of a task's steps every free weight learns. Then, layer by layer, the share `prune` of them that is
    smallest in magnitude is set to 0 and freed again; the rest belongs to the task and alone is trained on. At test time a task
    is answered with its own weights and those of the tasks before it, theta_i 1[0 < owner_i <= task].

    What is protected, bit by bit: all weights that belong to an earlier task, whatever the optimiser. Hidden biases belong to
    the first task (as in the paper); the last layer is not pruned, and its rows belong to the task whose outputs they are.

    Runs are not stacked: pruning sorts the weights once a task, which under vmap would have to happen in every step.
    Raises InputError for prune or train outside [0, 1], and where the task is not known at test time.
    Source: Mallya & Lazebnik 2018 (arXiv:1711.05769), section 3.
    """

    needs_task = True
    stacks = False
    keeps = ("owner",)  # of every weight, one byte each
    prune: Share = 0.75
    train: Share = 0.67

    def extend(self, net: Net, scenario: Scenario) -> Net:
        if len(scenario) > 255:
            raise InputError(f"PackNet counts owners in one byte, so there can be 255 tasks, got {len(scenario)}")
        return net

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        pruned = [len(s) > 1 and net.layer_of[n] != net.layers[-1] for n, s in zip(net.names, net.shapes, strict=True)]
        number = [i if p else -1 for i, p in enumerate(pruned)]  # which layer a weight is pruned with, -1 for none
        layers = torch.cat([theta.new_full((n,), i, dtype=torch.int64) for i, n in zip(number, net.sizes, strict=True)])
        owner = torch.zeros_like(layers, dtype=torch.uint8)
        return {"owner": owner, "layer": layers, "task": owner.new_zeros(()), "pruned": owner.new_zeros(())}

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        own = ~net.last().to(theta.device) | net.last(1, task.mask).to(theta.device)
        number = state["task"] + 1
        owner = torch.where((state["owner"] == 0) & own, number, state["owner"])
        return theta, state | {"owner": owner, "task": number, "pruned": torch.zeros_like(number)}

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        theta = torch.where(state["owner"] == state["task"], theta, update.before)
        if state["pruned"] or update.done < self.train:
            return theta, state
        gone = smallest(theta, state["owner"] == state["task"], state["layer"], self.prune)
        owner = state["owner"].masked_fill(gone, 0)
        return theta.masked_fill(gone, 0), state | {"owner": owner, "pruned": torch.ones_like(state["pruned"])}

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        mine = (state["owner"] > 0) & (state["owner"] <= batch.task[0] + 1)
        return net(theta * mine, batch.x)


def smallest(theta: Float[Tensor, " P"], mine: Bool[Tensor, " P"], layer: Tensor, share: float) -> Bool[Tensor, " P"]:
    """The share of the weights `mine` of each layer (layer >= 0) that is smallest in magnitude."""
    gone = torch.zeros_like(mine)
    for i in layer.unique().tolist():
        index = (mine & (layer == i)).nonzero().squeeze(1)
        if i >= 0:
            gone[index[theta[index].abs().argsort()[: round(share * len(index))]]] = True
    return gone
