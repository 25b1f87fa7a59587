"""Rehearsal: keep some old samples and train on them again. Book: book/families, "Rehearsal"; notebooks/06_families.

A buffer holds indices (task, row) into the stream, so that stacked runs share one copy of the data; `memory_bytes` counts
what a learner without a stream would store: one byte an input value, as in the files of MNIST, and one for the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clbook.checks import Natural, Strength
from clbook.method import Keeps, Method, Rng, State
from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task

Buffer = Literal["balanced", "reservoir"]


@dataclass(frozen=True)
class Rehearsal(Method):
    """What the methods with a buffer share: which old samples are kept, and how a step draws some of them.

    buffer = "balanced" keeps `size` random samples of each class of each task, so it grows with the classes; "reservoir" keeps
    `size` samples in all, at any time a uniform draw from all that was seen. It is filled at the end of each task; a step
    then draws as many old samples as its batch has new ones, with replacement, and they arrive as batch.old.

    Raises InputError for a negative size or an unknown buffer.
    """

    keeps: ClassVar[Keeps] = ()  # beside the samples
    size: Natural = 100
    buffer: Buffer = "balanced"

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        return {"kept": theta.new_zeros((0, 2), dtype=torch.int64), "seen": theta.new_zeros((), dtype=torch.int64)}

    def prepare(self, state: State, scenario: Scenario, k: int, batch: Batch, rng: Rng) -> Batch:
        kept = state["kept"]
        if len(kept) == 0:
            return batch
        i = torch.randint(len(kept), (len(batch.x),), generator=rng).to(kept.device)
        return batch._replace(old=self.replayed(state, i, scenario, k)._replace(gates=batch.gates))  # under the same dropout

    def replayed(self, state: State, i: Int64[Tensor, " B"], scenario: Scenario, k: int) -> Batch:
        """The samples at places i of the buffer, as task k sees them."""
        return scenario.batch(state["kept"][i, 0], state["kept"][i, 1], k)

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        if self.buffer == "balanced":
            y = task.y if task.y.dim() == 1 and not task.y.is_floating_point() else torch.zeros(len(task.y)).long()  # one class
            rows = balanced(y.cpu(), self.size, rng)
            new = torch.stack([torch.full_like(rows, task.index), rows], 1).to(task.y.device)
            kept = torch.cat([state["kept"], new])
        else:
            rows = torch.arange(len(task.y), device=task.y.device)
            new = torch.stack([torch.full_like(rows, task.index), rows], 1)
            kept = reservoir(state["kept"], new, int(state["seen"]), self.size, rng)
        return state | {"kept": kept, "seen": state["seen"] + len(task.y)}

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return len(state["kept"]) * (scenario.data.x[0].numel() + 1) + super().memory_bytes(state, scenario)


@dataclass(frozen=True)
class ER(Rehearsal):
    """Experience replay: train on the new samples and on old ones from a buffer.

    loss = (L_new + lam k L_old) / (1 + lam k), with k the number of earlier tasks: at lam = 1 each task seen has the same
    weight, 1/(k+1) for the new one and k/(k+1) for the old ones together. lam = 0 or size = 0 is fine-tuning.

    Works without labels ("balanced" then keeps `size` samples a task). Raises InputError for a negative lam or size.
    Source: Robins 1995; Chaudhry et al. 2019 (arXiv:1902.10486); the weights: van de Ven & Tolias 2019 (arXiv:1904.07734).
    """

    lam: Strength = 1.0

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        new = net.loss(theta, batch)
        if batch.old is None:
            return new
        k = self.lam * batch.task[0].to(theta.dtype)  # tasks are counted from 0, so this is how many came before
        return (new + k * net.loss(theta, batch.old)) / (1 + k)


@dataclass(frozen=True)
class DERpp(Rehearsal):
    """Dark experience replay++: old samples come back with their labels and with the outputs the network gave for them.

    loss = L_new + alpha mean |f(x_old) - z_old|^2 + beta L_old, with z_old [C] the outputs at the end of the sample's own
    task (the paper stores them while training) and one draw from the buffer for both terms (the paper: two).

    Raises InputError for a negative alpha, beta or size. Source: Buzzega et al. 2020 (arXiv:2004.07211), eq. 6.
    """

    label = "DER++"
    keeps = ("outputs",)
    buffer: Buffer = "reservoir"
    size: Natural = 1000
    alpha: Strength = 0.5
    beta: Strength = 0.5

    def start(self, net: Net, theta: Tensor) -> State:
        return super().start(net, theta) | {"outputs": theta.new_zeros((0, *net.output_shape))}

    def replayed(self, state: State, i: Int64[Tensor, " B"], scenario: Scenario, k: int) -> Batch:
        return super().replayed(state, i, scenario, k)._replace(drawn={"z": state["outputs"][i]})

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        new, old = net.loss(theta, batch), batch.old
        if old is None:
            return new
        match = (net(theta, old.x, old.gates) - old.drawn["z"]).square().mean()
        return new + self.alpha * match + self.beta * net.loss(theta, old)

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        new = super().after_task(net, theta, state, task, rng)
        outputs = state["outputs"].new_zeros((len(new["kept"]), *state["outputs"].shape[1:]))
        outputs[: len(state["outputs"])] = state["outputs"]  # an old sample never changes its place
        fresh = new["kept"][:, 0] == task.index
        outputs[fresh] = net(theta, task.x[new["kept"][fresh, 1]])
        return new | {"outputs": outputs}


def balanced(y: Int64[Tensor, " N"], size: int, rng: Rng) -> Int64[Tensor, " n"]:
    """`size` random rows of each class in y, or all where a class has fewer."""
    order = torch.randperm(len(y), generator=rng)
    return torch.cat([order[y[order] == c][:size] for c in y.unique()])


def reservoir(
    kept: Int64[Tensor, "m 2"], new: Int64[Tensor, "n 2"], seen: int, size: int, rng: Rng
) -> Int64[Tensor, "k 2"]:
    """A uniform sample of `size` from a stream of unknown length: `kept` from its first `seen` items, then `new` go by.

    Item i (from 0) takes place i while there is room; afterwards it draws a place among 0..i and takes it if it is below
    `size`. Then every item so far is kept with the same probability, size / (i + 1). Source: Vitter 1985, algorithm R.
    """
    i = torch.arange(seen, seen + len(new))
    place = torch.where(i < size, i, (torch.rand(len(new), generator=rng, dtype=torch.float64) * (i + 1)).long())
    chosen = (place < size).nonzero().squeeze(1)
    last = {int(place[n]): int(n) for n in chosen}  # a later item takes the place of an earlier one
    out = torch.cat([kept, kept.new_zeros((max(0, min(size, seen + len(new)) - len(kept)), 2))])
    if last:
        out[torch.tensor(list(last), device=out.device)] = new[torch.tensor(list(last.values()), device=new.device)]
    return out
