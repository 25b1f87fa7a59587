"""The projection of averaged gradient episodic memory (A-GEM), and how it goes wrong. Book: book/families/replay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.course.calling import CannotCheck, Subject
from clbook.course.properties import Fault, Property, Section

SECTION = Section("book/families/replay", "Old samples as a condition")


@dataclass(frozen=True)
class Problem:
    """A gradient g [P] and one on old samples, in single precision."""

    g: Tensor
    ref: Tensor
    name: str

    def __str__(self) -> str:
        return f"g and g_ref {self.name}"

    @property
    def d(self) -> tuple[Tensor, Tensor, Tensor]:
        """g, g_ref and their product, in double precision."""
        g, r = self.g.double(), self.ref.double()
        return g, r, g @ r


def problems(subject: Subject) -> list[Problem]:
    """One conflict, one agreement."""
    r = torch.Generator().manual_seed(0)
    found = []
    for sign, name in ((-1, "at an obtuse angle"), (1, "at an acute angle")):
        ref = 1.7 * torch.randn(6, generator=r)
        g = torch.randn(6, generator=r)
        found.append(Problem(g * sign * (g @ ref).sign(), ref, name))
    return found


def observe(subject: Subject, q: Problem) -> Tensor:
    answer = subject(g=q.g.clone(), g_ref=q.ref.clone())
    if not isinstance(answer, Tensor) or answer.numel() != q.g.numel():
        raise CannotCheck(f"{subject.name} must return a gradient, a vector [{len(q.g)}]; it returned {answer!r:.60}")
    return answer.reshape(-1)


def right(q: Problem) -> Tensor:
    """g - (g . r / r . r) r where g . r < 0, and g as it is elsewhere."""
    g, r, dot = q.d
    return g - dot / (r @ r) * r if dot < 0 else g


def when(q: Problem, conflict: Tensor, agreement: Tensor) -> Tensor:
    return conflict if q.d[2] < 0 else agreement


def project(g: Tensor, r: Tensor, by: Tensor, sign: float = -1) -> Tensor:
    return g + sign * (g @ r) / by * r


HURTS = "A step along it raises the loss on the old samples: what A-GEM exists to prevent."
FAULTS = (
    Fault("plus", "the projection is added, not taken away", HURTS + " More so than without any projection.",
          lambda q: when(q, project(q.d[0], q.d[1], q.d[1] @ q.d[1], 1), q.d[0]), SECTION),
    Fault("wrong-side", "it projects where the product is positive, not where it is negative",
          "Steps that would help the old tasks are bent away from it, and those that hurt are taken as they are.",
          lambda q: when(q, q.d[0], project(q.d[0], q.d[1], q.d[1] @ q.d[1])), SECTION),
    Fault("always", "it projects whatever the angle is",
          "Steps that would help the old tasks lose what would have helped: nothing is ever learned for both.",
          lambda q: project(q.d[0], q.d[1], q.d[1] @ q.d[1]), SECTION),
    Fault("never", "the gradient comes back as it was", "The old samples have no say: this is fine-tuning.",
          lambda q: q.d[0], SECTION),
    Fault("norm-unsquared", "divided by the length of g_ref, not by its square",
          "The step is bent too much or too little, by the length of g_ref, and what is left still has a product with it.",
          lambda q: when(q, project(q.d[0], q.d[1], q.d[1].norm()), q.d[0]), SECTION),
    Fault("not-normalised", "not divided by the squared length of g_ref",
          "The step is bent too much or too little, by the squared length of g_ref; a large gradient makes it explode.",
          lambda q: when(q, project(q.d[0], q.d[1], torch.ones(())), q.d[0]), SECTION),
    Fault("own-norm", "divided by the squared length of g, not of g_ref",
          "What is left still has a product with g_ref. " + HURTS,
          lambda q: when(q, project(q.d[0], q.d[1], q.d[0] @ q.d[0]), q.d[0]), SECTION),
    Fault("exchanged", "g_ref is projected and comes back, not g",
          "The network trains on the old samples alone wherever the two disagree.",
          lambda q: when(q, project(q.d[1], q.d[0], q.d[0] @ q.d[0]), q.d[0]), SECTION),
    Fault("reference", "g_ref comes back where the two agree, not g",
          "The new task's own gradient is lost wherever the two agree.",
          lambda q: when(q, right(q), q.d[1]), SECTION, ("https://github.com/imirzadeh/CL-Gym/issues/4",)),
    Fault("reference", "g_ref comes back where the two disagree, not the projection of g",
          "The network trains on the old samples alone wherever the two disagree.",
          lambda q: when(q, q.d[1], q.d[0]), SECTION),
    Fault("cut", "zero comes back where the two disagree",
          "No step is taken where one would have been possible that helps the new task and hurts nobody.",
          lambda q: when(q, 0 * q.d[0], q.d[0]), SECTION),
    Fault("entries", "each entry is looked at by itself: those with a negative product become zero",
          "It forbids far more than the condition does, and depends on how the parameters are counted.",
          lambda q: torch.where(q.d[0] * q.d[1] < 0, 0.0, q.d[0]), SECTION),
)  # fmt: skip
VALUE = Property(
    "agem.value",
    "takes from g what points against g_ref, and only where something does",
    problems,
    observe,
    right,
    SECTION,
    FAULTS,
)

TEMPLATE = '''"""The projection of A-GEM. Change it, and run: clbook check {file}"""


def project(g, g_ref):
    """The vector closest to g [P] that has no negative product with g_ref [P]."""
    dot = g @ g_ref
    return g - dot / (g_ref @ g_ref) * g_ref if dot < 0 else g
'''
