"""k winners take all: few hidden units answer, so few are changed. Book: book/families, "Few neurons"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clbook.checks import Count
from clbook.method import Method
from clbook.methods.gating import hidden_gates
from clbook.net import Net
from clbook.scenarios import Scenario


class Winners(nn.Module):
    """Keeps each sample's k largest hidden units and sets the others to 0."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, h: Tensor) -> Tensor:
        if self.k >= h.shape[-1]:
            return h
        return torch.where(h >= h.topk(self.k, -1).values[..., -1:], h, 0.0)


@dataclass(frozen=True)
class KWTA(Method):
    """k winners take all: in every hidden layer only the k most active units of each sample keep their value.

    h_i <- h_i where h_i is among the k largest of its layer, else 0. A weight learns from a sample only where both its
    units won, so samples that look different share few weights. k >= the width is fine-tuning. Works without labels and
    needs no task at test time. There is no boosting of rare winners (Ahmad & Scheinkman 2019 add it), and without it the
    same units tend to win for all inputs: on the embedded digits it forgets as much as fine-tuning, or more.

    Raises InputError for k < 1 or a network without hidden gates.
    Source: Majani et al. 1989; against forgetting: French 1991 (semi-distributed representations).
    """

    label = "k-WTA"
    k: Count = 40

    def extend(self, net: Net, scenario: Scenario) -> Net:
        names = list(hidden_gates(net, self))

        def factory() -> nn.Module:
            module = net.factory()
            for name in names:
                parent, _, child = name.rpartition(".")
                setattr(module.get_submodule(parent), child, nn.Sequential(module.get_submodule(name), Winners(self.k)))
            return module

        return Net(factory)
