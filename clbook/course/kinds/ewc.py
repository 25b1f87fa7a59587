"""A class that carries EWC from task to task, as most programs have one, and the ways in which it goes wrong.

It is made with `lam`, told of a finished task with `after_task(model, x, y)` and asked for `penalty(model)`. What can be wrong
with a Fisher information or with a penalty can be wrong here, too; what is new is the theta at which each is taken.
Book: book/ewc.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from clbook.course.calling import CannotCheck, Subject, call, gradient, put, scalar, theta_of
from clbook.course.kinds import fisher, penalty
from clbook.course.properties import Choice, Convention, Fault, Property, Section

SPRINGS = Section("book/ewc", "The springs")
COMPUTED = Section("book/ewc", "How it is computed")
THIRD = Section("book/springs", "A third task")
ONLINE = Section("book/springs", "Online EWC")
AFTER = ("after_task", "on_task_end", "end_task", "consolidate", "update", "register")
PENALTY = ("penalty", "ewc_loss", "penalty_loss", "loss")


@dataclass(frozen=True)
class Problem:
    """Two tasks that were trained, the places between, and the strength of the springs."""

    start: Tensor  # theta before the first task
    a: fisher.Problem  # the first task, with the network as it was at its end
    b: fisher.Problem  # the second
    move: Tensor  # from the end of a task to where the penalty is asked for
    lam: float
    gamma: float

    def __str__(self) -> str:
        return f"{self.a}, lam = {self.lam:g}: the energy, then the force on each parameter"

    def star(self, task: fisher.Problem) -> Tensor:
        return theta_of(task.model)

    def springs(self, task: fisher.Problem, omega: Tensor, theta: Tensor) -> penalty.Problem:
        """Springs of the stiffness omega that rest at the end of a task, looked at from theta."""
        return penalty.Problem(task.model, theta, self.star(task), omega, self.lam)

    @cached_property
    def moved(self) -> Tensor:
        return self.star(self.a) + self.move

    @cached_property
    def moved_again(self) -> Tensor:
        return self.star(self.b) + self.move

    def fisher_at(self, theta: Tensor, estimator: str) -> Tensor:
        """The Fisher information of the first task's data at another theta."""
        model = copy.deepcopy(self.a.model)
        put(model, theta)
        return fisher.right(replace(self.a, model=model), estimator)


def problems(subject: Subject) -> list[Problem]:
    """Softmax regression and a network with a hidden layer."""
    found = []
    masked = bool({"mask", "classes"} & takes(subject))
    lam = {"lam"} <= takes(subject)
    pairs = (
        (lambda: nn.Linear(3, 4), (0, 2, 3)),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4)), (0, 1, 3)),
    )
    for seed, (make, allowed) in enumerate(pairs):
        name = ("softmax regression", "a network with three hidden units")[seed]
        inputs = (3, 2)[seed]
        a, b = (
            fisher.small(name, make(), n, inputs, 4, 20 + 2 * seed + t, allowed if masked else ()) for t, n in enumerate((6, 8))
        )
        g = torch.Generator().manual_seed(seed)
        P = len(theta_of(a.model))
        start, move = 0.7 * torch.randn(P, generator=g), torch.randn(P, generator=g)
        found.append(Problem(start, a, b, move, (3.0, 0.7)[seed] if lam else 1.0, subject.declared.get("gamma", 0.9)))
    return found


def method(owner: Any, names: tuple[str, ...]) -> str | None:
    return next((n for n in names if callable(getattr(owner, n, None))), None)


def takes(subject: Subject) -> set[str]:
    """What the class and its methods ask for."""
    found = set(subject.takes)
    for names in (AFTER, PENALTY):
        if name := method(subject.target, names):
            found |= Subject("", name, getattr(subject.target, name)).takes
    return found


class Carried:
    """The reader's object beside the network that it looks after."""

    def __init__(self, subject: Subject, q: Problem) -> None:
        self.subject, self.q, self.model = subject, q, copy.deepcopy(q.a.model)
        self.at_once = bool({"x", "loader", "dataset"} & subject.takes)  # the constructor is given the task's data
        if not self.at_once:
            put(self.model, q.start)
        self.object = self._call(subject.target, q.a)

    def after(self, task: fisher.Problem) -> None:
        put(self.model, theta_of(task.model))
        name = method(self.object, AFTER)
        if name is None and not self.at_once:
            raise CannotCheck(
                f"{self.subject.name} must have a method that is told of a finished task, after_task(model, x, y)"
            )
        if name is not None:
            self._call(getattr(self.object, name), task)

    def energy(self, theta: Tensor) -> Tensor:
        put(self.model, theta)
        name = method(self.object, PENALTY)
        if name is None:
            raise CannotCheck(f"{self.subject.name} must have a method penalty(model)")
        value = scalar(self._call(getattr(self.object, name), self.q.a), f"{self.subject.name}.{name}")
        return torch.cat([value.reshape(1), gradient(value, list(self.model.parameters()))]).detach()

    def _call(self, function: Any, task: fisher.Problem) -> Any:
        known = task.known() | {"model": self.model, "lam": self.q.lam, "gamma": self.q.gamma}
        return call(function, known, f"{self.subject.name}.{getattr(function, '__name__', '')}")


def observe(subject: Subject, q: Problem) -> Tensor:
    """The energy and its gradient once theta has moved away from the end of the first task [1 + P]."""
    carried = Carried(subject, q)
    carried.after(q.a)
    return carried.energy(q.moved)


def observe_second(subject: Subject, q: Problem) -> Tensor:
    """The same after a second task."""
    carried = Carried(subject, q)
    carried.after(q.a)
    carried.energy(q.moved)
    carried.after(q.b)
    return carried.energy(q.moved_again)


def right(q: Problem, estimator: str = "exact") -> Tensor:
    return penalty.right(q.springs(q.a, fisher.right(q.a, estimator), q.moved))


def right_second(q: Problem, carry: str = "separate", estimator: str = "exact") -> Tensor:
    """separate: both springs; latest: one of both stiffnesses at the second end; online: the same, the old one times gamma."""
    one, two = (fisher.right(task, estimator) for task in (q.a, q.b))
    new = penalty.right(q.springs(q.b, two, q.moved_again))
    if carry == "separate":
        return new + penalty.right(q.springs(q.a, one, q.moved_again))
    fade = 1.0 if carry == "latest" else q.gamma
    return penalty.right(q.springs(q.b, fade * one + two, q.moved_again))


CARRY = Convention("carry", (
    Choice("separate", "a spring for each task"),
    Choice("latest", "one spring that rests at the latest theta",
           "This is Huszár's spring, which counts no task twice: search the strength anew."),
    Choice("online", "one spring at the latest theta, and the old stiffness fades by gamma",
           "Oldest tasks are given up little by little, so that plasticity is left."),
))  # fmt: skip
ESTIMATOR = Convention("estimator", fisher.ESTIMATOR.choices[:2])
LATE = ("https://github.com/which47/LLMCL/issues/1",)
WRONG_THETA = "The stiffness is that of another place: it says which parameters mattered there, and not at theta*."


def of_fisher(fault: Fault) -> Fault:
    """A mistake in the Fisher information, as it shows in the energy."""
    formula = fault.formula
    assert formula is not None
    return replace(fault, formula=lambda q: penalty.right(q.springs(q.a, formula(q.a), q.moved)))


def of_penalty(fault: Fault, estimator: str) -> Fault:
    """A mistake in the penalty, with the springs of EWC."""
    formula = fault.formula
    assert formula is not None
    return replace(fault, formula=lambda q: formula(q.springs(q.a, fisher.right(q.a, estimator), q.moved)))


def springs_at(q: Problem, theta: Tensor, estimator: str) -> Tensor:
    """The energy with a stiffness that was taken at another theta. Its gradient is that of fixed springs."""
    return penalty.right(q.springs(q.a, q.fisher_at(theta, estimator), q.moved))


ZERO = Fault(
    "not-a-copy",
    "the penalty is zero: theta* is not a copy, or theta is compared with itself",
    penalty.FREE + " Keep p.detach().clone(); .data and state_dict() share their memory with the network.",
    lambda q: 0 * right(q),
    SPRINGS,
    ("https://github.com/ContinualAI/avalanche/issues/1099", "https://github.com/pytorch/tutorials/pull/188"),
)
ESTIMATORS = ("exact", "empirical")


def both(id: str, says: str, means: str, formula: Any, section: Section, seen: tuple[str, ...] = ()) -> list[Fault]:
    """A fault with either Fisher information in the springs."""
    return [Fault(id, says, means, partial(formula, estimator=e), section, seen) for e in ESTIMATORS]


def from_start(q: Problem, estimator: str) -> Tensor:
    """Springs that rest at the theta before the task."""
    return penalty.right(penalty.Problem(q.a.model, q.moved, q.start, fisher.right(q.a, estimator), q.lam))


FAULTS = (
    ZERO,
    *both("wrong-theta", "the Fisher information is taken at the theta before the task, not at theta*", WRONG_THETA,
          lambda q, estimator: springs_at(q, q.start, estimator), COMPUTED, LATE),
    *both("wrong-theta", "the Fisher information is taken at the theta of the moment, not at theta*", WRONG_THETA,
          lambda q, estimator: springs_at(q, q.moved, estimator), COMPUTED, LATE),
    *both("star-before", "theta* is the theta before the task, not the one after it",
          "The springs pull back to where nothing had been learned yet.", from_start, SPRINGS),
    *(of_fisher(f) for f in fisher.FAULTS if f.id != "zero"),
    *(of_penalty(f, e) for f in penalty.FAULTS if f.id not in ("zero", "no-lam") for e in ESTIMATORS),
)  # fmt: skip
SCALES: dict[str, Any] = {
    "N": lambda q: float(len(q.a.x)), "1/N": lambda q: 1 / len(q.a.x), "2 N": lambda q: 2.0 * len(q.a.x),
    "2/N": lambda q: 2 / len(q.a.x),
}  # fmt: skip
MEAN, SUM = fisher.REDUCTION.choices
REDUCTION = replace(fisher.REDUCTION, choices=(MEAN, replace(SUM, factor=lambda q: float(len(q.a.x)))))
VALUE = Property(
    "ewc.value",
    "holds theta at the end of a task with springs as stiff as the Fisher information there",
    problems,
    observe,
    right,
    SPRINGS,
    FAULTS,
    (ESTIMATOR, REDUCTION, penalty.HALF),
    scale=True,
    scales=SCALES,
)
FORGOTTEN = "Only one of the old tasks is held, and the other is forgotten as if there were no springs."


def after_both(q: Problem, star: str, omega: str, estimator: str) -> Tensor:
    """One spring after both tasks, that rests at the end of the first or the second, with the stiffness of one or of both."""
    stiffness = {"a": fisher.right(q.a, estimator), "b": fisher.right(q.b, estimator)}
    task = {"a": q.a, "b": q.b}[star]
    return penalty.right(q.springs(task, sum((stiffness[k] for k in omega), torch.zeros_like(q.star(task))), q.moved_again))


SECOND_FAULTS = (
    *both("newest-only", "after a second task only its own springs are left", FORGOTTEN,
          partial(after_both, star="b", omega="b"), THIRD),
    *both("oldest-only", "after a second task the springs are still those of the first", FORGOTTEN,
          partial(after_both, star="a", omega="a"), THIRD),
    *both("mixed", "the stiffness is that of both tasks, and theta* is still that of the first",
          "The second task is held at a place where it has never been trained.",
          partial(after_both, star="a", omega="ab"), THIRD),
    *both("moved-star", "the springs have the stiffness of the first task and rest at the end of the second", FORGOTTEN,
          partial(after_both, star="b", omega="a"), THIRD),
)  # fmt: skip
SECOND = Property(
    "ewc.second",
    "holds both tasks after a second one",
    problems,
    observe_second,
    right_second,
    THIRD,
    SECOND_FAULTS,
    (CARRY, ESTIMATOR, penalty.HALF),
    scale=True,
    needs="ewc.value",
    applies=lambda subject: method(subject.target, AFTER) is not None and subject.declared.get("reduction") != "sum",
)


def observe_change(subject: Subject, q: fisher.Problem) -> Tensor:
    """By how much the object's look at a finished task changes the network [2]."""
    return fisher.observe_change(Subject(subject.kind, subject.name, _Pass(subject)), q)


class _Pass:
    """One pass over a task's data, as a function."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __call__(self, model: nn.Module, x: Any, y: Any, mask: Any, classes: Any, loader: Any, dataset: Any) -> None:
        known = {"model": model, "x": x, "y": y, "mask": mask, "classes": classes, "loader": loader, "dataset": dataset,
                 "lam": 1.0, "gamma": 0.9, "criterion": nn.CrossEntropyLoss(), "device": "cpu"}  # fmt: skip
        made = call(self.subject.target, known, self.subject.name)
        if name := method(made, AFTER):
            call(getattr(made, name), known, name)


LEFT = replace(
    fisher.LEFT, id="ewc.left", observe=observe_change, applies=lambda subject: subject.declared.get("mode") != "eval"
)

TEMPLATE = '''"""Elastic weight consolidation. Change it, and run: clbook check {file}"""

import torch
from torch.nn.functional import log_softmax


class EWC:
    half = True  # False where the penalty is lam times the sum, without 1/2
    estimator = "exact"  # or "empirical", with the labels y
    reduction = "mean"  # or "sum" over the samples
    carry = "separate"  # or "latest", or "online" with gamma

    def __init__(self, lam):
        self.lam, self.old = lam, []

    def after_task(self, model, x, y):
        """Remember a finished task: where it ended, and how stiff its springs are."""
        star = {{name: p.detach().clone() for name, p in model.named_parameters()}}
        self.old.append((star, self.fisher(model, x)))

    def fisher(self, model, x):
        was_training = model.training
        model.eval()
        total = {{name: torch.zeros_like(p) for name, p in model.named_parameters()}}
        for x_n in x:  # each sample by itself
            for log_p_c in log_softmax(model(x_n[None])[0], -1):  # every label, weighted with its probability
                model.zero_grad()
                log_p_c.backward(retain_graph=True)
                for name, p in model.named_parameters():
                    total[name] += log_p_c.exp().item() * p.grad ** 2 / len(x)
        model.zero_grad()
        model.train(was_training)
        return total

    def penalty(self, model):
        """lam/2 sum_i F_i (theta_i - theta*_i)^2, summed over the old tasks."""
        total = 0.0
        for star, F in self.old:
            for name, p in model.named_parameters():
                total = total + (F[name] * (p - star[name]) ** 2).sum()
        return self.lam / 2 * total
'''
