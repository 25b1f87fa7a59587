"""Methods for a stream: what is remembered is decided batch by batch, and nobody says where a task ends.

`Unannounced` makes a method that waits for the end of a task wait for its own detector instead. A buffer fills as the stream
goes by; a teacher follows slowly. None of them has a `before_task` or `after_task` that does anything.
Book: notebooks/12_streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from clbook.checks import Count, InputError, Positive, ShareBelowOne, Strength
from clbook.method import Method, Rng, State
from clbook.methods.detector import Watch, begin, watch
from clbook.methods.ewc import EWC
from clbook.methods.gem import AGEM
from clbook.methods.mas import MAS
from clbook.methods.replay import ER, DERpp, Rehearsal, reservoir
from clbook.methods.si import SI
from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task


@dataclass(frozen=True)
class Unannounced(Method):
    """Does at a change that it finds itself what the method behind it does at the end of a task that it is told of.

    A change is found by `detector.watch` on the loss of the incoming batches, or, with `every`, simply supposed after so many.
    Then the method's own `after_task` is called with theta as it was at the end of the calmest window, before the loss rose,
    and with the `recent` samples that had gone by until then in place of the task's.

    `when_calm` names what else of the state belongs to that moment. Raises InputError for a window of one batch.
    Source: after Aljundi et al. 2019 (arXiv:1812.03596).
    """

    when_calm: ClassVar[tuple[str, ...]] = ()
    window: Count = 40
    k: Strength = 1.0
    recent: Count = 200
    every: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 2:
            raise InputError(f"{type(self).__name__}.window must be at least 2 batches to have a std, got {self.window}")

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        state, seen = super().start(net, theta), begin(self.window, theta)
        passed = torch.full((self.recent, 2), -1, device=theta.device)
        mine = {"losses": seen.losses, "calm": seen.calm, "passed": passed, "batches": passed.new_zeros(())}
        kept = {"theta": theta.clone(), "passed": passed} | {name: state[name].clone() for name in self.when_calm}
        return state | mine | {f"calm {name}": value for name, value in kept.items()}

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        return theta, state

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        return state

    def observe(self, net: Net, theta: Tensor, state: State, scenario: Scenario, batch: Batch, rng: Rng) -> State:
        with torch.no_grad():
            loss = net.loss(theta, batch)
        seen, changed, calmer = watch(Watch(state["losses"], state["calm"]), loss, self.k)
        if self.every is not None:
            changed = calmer = int(state["batches"] + 1) % self.every == 0
        now = {"theta": theta, "passed": state["passed"]} | {name: state[name] for name in self.when_calm}
        if calmer:
            state = state | {f"calm {name}": value for name, value in now.items()}
        if changed:
            state = self.consolidate(net, state, scenario, rng)
        passed = torch.cat([state["passed"], torch.stack([batch.task, batch.row], -1)])[-self.recent :]
        return state | {"losses": seen.losses, "calm": seen.calm, "passed": passed, "batches": state["batches"] + 1}

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        samples = self.recent * (scenario.data.x[0].numel() + 1)
        return super().memory_bytes(state, scenario) + samples + 4 * state["calm theta"].numel()

    def consolidate(self, net: Net, state: State, scenario: Scenario, rng: Rng) -> State:
        """The method's own end of a task, as of the calmest moment."""
        rows = state["calm passed"]
        rows = rows[rows[:, 0] >= 0]
        if len(rows) == 0:  # nothing has gone by yet
            return state
        old, test = scenario.batch(rows[:, 0], rows[:, 1]), scenario.test(0, 1)
        classes = tuple(old.mask[0].nonzero().flatten().tolist())
        task = Task(old.x, old.y, *test, classes, "what went by", old.mask[0], int(rows[-1, 0]))
        then = state | {name: state[f"calm {name}"] for name in self.when_calm}
        return super().after_task(net, state["calm theta"], then, task, rng)


@dataclass(frozen=True)
class StreamEWC(Unannounced, EWC):
    """EWC that finds the ends of the tasks itself: the Fisher is that of the samples that have just gone by."""


@dataclass(frozen=True)
class StreamMAS(Unannounced, MAS):
    """MAS that finds the ends of the tasks itself. Source: Aljundi et al. 2019 (arXiv:1812.03596)."""


@dataclass(frozen=True)
class StreamSI(Unannounced, SI):
    """SI that finds the ends of the tasks itself: its path is recorded all the time, and its springs need a centre."""

    when_calm = ("path",)


@dataclass(frozen=True)
class StreamLwF(Method):
    """Learning without forgetting with a teacher that follows slowly instead of one that stands still during a task.

    loss = L_new + lam L_old,   L_old = - 1/B sum_n sum_c q_nc log p_nc,   teacher <- rate teacher + (1 - rate) theta

    q and p are softmax(outputs / temperature) of the teacher and of the network, over all outputs that count.
    Source: Li & Hoiem 2017; an average as the teacher: Tarvainen & Valpola 2017 (arXiv:1703.01780).
    """

    keeps: ClassVar[tuple[str, ...]] = ("teacher",)
    lam: Strength = 1.0
    rate: ShareBelowOne = 0.99
    temperature: Positive = 2.0

    def start(self, net: Net, theta: Tensor) -> State:
        return {"teacher": theta.clone()}

    def observe(self, net: Net, theta: Tensor, state: State, scenario: Scenario, batch: Batch, rng: Rng) -> State:
        return state | {"teacher": torch.lerp(theta, state["teacher"], self.rate)}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        return net.loss(theta, batch) + self.lam * taught(net, theta, state["teacher"], batch, self.temperature)


@dataclass(frozen=True)
class ChangeLwF(Unannounced):
    """Learning without forgetting whose teacher is the network as it was before the last change that it found itself.

    loss = L_new + lam L_old as in StreamLwF; no teacher before the first change.
    """

    keeps: ClassVar[tuple[str, ...]] = ("teacher",)
    lam: Strength = 1.0
    temperature: Positive = 2.0

    def start(self, net: Net, theta: Tensor) -> State:
        return super().start(net, theta) | {"teacher": theta.clone(), "taught": theta.new_zeros(())}

    def consolidate(self, net: Net, state: State, scenario: Scenario, rng: Rng) -> State:
        return state | {"teacher": state["calm theta"], "taught": torch.ones_like(state["taught"])}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        old = taught(net, theta, state["teacher"], batch, self.temperature)
        return net.loss(theta, batch) + self.lam * state["taught"] * old


def taught(net: Net, theta: Tensor, teacher: Tensor, batch: Batch, temperature: Tensor | float) -> Float[Tensor, ""]:
    """The loss [] of the network's answers to a batch under those of the teacher."""
    groups = batch.mask[:1]  # one group: all outputs that count
    with torch.no_grad():
        recorded = net(teacher, batch.x, batch.gates)
    return net.likelihood.distil(net(theta, batch.x, batch.gates), recorded, groups, groups, temperature)


@dataclass(frozen=True)
class Flowing(Rehearsal):
    """A buffer that fills as the stream goes by: a reservoir, to which each batch is shown once it has been drawn from.

    At any time the `size` samples are a uniform draw from all that has passed. Source: Vitter 1985, algorithm R.
    """

    size: Count = 200

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        return state

    def observe(self, net: Net, theta: Tensor, state: State, scenario: Scenario, batch: Batch, rng: Rng) -> State:
        new = torch.stack([batch.task, batch.row], -1)
        return state | {
            "kept": reservoir(state["kept"], new, int(state["seen"]), self.size, rng), "seen": state["seen"] + len(new)
        }  # fmt: skip


@dataclass(frozen=True)
class StreamER(Flowing, ER):
    """Experience replay from a reservoir: loss = (L_new + lam L_old) / (1 + lam), whatever has gone by."""

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        new = net.loss(theta, batch)
        return new if batch.old is None else (new + self.lam * net.loss(theta, batch.old)) / (1 + self.lam)


@dataclass(frozen=True)
class StreamAGEM(Flowing, AGEM):
    """A-GEM with a reservoir in place of the samples of the earlier tasks."""


@dataclass(frozen=True)
class StreamDERpp(Flowing, DERpp):
    """DER++ as its authors have it: a sample is kept with the outputs that the network gives when it comes by."""

    def observe(self, net: Net, theta: Tensor, state: State, scenario: Scenario, batch: Batch, rng: Rng) -> State:
        new = super().observe(net, theta, state, scenario, batch, rng)
        outputs = state["outputs"].new_zeros((len(new["kept"]), *state["outputs"].shape[1:]))
        outputs[: len(state["outputs"])] = state["outputs"]
        place = (new["kept"][:, None] == torch.stack([batch.task, batch.row], -1)).all(-1)  # [size, B]: which lies where
        fresh = place.any(1)
        with torch.no_grad():
            outputs[fresh] = net(theta, batch.x)[place[fresh].long().argmax(1)]
        return new | {"outputs": outputs}
