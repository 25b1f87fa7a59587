"""The energy of the springs and the copy of theta* they rest at, and how both go wrong. Book: book/ewc, "The springs"."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import clbook
from clbook.course.calling import Subject, gradient, named, put, scalar, theta_of, vector
from clbook.course.properties import Choice, Convention, Fault, Property, Section, Told

SPRINGS = Section("book/ewc", "The springs")


@dataclass(frozen=True)
class Problem:
    """A network at theta, springs Omega that rest at theta*, and their strength."""

    model: nn.Module
    theta: Tensor
    star: Tensor
    omega: Tensor
    lam: float

    def __str__(self) -> str:
        return f"{len(self.theta)} parameters, lam = {self.lam:g}: the energy, then the force on each parameter"

    @cached_property
    def d(self) -> Tensor:
        """theta - theta*, in double precision."""
        return self.theta.double() - self.star.double()


def problems(subject: Subject) -> list[Problem]:
    """Springs of all sizes, twice, with other strengths."""
    found = []
    for seed, module, lam in ((0, nn.Linear(2, 2), 3.0), (1, nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), 0.7)):
        g = torch.Generator().manual_seed(seed)
        n = len(theta_of(module))
        star = torch.randn(n, generator=g)
        found.append(Problem(module, star + torch.randn(n, generator=g), star, torch.rand(n, generator=g) * 2 + 0.1, lam))
    return found


def observe(subject: Subject, q: Problem) -> Tensor:
    """The energy and its gradient, one after the other [1 + P]."""
    model = copy.deepcopy(q.model)
    put(model, q.theta)
    if "theta" in subject.takes and "model" not in subject.takes:
        theta = q.theta.clone().requires_grad_()
        value = scalar(subject(theta=theta, star=q.star.clone(), importance=q.omega.clone(), lam=q.lam), subject.name)
        return torch.cat([value.reshape(1), gradient(value, [theta])]).detach()
    wanted: list[Tensor] = list(model.parameters())
    known: dict[str, Any] = {
        "model": model, "star": named(q.model, q.star), "importance": named(q.model, q.omega), "lam": q.lam, "device": "cpu",
    }  # fmt: skip
    if {"model", "theta"} <= subject.takes:
        wanted = [q.theta.clone().requires_grad_()]
        net = clbook.Net(lambda: copy.deepcopy(q.model))
        known |= {"theta": wanted[0], "model": net, "star": q.star.clone(), "importance": q.omega.clone()}
    value = scalar(subject(**known), subject.name)
    return torch.cat([value.reshape(1), gradient(value, wanted)]).detach()


def energy(value: Tensor, force: Tensor) -> Tensor:
    """The energy and the gradient as `observe` has them."""
    return torch.cat([value.reshape(1), force])


def right(q: Problem) -> Tensor:
    """lam/2 sum_i Omega_i d_i^2, and lam Omega_i d_i."""
    return energy(q.lam / 2 * (q.omega * q.d.square()).sum(), q.lam * q.omega * q.d)


def parts(q: Problem) -> list[Tensor]:
    """Which entries of theta belong to each tensor of parameters, as masks [P]."""
    sizes = [p.numel() for p in q.model.parameters()]
    return [m.bool() for m in torch.block_diag(*(torch.ones(1, n) for n in sizes))]


def only(q: Problem, k: int) -> Tensor:
    """The energy of the springs on one tensor of parameters."""
    omega = q.omega * parts(q)[k]
    return energy(q.lam / 2 * (omega * q.d.square()).sum(), q.lam * omega * q.d)


def per_tensor(q: Problem) -> Tensor:
    """The sum over tensors of the mean over their entries."""
    weight = sum((m / m.sum() for m in parts(q)), torch.zeros_like(q.d))
    return energy(q.lam / 2 * (weight * q.omega * q.d.square()).sum(), q.lam * weight * q.omega * q.d)


HALF = Convention("half", (
    Choice(True, "lam/2 times the sum", factor=lambda q: 1.0),
    Choice(False, "lam times the sum, without the 1/2, off by exactly 2",
           "The book's lam is then twice yours, as for MAS in its paper.",
           factor=lambda q: 2.0),
))  # fmt: skip
FREE = "Nothing holds the parameters: this is fine-tuning, and it forgets as much, whatever lam is."
FAULTS = (
    Fault("zero", "the penalty is zero: theta is compared with itself", FREE, lambda q: 0 * right(q), SPRINGS,
          ("https://github.com/ContinualAI/avalanche/issues/1099",)),
    Fault("detached", "the value is right, but no gradient reaches the parameters (.data, .detach(), .item() or no_grad)",
          "The loss that is printed contains the springs, and the step that is taken does not. " + FREE,
          lambda q: energy(right(q)[0], 0 * q.d), SPRINGS),
    Fault("importance-squared", "the importance is squared, since it stands inside the square",
          "Importances below 1 become tiny, and those above 1 rule: another ranking, and a lam of another size.",
          lambda q: energy(q.lam / 2 * (q.omega * q.d).square().sum(), q.lam * q.omega.square() * q.d), SPRINGS),
    Fault("importance-ignored", "the importance does not enter: every spring is equally stiff",
          "This is L2. Springs that hold the few parameters the old task needs also hold all others, and the new task "
          "finds no room.",
          lambda q: energy(q.lam / 2 * q.d.square().sum(), q.lam * q.d), SPRINGS),
    Fault("unsquared", "the difference is not squared",
          "The penalty has no lowest point: it drives every parameter downwards without end.",
          lambda q: energy(q.lam / 2 * (q.omega * q.d).sum(), q.lam / 2 * q.omega), SPRINGS),
    Fault("absolute", "the absolute difference, not its square",
          "The force does not grow with the distance: small moves are held too firmly, and large ones too softly.",
          lambda q: energy(q.lam / 2 * (q.omega * q.d.abs()).sum(), q.lam / 2 * q.omega * q.d.sign()), SPRINGS),
    Fault("root", "the square root of the sum: a norm that was not squared",
          "The force on one parameter depends on how far all others have moved, and it is not defined at theta*.",
          lambda q: energy((q.lam / 2 * (q.omega * q.d.square()).sum().sqrt()),
                           q.lam / 2 * q.omega * q.d / (q.omega * q.d.square()).sum().sqrt()), SPRINGS),
    Fault("to-zero", "the springs rest at zero, not at theta*",
          "This is weight decay with importances: it pulls the most those parameters that the old task needs.",
          lambda q: energy(q.lam / 2 * (q.omega * q.theta.double().square()).sum(), q.lam * q.omega * q.theta), SPRINGS),
    Fault("last-tensor", "only the last tensor of parameters is held: the loop assigns instead of adding",
          "All other layers are free, and the features that the old task was read from are overwritten.",
          lambda q: only(q, -1), SPRINGS),
    Fault("first-tensor", "only the first tensor of parameters is held: the loop returns too early",
          "All other layers are free.", lambda q: only(q, 0), SPRINGS),
    Fault("tensor-mean", "a mean over the entries of each tensor, not a sum over the parameters",
          "Springs of a large layer are softer than those of a small one, by how many parameters it has: biases are held "
          "hardest.",
          per_tensor, SPRINGS),
    Fault("no-lam", "lam does not enter", "The strength cannot be chosen, and whatever is searched for finds nothing.",
          lambda q: right(q) / q.lam, SPRINGS),
)  # fmt: skip
VALUE = Property(
    "penalty.value",
    "is lam/2 times the sum of Omega (theta - theta*)^2, and pulls with its gradient",
    problems,
    observe,
    right,
    SPRINGS,
    FAULTS,
    (HALF,),
    scale=True,
    scales={"1/P": lambda q: 1 / len(q.theta), "2/P": lambda q: 2 / len(q.theta), "lam": lambda q: q.lam},
)

# theta*, kept -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A network whose parameters are kept and then changed by an optimiser."""

    module: nn.Module

    def __str__(self) -> str:
        return "theta* as it is read again after one step of SGD"


def kept_problems(subject: Subject) -> list[Kept]:
    return [Kept(p.model) for p in problems(subject)]


def observe_kept(subject: Subject, q: Kept) -> Tensor:
    """What was kept, read after the parameters have been changed in place [P]."""
    model = copy.deepcopy(q.module)
    star = subject(model=model)
    if isinstance(star, nn.Module):
        star = list(star.parameters())
    if vector(star, model, subject.name).sub(theta_of(model).double()).abs().max() > 1e-6:
        raise Told(OTHER)
    put(model, theta_of(model) + 1)
    return vector(star, model, subject.name)


OTHER = Fault("other", "what is kept are not the parameters of the network",
"The springs pull to a place where the network never was.", None,
              SPRINGS)  # fmt: skip
COPY = Property(
    "remember.copy",
    "keeps a copy of the parameters",
    kept_problems,
    observe_kept,
    lambda q: theta_of(q.module).double(),
    SPRINGS,
    (
        Fault(
            "not-a-copy",
            "theta* is not a copy: it shares its memory with the network and moves along with it",
            "At every step theta - theta* is zero. "
            + FREE
            + " Write p.detach().clone(); state_dict() and .data give no copies.",
            lambda q: theta_of(q.module).double() + 1,
            SPRINGS,
            ("https://github.com/pytorch/tutorials/pull/188",),
        ),
    ),
)

TEMPLATE = '''"""The energy of the springs. Change it, and run: clbook check {file}"""


def penalty(model, star, importance, lam):
    """lam/2 sum_i Omega_i (theta_i - theta*_i)^2; star and importance are dictionaries by name."""
    total = 0.0
    for name, p in model.named_parameters():
        total = total + (importance[name] * (p - star[name]) ** 2).sum()
    return lam / 2 * total


penalty.half = True  # False where the factor 1/2 is left out


def remember(model):
    """A copy of the parameters, for star."""
    return {{name: p.detach().clone() for name, p in model.named_parameters()}}
'''
