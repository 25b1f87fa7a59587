"""Methods of the package's own kind that break its rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from clbook import Method, Spring, fisher

SEEN: list[torch.Tensor] = []


@dataclass(frozen=True)
class ThetaInPlace(Method):
    def after_step(self, theta, state, update):
        theta -= 0.01 * theta
        return theta, state


@dataclass(frozen=True)
class StateInPlace(Method):
    def start(self, net, theta):
        return {"count": torch.zeros(())}

    def after_task(self, net, theta, state, task, rng):
        state["count"] += 1
        return state


@dataclass(frozen=True)
class NewNameInState(Method):
    def start(self, net, theta):
        return {"kept": torch.zeros_like(theta)}

    def after_task(self, net, theta, state, task, rng):
        state["kept"] = theta.clone()
        return state


@dataclass(frozen=True)
class KeepsInItself(Method):
    def after_task(self, net, theta, state, task, rng):
        object.__setattr__(self, "old", theta)
        return state


@dataclass(frozen=True)
class KeepsInTheModule(Method):
    """Old thetas in a list that outlives the run."""

    def loss(self, net, theta, state, batch):
        return net.loss(theta, batch) + sum((0.1 * (theta - old).square().sum() for old in SEEN), torch.zeros(()))

    def after_task(self, net, theta, state, task, rng):
        SEEN.append(theta.clone())
        return state


@dataclass(frozen=True)
class Branches(Method):
    lam: float = 1.0

    def loss(self, net, theta, state, batch):
        loss = net.loss(theta, batch)
        return loss + self.lam * theta.square().sum() if loss > 0.5 else loss


@dataclass(frozen=True)
class KeepsMoreThanItSays(Method):
    keeps: ClassVar = ()

    def start(self, net, theta):
        return {"old": torch.zeros_like(theta)}

    def loss(self, net, theta, state, batch):
        return net.loss(theta, batch) + 0.1 * (theta - state["old"]).square().sum()

    def after_task(self, net, theta, state, task, rng):
        return {"old": theta / 2}


@dataclass(frozen=True)
class KeepsSamples(Method):
    keeps: ClassVar = ()

    def start(self, net, theta):
        return {"x": theta.new_zeros(20, 6)}

    def after_task(self, net, theta, state, task, rng):
        return {"x": task.x[:20].clone()}


@dataclass(frozen=True)
class BatchedSprings(Spring):
    """As stiff as the square of the mean gradient."""

    def importance(self, net, theta, state, task, rng):
        return fisher(net, theta, task.x, task.y, mask=task.mask, estimator="batched", batch_size=len(task.x))


@dataclass(frozen=True)
class SpringsOfAllOutputs(Spring):
    def importance(self, net, theta, state, task, rng):
        return fisher(net, theta, task.x)


@dataclass(frozen=True)
class NoSquare(Spring):
    pull: str = "explicit"

    def importance(self, net, theta, state, task, rng):
        return torch.ones_like(theta)

    def penalty(self, theta, state):
        return self.lam / 2 * (state["omega"] * (theta - state["theta_star"])).sum()


WRONG = {
    ThetaInPlace(): "impure", StateInPlace(): "impure", NewNameInState(): "impure", KeepsInItself(): "impure",
    KeepsInTheModule(): "remembers", Branches(): "not-stackable", KeepsSamples(): "stores-samples",
    BatchedSprings(lam=1.0): "batched", SpringsOfAllOutputs(lam=1.0): "all-outputs", NoSquare(lam=1.0): "unsquared",
}  # fmt: skip
NOTED = KeepsMoreThanItSays()
