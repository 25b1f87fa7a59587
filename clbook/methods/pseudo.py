"""Pseudo-rehearsal for text: the old network writes what it is then held to. Book: notebooks/10_finetuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clbook.checks import Count, InputError, Natural, Positive, Strength
from clbook.likelihood import Categorical
from clbook.method import Keeps, Method, Rng, State
from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task


@dataclass(frozen=True)
class PseudoRehearsal(Method):
    r"""Learning without forgetting on text that the old network writes itself: it needs no old data, and none are kept.

    loss = L_new + lam L_old,   L_old = - 1/BT sum_{n,t} sum_c q_ntc log p_ntc

    Before each task but the first the network writes `size` windows, character by character, and records its outputs there.
    q and p are softmax(outputs / temperature), q of the recorded outputs, p of the network now. A step draws as many of these
    windows as its batch has. Each window begins with the token `first`.

    Raises InputError for a network that gives no tokens at every position, negative lam and temperature <= 0.
    Source: Robins 1995 (pseudo-patterns); Shin et al. 2017 (arXiv:1705.08690), where a network of its own writes them; the
    distillation is that of LwF. Book: notebooks/10_finetuning.
    """

    label = "pseudo-rehearsal"
    keeps: ClassVar[Keeps] = ()
    lam: Strength = 1.0
    temperature: Positive = 1.0
    size: Count = 250
    first: Natural = 10  # the end of a line

    def extend(self, net: Net, scenario: Scenario) -> Net:
        shape = net.told(example=scenario.data.x[:1].cpu()).output_shape
        if not isinstance(scenario.likelihood, Categorical) or len(shape) != 2 or self.first >= scenario.n_outputs:
            raise InputError(
                f"{type(self).__name__} lets the network write, so it needs one that gives the next token at every position of "
                f"a text, and `first` among its {scenario.n_outputs} tokens; got first={self.first}"
            )
        return net

    def start(self, net: Net, theta: Tensor) -> State:
        length, tokens = net.output_shape
        text = torch.zeros((0, length), dtype=torch.int64, device=theta.device)
        return {"text": text, "recorded": theta.new_zeros(0, length, tokens)}

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        if task.index == 0:
            return theta, state
        text = written(net, theta, self.size, self.first, rng)
        return theta, {"text": text, "recorded": recorded(net, theta, text)}

    def prepare(self, state: State, scenario: Scenario, k: int, batch: Batch, rng: Rng) -> Batch:
        if len(state["text"]) == 0:
            return batch
        i = torch.randint(len(state["text"]), (len(batch.x),), generator=rng).to(batch.x.device)
        return batch._replace(drawn={"text": state["text"][i], "recorded": state["recorded"][i]})

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        new = net.loss(theta, batch)
        if not batch.drawn:
            return new
        every = torch.ones_like(batch.mask[:1])  # all tokens count
        outputs = net(theta, batch.drawn["text"])
        return new + self.lam * net.likelihood.distil(outputs, batch.drawn["recorded"], every, every, self.temperature)


@dataclass(frozen=True)
class RecordedReplay(PseudoRehearsal):
    """Pseudo-rehearsal on real text: `size` windows of each old task are kept, with what the network said of them then.

    The loss is that of PseudoRehearsal, and the windows are those that ER keeps with the same generator. So it differs from the
    one in where the old text comes from, and from the other in what is asked of it: a distribution in place of a character.

    Source: dark experience replay, Buzzega et al. 2020 (arXiv:2004.07211), with LwF's distillation in place of squares.
    Book: notebooks/10_finetuning.
    """

    label = "recorded replay"
    keeps = ("text", "recorded")

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        return theta, state

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        text = task.x[torch.randperm(len(task.x), generator=rng)[: self.size].to(task.x.device)]
        new = {"text": text, "recorded": recorded(net, theta, text)}
        return {name: torch.cat([state[name], new[name]]) for name in new}


@torch.no_grad()
def recorded(net: Net, theta: Tensor, text: Int64[Tensor, "N T"]) -> Float[Tensor, "N T C"]:
    """What the network says at every place of these texts."""
    return torch.cat([net(theta, x) for x in text.split(250)])


@torch.no_grad()
def written(net: Net, theta: Tensor, size: int, first: int, rng: Rng) -> Int64[Tensor, "N T"]:
    """`size` texts [N, T] that the network writes: each token is drawn from p(. | those before it), the first one is given."""
    length = net.output_shape[0]
    text = torch.full((size, 1), first, device=theta.device)
    while text.shape[1] < length:
        p = net(theta, text)[:, -1].softmax(-1).cpu()
        text = torch.cat([text, torch.multinomial(p, 1, generator=rng).to(text.device)], 1)
    return text
