"""The importance of synaptic intelligence along a path, and how it goes wrong. Book: book/families/regularisation."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.course.calling import CannotCheck, Subject
from clbook.course.properties import Choice, Convention, Fault, Property, Section

SECTION = Section("book/families/regularisation", "Synaptic intelligence: the share of a parameter")


@dataclass(frozen=True)
class Problem:
    """A path on a quadratic loss: its places [S + 1, P], the gradients of the task's loss and of the whole one [S, P]."""

    thetas: Tensor
    gradients: Tensor
    directions: Tensor
    lr: float
    xi: float

    def __str__(self) -> str:
        return f"{len(self.gradients)} steps on a quadratic loss, {self.thetas.shape[1]} parameters, xi = {self.xi:g}"

    def path(self, slopes: Tensor) -> Tensor:
        """- sum_t g(t) (theta(t+1) - theta(t)) [P]."""
        return -(slopes * self.thetas.diff(dim=0)).sum(0).double()

    @property
    def d(self) -> Tensor:
        """How far each parameter went [P]."""
        return (self.thetas[-1] - self.thetas[0]).double()


def problems(subject: Subject) -> list[Problem]:
    """Steps of an optimiser with momentum, so not along the gradient, on 1/2 a (theta - b)^2: some shares are negative."""
    found = []
    for seed, (steps, P, lr, xi) in enumerate(((6, 5, 0.2, 0.1), (9, 7, 0.1, 0.03))):
        g = torch.Generator().manual_seed(seed + 3)
        a, b, theta = torch.rand(P, generator=g) + 0.3, torch.randn(P, generator=g), torch.randn(P, generator=g)
        thetas, slopes, wholes = [theta], [], []
        for _ in range(steps):
            slope = a * (thetas[-1] - b) + 1.5 * torch.randn(P, generator=g)
            whole = slope + 0.8 * (thetas[-1] - theta)
            thetas.append(thetas[-1] - lr * whole + 0.5 * torch.randn(P, generator=g))
            slopes.append(slope)
            wholes.append(whole)
        found.append(Problem(torch.stack(thetas), torch.stack(slopes), torch.stack(wholes), lr, xi))
    return found


def observe(subject: Subject, q: Problem) -> Tensor:
    given = copy.copy(q)
    answer = subject(
        thetas=given.thetas.clone(), gradients=given.gradients.clone(), directions=given.directions.clone(), xi=q.xi,
        star=given.thetas[0].clone(),
    )  # fmt: skip
    if not isinstance(answer, Tensor) or answer.shape != q.d.shape:
        raise CannotCheck(
            f"{subject.name} must return one number for each parameter, a vector [{len(q.d)}]; it returned {answer!r:.60}"
        )
    return answer


def right(q: Problem, negative: str = "cut") -> Tensor:
    """max(path, 0) / (d^2 + xi)."""
    path = q.path(q.gradients)
    return (path.clamp_min(0) if negative == "cut" else path) / (q.d.square() + q.xi)


def over(q: Problem, path: Tensor) -> Tensor:
    return path.clamp_min(0) / (q.d.square() + q.xi)


NEGATIVE = Convention("negative", (
    Choice("cut", "negative shares are cut to zero, as in the authors' code"),
    Choice("keep", "negative shares are kept, as the formula of the paper has it",
           "Then some springs push. Cut the sum over all tasks before it is used."),
))  # fmt: skip
FAULTS = (
    Fault("whole-gradient", "the gradient is that of the whole loss, with the penalty, not of the task's own",
          "Springs earn importance for pulling: what was important becomes more so at every task, without having done "
          "anything.",
          lambda q: over(q, q.path(q.directions)), SECTION,
          ("https://github.com/ContinualAI/avalanche/issues/106", "https://github.com/aimagelab/mammoth/issues/50",
           "https://github.com/GMvandeVen/continual-learning/issues/14")),
    Fault("sign", "the sign of the path is wrong: + g (theta(t+1) - theta(t))",
          "Parameters that lowered the loss get no spring, and those that raised it do.",
          lambda q: over(q, -q.path(q.gradients)), SECTION),
    Fault("sign", "the sign of the path is wrong: + g (theta(t+1) - theta(t)), and negative shares are kept",
          "Parameters that lowered the loss get springs that push.",
          lambda q: -right(q, "keep"), SECTION),
    Fault("absolute", "the absolute value of each share",
          "A parameter that raised the loss is held as firmly as one that lowered it by as much.",
          lambda q: over(q, q.path(q.gradients).abs()), SECTION),
    Fault("absolute-steps", "the absolute value of each step's share, before the sum",
          "Noise that goes back and forth adds up and is held to be important.",
          lambda q: over(q, (q.gradients * q.thetas.diff(dim=0)).abs().sum(0).double()), SECTION),
    Fault("gradient-squared", "the squared gradient in place of gradient times step",
          "It is the step only for plain SGD without momentum and without springs, and up to the learning rate.",
          lambda q: over(q, q.gradients.square().sum(0).double()), SECTION),
    Fault("not-normalised", "the path is not divided by the squared distance",
          "The energy of the spring then has the wrong unit: parameters that went far get springs that are much too stiff.",
          lambda q: q.path(q.gradients).clamp_min(0), SECTION),
    Fault("distance-unsquared", "divided by the distance, not by its square",
          "The unit is wrong: a stiffness is an energy over a squared distance.",
          lambda q: q.path(q.gradients).clamp_min(0) / (q.d.abs() + q.xi), SECTION),
    Fault("xi-inside", "xi is added to the distance before it is squared",
          "A parameter that moved by minus xi gets an infinite stiffness.",
          lambda q: q.path(q.gradients).clamp_min(0) / (q.d + q.xi).square(), SECTION),
    Fault("no-xi", "xi is left out", "A parameter that did not move gets an infinite stiffness.",
          lambda q: q.path(q.gradients).clamp_min(0) / q.d.square(), SECTION),
    Fault("length-of-path", "divided by the squared steps along the path, not by the squared distance from its beginning",
          "A parameter that trembles in place looks as if it had gone far, and gets a soft spring.",
          lambda q: q.path(q.gradients).clamp_min(0) / (q.thetas.diff(dim=0).square().sum(0).double() + q.xi), SECTION),
    Fault("last-step", "only the last step counts", "What the parameter did before is forgotten.",
          lambda q: over(q, -(q.gradients[-1] * (q.thetas[-1] - q.thetas[-2])).double()), SECTION),
    Fault("next-gradient", "the gradient and the step are shifted against each other by one",
          "The gradient of a step is taken after it: near a minimum it has the other sign for parameters that overshoot.",
          lambda q: over(q, -(q.gradients[1:] * q.thetas.diff(dim=0)[:-1]).sum(0).double()), SECTION),
)  # fmt: skip
VALUE = Property(
    "si.value",
    "is the share in the fall of the task's own loss over the squared distance",
    problems,
    observe,
    right,
    SECTION,
    FAULTS,
    (NEGATIVE,),
    scale=True,
    scales={"lr": lambda q: q.lr, "1/lr": lambda q: 1 / q.lr},
)

TEMPLATE = '''"""The importance of synaptic intelligence. Change it, and run: clbook check {file}"""


def si(gradients, thetas, xi):
    """[P] from the task's own gradients at each step [S, P] and the places they were taken at [S + 1, P]."""
    path = -(gradients * (thetas[1:] - thetas[:-1])).sum(0)
    return path.clamp(min=0) / ((thetas[-1] - thetas[0]) ** 2 + xi)


si.negative = "cut"  # or "keep", where negative shares stay
'''
