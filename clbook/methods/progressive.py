"""Progressive networks: a new column for every task, and lateral connections from the old ones. Book: book/families."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clbook.checks import InputError
from clbook.method import Method, Rng, State, Update
from clbook.net import Net, chain
from clbook.scenarios import Batch, Scenario, Task


class Column(nn.Module):
    """The network of task k: Linear layers of the given widths, from the second on fed by every older column too."""

    def __init__(self, widths: Sequence[int], k: int) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.laterals = nn.ModuleList(nn.ModuleList(nn.Linear(a, b, bias=False) for _ in range(k)) for a, b in pairs[1:])

    def forward(self, x: Tensor, older: list[list[Tensor]]) -> list[Tensor]:
        """The hidden layers and the outputs; older[j][i] is hidden layer i of column j."""
        hs = [self.layers[0](x)]
        for i, (layer, laterals) in enumerate(zip(self.layers[1:], self.laterals, strict=True)):
            hs[-1] = hs[-1].relu()
            hs.append(layer(hs[-1]) + sum(u(h[i]) for u, h in zip(cast(nn.ModuleList, laterals), older, strict=True)))
        return hs


class Columns(nn.Module):
    """One column per task; the outputs of task k are read from column k. Only the first `count` columns are computed."""

    def __init__(self, widths: Sequence[int], outputs: Sequence[Sequence[int]], n_outputs: int) -> None:
        super().__init__()
        self.columns = nn.ModuleList(Column([*widths, len(own)], k) for k, own in enumerate(outputs))
        self.outputs, self.n_outputs = outputs, n_outputs

    def forward(self, x: Tensor, count: int | None = None) -> Tensor:
        older: list[list[Tensor]] = []
        rows: dict[int, Tensor] = {}
        for column, own in zip(self.columns[:count], self.outputs, strict=False):
            hs = column(x, older)
            older.append([h.detach() for h in hs])  # old columns are frozen
            rows |= dict(zip(own, hs[-1].unbind(-1), strict=True))
        return torch.stack([rows.get(c, torch.zeros_like(x[..., 0])) for c in range(self.n_outputs)], -1)


@dataclass(frozen=True)
class Progressive(Method):
    r"""Progressive networks: every task gets a column of its own, fed by the frozen columns before it.

    h_i^(k) = relu(W_i^(k) h_{i-1}^(k) + sum_{j<k} U_i^(k:j) h_{i-1}^(j))

    Nothing is forgotten, since old columns never change; memory grows with the square of the number of tasks. The columns
    have the widths of the network given, which must be a chain of Linear and ReLU layers, as mlp makes; every task needs
    outputs of its own. Raises InputError otherwise. Source: Rusu et al. 2016 (arXiv:1606.04671), eq. 1.
    """

    def extend(self, net: Net, scenario: Scenario) -> Net:
        outputs = [row[row >= 0].unique().tolist() for row in scenario.relabel]
        if not scenario.labelled or len({c for own in outputs for c in own}) < sum(map(len, outputs)):
            raise InputError(f"Progressive needs outputs of its own for every task, got {outputs} (kind={scenario.kind!r})")
        layers = list(chain(net, "Progressive").values())
        if any(g.dropout for g in net.gates.values()):
            raise InputError("Progressive has no dropout: give it a network without")
        widths = [m.in_features for m in layers]
        return Net(lambda: Columns(widths, outputs, scenario.n_outputs))

    def start(self, net: Net, theta: Tensor) -> State:
        column = {n: theta.new_full(s, int(n.split(".")[1])) for n, s in zip(net.names, net.shapes, strict=True)}
        return {"column": net.flatten(column), "built": theta.new_zeros(0)}  # built: its length is how many columns there are

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        return theta, state | {"built": theta.new_zeros(task.index + 1)}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        return net.likelihood.loss(self.predict(net, theta, state, batch), batch.y, batch.mask)

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        return torch.where(state["column"] == len(state["built"]) - 1, theta, update.before), state

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        return functional_call(net.module, net.unflatten(theta), (batch.x, len(state["built"])))

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        newer = (state["column"] > 0) & (state["column"] < len(state["built"]))  # what one network does not have
        return int(newer.sum()) * state["column"].element_size()
