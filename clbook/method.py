"""A method of continual learning: what the loss is, and what is remembered.

`Method` is a handful of pure functions over theta and an explicit state (a dict of tensors). `Spring` is the seed of the
book's picture: L2, EWC, SI, MAS and RWalk differ only in how stiff each spring is.
Book: book/ewc, "The springs"; notebooks/03_ewc.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad

from clbook.checks import InputError, Share, Strength, check_fields, float_fields
from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task

State = dict[str, Tensor]
Rng = torch.Generator
Keeps = tuple[str, ...] | None


class Update(NamedTuple):
    """What the optimiser just did: theta before it [P], the direction it took [P], and eta, its step size ([] or [P]).

    `done` [] is the share of the task's steps taken so far, in (0, 1].
    """

    before: Tensor
    direction: Tensor
    eta: Tensor
    done: Tensor = torch.ones(())


@dataclass(frozen=True)
class Method:
    """Plain training on each task in turn, and the hooks that other methods change.

    A field says what it may be in its type (see checks); the float ones are the method's hyper-parameters, and `run` trains
    several values of them in one batch. A hook takes what it needs and returns the new value; none changes its arguments.

    The rule of stacking: `loss`, `direction`, `after_step` and `predict` run under `torch.func.vmap`, where theta is one run's
    vector [P] and the fields are tensors. So no `if`, `int()` or `.item()` on the value of a tensor there (write torch.where),
    and a state has the same shapes for every seed. A method that cannot keep to it says `stacks = False`.
    """

    sees: ClassVar[Literal["task", "seen", "all"]] = "task"  # where training batches come from; "task" is the current one
    keeps: ClassVar[Keeps] = None  # what of its state a learner stores between tasks; None is all
    needs_task: ClassVar[bool] = False  # predict looks at batch.task, so it works only where the test tells the task
    stacks: ClassVar[bool] = True  # False: every run trains by itself, and no hook runs under vmap

    def __post_init__(self) -> None:
        check_fields(self)

    def extend(self, net: Net, scenario: Scenario) -> Net:
        """The network this method trains, before anything starts; the place to refuse a scenario or a network."""
        return net

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        """The state before the first task."""
        return {}

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        """theta and state at the start of a task."""
        return theta, state

    def prepare(self, state: State, scenario: Scenario, k: int, batch: Batch, rng: Rng) -> Batch:
        """A batch of task k with what is stored or random beside it: replayed samples in `old`, anything else in `drawn`."""
        return batch

    def observe(self, net: Net, theta: Tensor, state: State, scenario: Scenario, batch: Batch, rng: Rng) -> State:
        """The state once a batch has come in, before the step on it: where a method looks that is told of no boundary."""
        return state

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        """The loss of one batch: here the task's own."""
        return net.loss(theta, batch)

    def direction(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, " P"]:
        """What the optimiser takes for the gradient [P]: here the gradient of the loss."""
        return grad(lambda t: self.loss(net, t, state, batch))(theta)

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        """theta and state after each step of the optimiser."""
        return theta, state

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        """The state once a task has been trained: the place to remember something."""
        return state

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        """The outputs [B, C] with which the method is judged."""
        return net(theta, batch.x)

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        """Bytes this method keeps between tasks besides theta, as a real learner would store them: those of `keeps`."""
        names = state if self.keeps is None else self.keeps
        return sum(state[name].numel() * state[name].element_size() for name in names)

    # what `run` needs to stack methods of one class; a method never touches these
    @property
    def hyper(self) -> dict[str, float]:
        """The hyper-parameters: the fields declared as floats, where they are not left out."""
        return {name: value for name in float_fields(type(self)) if (value := getattr(self, name)) is not None}

    @property
    def fixed(self) -> tuple[Any, ...]:
        """What methods must share to train as one batch: the class, and every field that is no hyper-parameter."""
        return type(self), tuple((f.name, getattr(self, f.name)) for f in fields(self) if f.name not in self.hyper)

    def bind(self, hyper: dict[str, Any]) -> Method:
        """A copy with other values of the hyper-parameters, tensors allowed."""
        bound = copy.copy(self)
        vars(bound).update(hyper)
        return bound

    @property
    def label(self) -> str:
        """A short name for tables and legends."""
        return type(self).__name__


Carry = Literal["separate", "latest", "online", "newest"]


@dataclass(frozen=True)
class Spring(Method):
    r"""A quadratic penalty that ties each parameter to its old value, as a spring of its own stiffness.

    loss(theta) = L_task(theta) + (lam / 2) sum_i Omega_i (theta_i - theta*_i)^2

    A subclass says how stiff the springs of one task are: `importance`, Omega [P].

    `pull` says how the spring pulls: "implicit" takes the optimiser's step on the task's loss
    and then the exact proximal step of the spring, theta <- (theta + eta lam Omega theta*) / (1 + eta lam Omega), which no
    lam can make diverge; "explicit" adds the penalty to the loss, and SGD diverges once eta lam max(Omega) > 2.

    `carry` says how the springs of several old tasks are carried on:
    - "separate": one spring per task (Kirkpatrick et al. 2017), merged exactly into one, so memory is constant;
    - "latest": the Omegas summed, centred at the latest theta (Huszar 2018, arXiv:1712.03847);
    - "online": as "latest", with the old sum decayed by gamma (Schwarz et al. 2018, arXiv:1805.06370, section 2.2);
    - "newest": the newest spring alone, which is enough where Omega is about all tasks or says nothing about any.

    lam >= 0 has the unit of 1 / Omega. Raises InputError for a negative lam, unknown words, and gamma anywhere but in "online".
    Source: Kirkpatrick et al. 2017, eq. 3; the proximal step: Parikh & Boyd 2014, section 6.1.1. Book: book/ewc, book/springs.
    """

    keeps: ClassVar[Keeps] = ("omega", "theta_star")
    lam: Strength
    pull: Literal["implicit", "explicit"] = "implicit"
    carry: Carry = "separate"
    gamma: Share | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self).importance is Spring.importance:
            raise InputError(f"{type(self).__name__} must say how stiff its springs are: give it a method `importance`")
        if (self.gamma is None) == (self.carry == "online"):
            name = type(self).__name__
            raise InputError(f'{name}.gamma belongs to carry="online", got gamma={self.gamma!r} and carry={self.carry!r}')

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> Float[Tensor, " P"]:
        """Omega [P] >= 0, the stiffness that one finished task gives each parameter."""
        raise NotImplementedError

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        return {"omega": torch.zeros_like(theta), "theta_star": theta.clone()}

    def penalty(self, theta: Tensor, state: State) -> Float[Tensor, ""]:
        """(lam / 2) sum_i Omega_i (theta_i - theta*_i)^2."""
        return self.lam / 2 * (state["omega"] * (theta - state["theta_star"]).square()).sum()

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        data_loss = net.loss(theta, batch)
        return data_loss + self.penalty(theta, state) if self.pull == "explicit" else data_loss

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        return (proximal(theta, state, update.eta * self.lam) if self.pull == "implicit" else theta), state

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        omega = self.importance(net, theta, state, task, rng)
        if self.carry == "separate":
            return merge(state, omega, theta)
        fade = {"latest": 1.0, "online": self.gamma or 0.0, "newest": 0.0}[self.carry]
        return state | {"omega": fade * state["omega"] + omega, "theta_star": theta}


def proximal(theta: Tensor, state: State, strength: Tensor) -> Tensor:
    """The exact step of the springs: argmin_t |t - theta|^2 / 2 + sum strength/2 Omega (t - theta*)^2.

    Written as a step of weight w = s Omega / (1 + s Omega) in [0, 1] from theta towards theta*: it never goes past it.
    """
    weight = strength * state["omega"]
    return torch.lerp(theta, state["theta_star"], weight.div_(1 + weight))  # in place, to save time


def merge(state: State, omega: Tensor, theta: Tensor) -> State:
    """One spring that equals the sum of two, up to a constant: Omega = Omega_1 + Omega_2, theta* their weighted mean.

    Where neither spring pulls (Omega = 0), theta* is the newest theta. Source: book/springs, "A third task".
    """
    total = state["omega"] + omega
    weight = torch.where(total > 0, omega / total.clamp_min(torch.finfo(total.dtype).tiny), 1.0)
    return state | {"omega": total, "theta_star": torch.lerp(state["theta_star"], theta, weight)}
