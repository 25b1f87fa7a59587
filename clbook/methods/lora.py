"""Low-rank adaptation: fine-tuning moves each weight matrix by a product of two thin ones. Book: notebooks/10_finetuning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clbook.checks import Count, InputError
from clbook.method import Rng, State
from clbook.methods.transfer import Frozen
from clbook.net import Net
from clbook.scenarios import Scenario, Task


class LowRank(nn.Module):
    """A Linear layer and what is added: x -> W x + b + (alpha / rank) B A x, with A [rank, in] drawn and B [out, rank] zero."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: int) -> None:
        super().__init__()
        self.layer, self.scale = layer, alpha / rank
        self.A = nn.Linear(layer.in_features, rank, bias=False)
        self.B = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.kaiming_uniform_(self.A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.B.weight)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x) + self.scale * self.B(self.A(x))
        return outputs


@dataclass(frozen=True)
class LoRA(Frozen):
    r"""Low-rank adaptation: of a pre-trained network only thin factors are trained, W = W_0 + (alpha / rank) B A.

    Every Linear layer gets A [rank, in], drawn at random, and B [out, rank], zero, so that training starts at the network as it
    was. All else is frozen to the last bit: W_0, biases, embeddings, norms. One pair of factors serves all tasks after the
    first, so what they learn for one task can be lost in the next.

    `layers` names the layers that get factors; empty is all. alpha scales what is added, with Adam much as lr does; it is
    a whole number, as it is part of the network that is trained.

    Raises InputError for a rank below 1, a network without Linear layers, and names that it does not have.
    Source: Hu et al. 2021 (arXiv:2106.09685), section 4. Book: notebooks/10_finetuning.
    """

    rank: Count = 4
    alpha: Count = 4
    layers: tuple[str, ...] = ()

    def extend(self, net: Net, scenario: Scenario) -> Net:
        names = [name for name, m in net.module.named_modules() if isinstance(m, nn.Linear)]
        if not names or not set(self.layers) <= set(names):
            raise InputError(f"LoRA.layers must name Linear layers of the network, got {self.layers}; there are {names}")

        def factory() -> nn.Module:
            module = net.factory()
            if net.learned is not None:
                nn.utils.vector_to_parameters(net.learned, module.parameters())
            for name in self.layers or names:
                outer, _, inner = name.rpartition(".")
                layer = module.get_submodule(name)
                assert isinstance(layer, nn.Linear)
                setattr(module.get_submodule(outer), inner, LowRank(layer, self.rank, self.alpha))
            return module

        extended = Net(factory, net.example)
        extended.knows = net.knows
        return extended

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        thin = [torch.full(shape, _is_factor(name)) for name, shape in zip(net.names, net.shapes, strict=True)]
        return {"open": torch.cat([part.flatten() for part in thin]).to(theta.device)}


def _is_factor(name: str) -> bool:
    return name.endswith((".A.weight", ".B.weight"))
