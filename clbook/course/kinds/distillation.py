"""The distillation loss of learning without forgetting, and the ways in which it goes wrong.

It is asked for its gradient at the new outputs, (p - q) / T for each sample: a cross-entropy and a divergence, which differ by
the entropy of q, are then the same. Book: book/lwf, "The distillation loss".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clbook.course.calling import Subject, gradient, scalar
from clbook.course.properties import Choice, Convention, Fault, Property, Section

LOSS = Section("book/lwf", "The distillation loss")
GRADIENT = Section("book/lwf", "What the temperature does to the gradient")


@dataclass(frozen=True)
class Problem:
    """Outputs now and recorded ones [N, C], and a temperature."""

    z: Tensor
    v: Tensor
    T: float

    def __str__(self) -> str:
        return f"{len(self.z)} samples, {self.z.shape[1]} outputs, T = {self.T:g}: the gradient at the new outputs"

    def p(self, T: float) -> Tensor:
        return (self.z.double() / T).softmax(-1)

    def q(self, T: float) -> Tensor:
        return (self.v.double() / T).softmax(-1)


def problems(subject: Subject) -> list[Problem]:
    found = []
    for seed, (n, c, T) in enumerate(((5, 3, 2.0), (4, 6, 3.0))):
        g = torch.Generator().manual_seed(seed)
        found.append(Problem(2 * torch.randn(n, c, generator=g), 2 * torch.randn(n, c, generator=g), T))
    return found


def observe(subject: Subject, q: Problem) -> Tensor:
    """The gradient at the new outputs, sample after sample [N C]."""
    z = q.z.clone().requires_grad_()
    value = scalar(subject(new_outputs=z, old_outputs=q.v.clone(), T=q.T), subject.name)
    return gradient(value, [z]).detach()


def mean(grad: Tensor) -> Tensor:
    """Of a loss that is a mean over the samples."""
    return (grad / len(grad)).flatten()


def right(q: Problem) -> Tensor:
    return mean((q.p(q.T) - q.q(q.T)) / q.T)


def swapped(q: Problem) -> Tensor:
    """The gradient of - sum_c p log q, where p should be in the logarithm: p_c (a_c - sum_k p_k a_k) / T with a = - log q."""
    p, a = q.p(q.T), -q.q(q.T).log()
    return mean(p * (a - (p * a).sum(-1, keepdim=True)) / q.T)


def reverse(q: Problem) -> Tensor:
    """The gradient of the divergence sum_c p log(p / q): of the new from the old."""
    p = q.p(q.T)
    a = p.log() - q.q(q.T).log()
    return mean(p * (a - (p * a).sum(-1, keepdim=True)) / q.T)


def no_log(q: Problem) -> Tensor:
    """The gradient of - sum_c q p, a divergence that was given probabilities where it takes their logarithms."""
    p, a = q.p(q.T), -q.q(q.T)
    return mean(p * (a - (p * a).sum(-1, keepdim=True)) / q.T)


def hard(q: Problem) -> Tensor:
    """The recorded answer as a label: one class instead of all their probabilities."""
    return torch.nn.functional.one_hot(q.v.argmax(-1), q.v.shape[1]).double()


REDUCTION = Convention("reduction", (
    Choice("mean", "a mean over the samples", factor=lambda q: 1.0),
    Choice("sum", "a sum over the samples, off by exactly N", "The weight of the old task is then N times as large.",
           factor=lambda q: float(len(q.z))),
))  # fmt: skip
SQUARED = Convention("t_squared", (
    Choice(False, "without a factor T^2, as in the paper of Li and Hoiem", factor=lambda q: 1.0),
    Choice(True, "times T^2, as Hinton et al. do", "The book's lambda_o is then T^2 times yours.", factor=lambda q: q.T**2),
))  # fmt: skip
STRONG = "The recorded answers are hardly softened: the small probabilities, which say what an image resembles, do not count."
FAULTS = (
    Fault("no-temperature", "the temperature does not enter: both sides are taken at T = 1", STRONG,
          lambda q: mean(q.p(1) - q.q(1)), LOSS),
    Fault("teacher-only", "the temperature softens the recorded outputs and not the new ones",
          "The loss is not least where the network says what it said before: it teaches it to be less sure, at every task "
          "again.",
          lambda q: mean(q.p(1) - q.q(q.T)), LOSS),
    Fault("student-only", "the temperature softens the new outputs and not the recorded ones",
          "The loss is not least where the network says what it said before: it teaches larger and larger outputs.",
          lambda q: mean((q.p(q.T) - q.q(1)) / q.T), LOSS),
    Fault("hard-labels", "the most probable recorded class is taken as a label",
          "What an image resembles is thrown away, and the network is taught to be surer than it was.",
          lambda q: mean(q.p(1) - hard(q)), LOSS),
    Fault("hard-labels", "the most probable recorded class is taken as a label, against softened outputs",
          "What an image resembles is thrown away, and the network is taught to be surer than it was.",
          lambda q: mean((q.p(q.T) - hard(q)) / q.T), LOSS),
    Fault("swapped", "new and recorded outputs are exchanged in the cross-entropy: - sum p log q",
          "It is least where the network is sure of the recorded answer, and not where it repeats it.", swapped, LOSS),
    Fault("reverse", "the divergence is that of the new outputs from the recorded ones, sum p log (p / q)",
          "It is least in the same place, but it forgives classes that the network has dropped, which is to say "
          "forgetting.", reverse, LOSS),
    Fault("no-log", "the new outputs go in as probabilities, where their logarithms belong (kl_div takes log-probabilities)",
          "The force vanishes where the network has dropped a class altogether, just where it is needed most.", no_log, LOSS),
    Fault("mean-over-classes", "the mean is taken over samples and classes, not over samples alone",
          "The old task counts less the more classes it has, C times too little (kl_div: reduction='batchmean', not 'mean').",
          lambda q: right(q) / q.z.shape[1], LOSS,
          ("https://github.com/GMvandeVen/continual-learning/issues/5", "https://github.com/facebookresearch/deit/issues/61")),
    Fault("mean-over-classes", "the mean is taken over samples and classes, and multiplied by T^2",
          "The old task counts less the more classes it has, C times too little (kl_div: reduction='batchmean', not 'mean').",
          lambda q: q.T**2 * right(q) / q.z.shape[1], LOSS, ("https://github.com/facebookresearch/deit/issues/61",)),
    Fault("squared-error", "a squared difference of the outputs",
          "It holds a common shift of all outputs too, which no softmax sees; it is the limit of high temperatures otherwise.",
          lambda q: mean(2 * (q.z - q.v).double() / q.z.shape[1]), GRADIENT),
    Fault("self", "the loss does not depend on the new outputs, or compares the recorded ones with themselves",
          "Nothing is distilled: this is fine-tuning.", lambda q: 0 * right(q), LOSS,
          ("https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/66",)),
    Fault("times-T", "multiplied by T, not by T^2",
          "The strength still falls as 1 / T when T is changed, so that T and lambda_o cannot be searched one after the other.",
          lambda q: q.T * right(q), GRADIENT),
    Fault("over-T-squared", "divided by T^2, where Hinton et al. multiply",
          "The gradient falls as 1 / T^4: at T = 2 the old task counts sixteen times less than it should.",
          lambda q: right(q) / q.T**2, GRADIENT),
)  # fmt: skip
VALUE = Property(
    "distillation.gradient",
    "pulls the new outputs with (p - q) / T, a mean over the samples",
    problems,
    observe,
    right,
    GRADIENT,
    FAULTS,
    (SQUARED, REDUCTION),
    scale=True,
    scales={"N": lambda q: float(len(q.z)), "T^2": lambda q: q.T**2, "T": lambda q: q.T},
)

TEMPLATE = '''"""The distillation loss. Change it, and run: clbook check {file}"""

from torch.nn.functional import log_softmax, softmax


def distillation(new_outputs, old_outputs, T):
    """- 1/N sum_n sum_c q log p: p from the outputs now [N, C], q from those recorded before."""
    q = softmax(old_outputs / T, -1)
    return -(q * log_softmax(new_outputs / T, -1)).sum(-1).mean()


distillation.t_squared = False  # True where the loss is multiplied by T ** 2
distillation.reduction = "mean"  # or "sum" over the samples
'''
