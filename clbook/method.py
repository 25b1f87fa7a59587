"""A method of continual learning: what the loss is, and what is remembered.

`Method` is a handful of pure functions over theta and an explicit state (a dict of tensors). `Spring` is the seed of the
book's picture: L2, EWC, online EWC, SI, MAS and RWalk differ only in how stiff each spring is.
Book: book/ewc, "The springs"; notebooks/03_ewc.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad

from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task

State = dict[str, Tensor]


class Step(NamedTuple):
    """What the optimiser just did: theta before it [P], the gradient it took [P], and eta, its step size ([] or [P]).

    `done` [] is the share of the task's steps taken so far, in (0, 1].
    """

    before: Tensor
    grad: Tensor
    eta: Tensor
    done: Tensor = torch.ones(())


@dataclass(frozen=True)
class Method:
    """Plain training on each task in turn, and the hooks that other methods change.

    The float fields of a method are its hyper-parameters: `run` stacks several of them in one batch. A hook takes what it
    needs and returns the new value; none changes its arguments. In `loss`, `direction`, `after_step` and `predict`, which run
    under `torch.func.vmap`, theta is one run's vector [P] and the fields may be tensors: no `if` on their values there.
    """

    sees: ClassVar[str] = "task"  # where training batches come from: "task" (the current one), "seen" or "all"
    needs_labels: ClassVar[bool] = False
    needs_task: ClassVar[bool] = False  # predict looks at batch.task, so it works only where the test tells the task
    stacks: ClassVar[bool] = True  # False: every run trains by itself, and no hook runs under vmap

    def extend(self, net: Net, scenario: Scenario) -> Net:
        """The network this method trains, before anything starts (default: the one given)."""
        return net

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        """The state before the first task."""
        return {}

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> tuple[Tensor, State]:
        """theta and state at the start of a task."""
        return theta, state

    def prepare(self, state: State, scenario: Scenario, k: int, batch_size: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Everything random or stored that one step of task k needs beside its batch; it arrives as batch.extra."""
        return {}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        """The loss of one batch: here the task's own."""
        return net.loss(theta, batch)

    def direction(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, " P"]:
        """What the optimiser takes for the gradient [P]: here the gradient of the loss."""
        return grad(lambda t: self.loss(net, t, state, batch))(theta)

    def after_step(self, theta: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        """theta and state after each step of the optimiser."""
        return theta, state

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> State:
        """The state once a task has been trained: the place to remember something."""
        return state

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        """The outputs [B, C] with which the method is judged."""
        return net(theta, batch.x)

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        """Bytes this method keeps between tasks besides theta, as a real learner would store them."""
        return sum(t.numel() * t.element_size() for t in state.values())

    # what `run` needs to stack methods of one class; a method never touches these
    @property
    def hyper(self) -> dict[str, float]:
        """The float fields, by name."""
        return {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), float)}

    def bind(self, hyper: dict[str, Any]) -> Method:
        """A copy with other values of the float fields, tensors allowed."""
        bound = copy.copy(self)
        for name, value in hyper.items():
            object.__setattr__(bound, name, value)
        return bound

    @property
    def label(self) -> str:
        """A short name for tables and legends."""
        return type(self).__name__


def nonnegative(method: Method, *names: str) -> None:
    """Turn whole numbers in float fields into floats and raise ValueError for negative or non-finite ones."""
    for name in names:
        value = getattr(method, name)
        if not isinstance(value, Real) or not 0 <= float(value) < float("inf"):
            raise ValueError(f"{type(method).__name__}.{name} must be a finite number >= 0, got {value!r}")
        object.__setattr__(method, name, float(value))


@dataclass(frozen=True)
class Spring(Method):
    r"""A quadratic penalty that ties each parameter to its old value, as a spring of its own stiffness.

    loss(theta) = L_task(theta) + (lam / 2) sum_i Omega_i (theta_i - theta*_i)^2

    A subclass says how stiff the springs of one task are (`importance`, Omega [P]) and, if it likes, how they join those
    already there (`consolidate`). `step` says how the spring pulls: "implicit" takes the optimiser's step on the task's loss
    and then the exact proximal step of the spring, theta <- (theta + eta lam Omega theta*) / (1 + eta lam Omega), which no
    lam can make diverge; "explicit" adds the penalty to the loss, and SGD diverges once eta lam max(Omega) > 2.

    lam >= 0 has the unit of 1 / Omega. Raises ValueError for a negative lam or an unknown step.
    Source: Kirkpatrick et al. 2017, eq. 3; the proximal step: Parikh & Boyd 2014, section 6.1.1. Book: book/ewc, "The springs".
    """

    lam: float = 1.0
    step: str = "implicit"

    def __post_init__(self) -> None:
        nonnegative(self, "lam")
        if self.step not in ("implicit", "explicit"):
            raise ValueError(f'{type(self).__name__}.step must be "implicit" or "explicit", got {self.step!r}')

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> Float[Tensor, " P"]:
        """Omega [P] >= 0, the stiffness that one finished task gives each parameter."""
        raise NotImplementedError(f"{type(self).__name__} must say how stiff its springs are")

    def consolidate(self, state: State, omega: Tensor, theta: Tensor) -> State:
        """Join the new spring (Omega at theta) with the old: the sum of springs is again one spring."""
        return merge(state, omega, theta)

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        return {"omega": torch.zeros_like(theta), "theta_star": theta.clone()}

    def penalty(self, theta: Tensor, state: State) -> Float[Tensor, ""]:
        """(lam / 2) sum_i Omega_i (theta_i - theta*_i)^2."""
        return self.lam / 2 * (state["omega"] * (theta - state["theta_star"]).square()).sum()

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        data_loss = net.loss(theta, batch)
        return data_loss + self.penalty(theta, state) if self.step == "explicit" else data_loss

    def after_step(self, theta: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        return (proximal(theta, state, step.eta * self.lam) if self.step == "implicit" else theta), state

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> State:
        return self.consolidate(state, self.importance(net, theta, state, task, rng), theta)


def proximal(theta: Tensor, state: State, strength: Tensor) -> Tensor:
    """The exact step of the springs: argmin_t |t - theta|^2 / 2 + sum strength/2 Omega (t - theta*)^2.

    Written as a step of weight w = s Omega / (1 + s Omega) in [0, 1] from theta towards theta*: it never goes past it.
    """
    pull = strength * state["omega"]
    return torch.lerp(theta, state["theta_star"], pull / (1 + pull))


def merge(state: State, omega: Tensor, theta: Tensor) -> State:
    """One spring that equals the sum of two, up to a constant: Omega = Omega_1 + Omega_2, theta* their weighted mean.

    Where neither spring pulls (Omega = 0), theta* is the newest theta. Source: book/ewc, "A third task".
    """
    total = state["omega"] + omega
    weight = torch.where(total > 0, omega / total.clamp_min(torch.finfo(total.dtype).tiny), 1.0)
    return state | {"omega": total, "theta_star": torch.lerp(state["theta_star"], theta, weight)}
