"""The loss of experience replay, and the ways in which it goes wrong. Book: book/families/replay."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clbook.course.calling import Subject, gradient, scalar
from clbook.course.properties import Choice, Convention, Fault, Property, Section, Told

SECTION = Section("book/families/replay", "Experience replay")
MASKS = Section("notebooks/01_forgetting", "Three scenarios")


@dataclass(frozen=True)
class Problem:
    """A batch of the new task and a replayed one, with the outputs of each."""

    model: nn.Module
    x: Tensor
    y: Tensor
    mask: Tensor
    x_old: Tensor
    y_old: Tensor
    mask_old: Tensor
    k: int

    def __str__(self) -> str:
        of = f"outputs {self.mask.nonzero().flatten().tolist()}, replayed {self.mask_old.nonzero().flatten().tolist()}"
        return f"softmax regression, {of}, {self.k} earlier tasks: the gradient"

    def slope(self, old: bool, mask: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """The gradient [P] of the mean cross-entropy of one of the batches, under its own mask or another."""
        x = (self.x_old if old else self.x).double()
        y = (self.y_old if old else self.y) if y is None else y
        mask = (self.mask_old if old else self.mask) if mask is None else mask
        model = copy.deepcopy(self.model).double()
        loss = nn.functional.cross_entropy(model(x).masked_fill(~mask, -math.inf), y)
        return gradient(loss, list(model.parameters()))


def problems(subject: Subject) -> list[Problem]:
    """Two tasks with outputs of their own; then two that share an output, after three earlier ones."""
    found = []
    for seed, (new, old, k) in enumerate((((2, 3), (0, 1), 1), ((2, 3, 4), (0, 1, 2), 3))):
        g = torch.Generator().manual_seed(seed)
        model = nn.Linear(3, 5)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=g))
        masks = [torch.isin(torch.arange(5), torch.tensor(c)) for c in (new, old)]
        sizes = (6, 4)  # not alike, so that a mean over all samples differs from a mean of means
        x, x_old = (torch.randn(n, 3, generator=g) + i for i, n in enumerate(sizes))
        y, y_old = (torch.tensor(c)[torch.randint(len(c), (n,), generator=g)] for c, n in zip((new, old), sizes, strict=True))
        found.append(Problem(model, x, y, masks[0], x_old, y_old, masks[1], k))
    return found


def observe(subject: Subject, q: Problem) -> Tensor:
    """The gradient of the loss [P]; infinities as they come."""
    model = copy.deepcopy(q.model)
    known = {name: getattr(q, name).clone() for name in ("x", "y", "mask", "x_old", "y_old", "mask_old")}
    value = scalar(subject(model=model, k=q.k, criterion=nn.CrossEntropyLoss(), device="cpu", **known), subject.name)
    if not math.isfinite(value.item()):
        raise Told(UNDER_NEW)
    return gradient(value, list(model.parameters())).detach()


def right(q: Problem, weights: str = "tasks") -> Tensor:
    """tasks: (L_new + k L_old) / (k + 1); half: (L_new + L_old) / 2; sum: L_new + L_old; samples: a mean over all samples."""
    n, m = len(q.x), len(q.x_old)
    new, old = {"tasks": (1.0, q.k), "half": (1.0, 1.0), "sum": (2.0, 2.0), "samples": (2.0 * n / (n + m), 2.0 * m / (n + m))}[
        weights
    ]
    total = {"tasks": q.k + 1.0}.get(weights, 2.0)
    return (new * q.slope(False) + old * q.slope(True)) / total


def wrong(q: Problem, mask: Tensor | None = None, y: Tensor | None = None, all_new: bool = False) -> Tensor:
    """The loss with the weights of "half" whose old part, or both, is under another mask."""
    new = q.slope(False, torch.ones_like(q.mask)) if all_new else q.slope(False)
    return (new + q.slope(True, mask, y)) / 2


WEIGHTS = Convention("weights", (
    Choice("tasks", "each task seen has the same weight, 1/(k+1)"),
    Choice("half", "half of the weight for the new task and half for all old ones together",
           "The more tasks there are, the less each old one counts."),
    Choice("sum", "the plain sum of the two losses", "The gradient is twice as large as that of their mean: halve the "
           "learning rate."),
    Choice("samples", "a mean over all samples, new and old", "The old tasks count as their share of the samples."),
))  # fmt: skip
ALL = "An output that no sample of the batch could have been is pushed down: the other task's classes are unlearned."
UNDER_NEW = Fault(
    "new-mask",
    "the replayed labels are looked for among the outputs of the new task, where they are not: the loss is infinite",
    "The old samples are asked a question that has no right answer; training ends in NaN, or, where the mask is a large "
    "negative "
    "number, pushes without end.",
    None,
    MASKS,
    ("https://github.com/ContinualAI/avalanche/issues/502",),
)


def by_hand(q: Problem) -> Tensor:
    """The old part under the new task's mask, with a large negative number for infinity: only its outputs move."""
    f = nn.functional.linear(q.x_old.double(), q.model.weight.detach().double(), q.model.bias.detach().double())  # type: ignore
    p = f.masked_fill(~q.mask, -math.inf).softmax(-1)
    inside = q.mask[q.y_old]
    signal = (p - inside[:, None] * nn.functional.one_hot(q.y_old, p.shape[1])) / len(p)
    signal = signal * q.mask
    return (q.slope(False) + torch.cat([(signal.T @ q.x_old.double()).flatten(), signal.sum(0)])) / 2


def shifted(q: Problem) -> Tensor:
    """The replayed labels counted from 0 within their task, among the outputs of the new one."""
    label = q.mask_old.cumsum(0)[q.y_old] - 1
    return q.mask.nonzero().flatten()[label.clamp_max(int(q.mask.sum()) - 1)]


FAULTS = (
    Fault("all-outputs", "the replayed samples are trained under all outputs, not under their task's", ALL,
          lambda q: wrong(q, torch.ones_like(q.mask)), MASKS),
    Fault("all-outputs", "both batches are trained under all outputs, not each under its task's", ALL,
          lambda q: wrong(q, torch.ones_like(q.mask), all_new=True), MASKS),
    Fault("union", "the replayed samples are trained under the outputs of both tasks together", ALL,
          lambda q: wrong(q, q.mask | q.mask_old), MASKS),
    Fault("new-mask", "the replayed samples are trained under the mask of the new task: their labels are not among its outputs",
          UNDER_NEW.means, by_hand, MASKS, UNDER_NEW.seen),
    Fault("relabelled", "the replayed labels are counted within their task and taken for outputs of the new one",
          "The old samples are taught the names of new classes: the old task is overwritten on purpose.",
          lambda q: wrong(q, q.mask, shifted(q)), MASKS, UNDER_NEW.seen),
    Fault("new-only", "the replayed samples do not enter", "This is fine-tuning with a buffer that costs memory.",
          lambda q: q.slope(False), SECTION),
    Fault("old-only", "the new samples do not enter", "Nothing new is learned.", lambda q: q.slope(True), SECTION),
    Fault("exchanged", "the weights are exchanged: k/(k+1) for the new task and 1/(k+1) for the old ones",
          "The old tasks together count as one, and less with every task.",
          lambda q: (q.k * q.slope(False) + q.slope(True)) / (q.k + 1), SECTION),
)  # fmt: skip
VALUE = Property(
    "replay.gradient",
    "trains each sample under the outputs of its own task",
    problems,
    observe,
    right,
    SECTION,
    FAULTS,
    (WEIGHTS,),
    scale=True,
    scales={"k + 1": lambda q: q.k + 1.0, "2/(k + 1)": lambda q: 2 / (q.k + 1.0)},
)

TEMPLATE = '''"""The loss of experience replay. Change it, and run: clbook check {file}"""

import math

from torch.nn.functional import cross_entropy


def replay_loss(model, x, y, mask, x_old, y_old, mask_old, k):
    """(L_new + k L_old) / (k + 1), each batch under the outputs of its own task [C]."""
    new = cross_entropy(model(x).masked_fill(~mask, -math.inf), y)
    old = cross_entropy(model(x_old).masked_fill(~mask_old, -math.inf), y_old)
    return (new + k * old) / (k + 1)


replay_loss.weights = "tasks"  # or "half", "sum", "samples"
'''
