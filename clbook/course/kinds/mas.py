"""The importance of memory aware synapses, and the ways in which it goes wrong.

With f_n the outputs [C] for one sample and J_n their derivatives [C, P]: Omega = 1/N sum_n |2 f_n J_n|. Book: book/mas.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clbook.course.calling import Subject
from clbook.course.kinds import fisher
from clbook.course.kinds.fisher import B, Problem, ask, small
from clbook.course.properties import Choice, Convention, Fault, Property, Section

STIFFNESS = Section("book/mas", "From a change of the function to a stiffness")
OUTPUTS = Section("book/mas", "Many outputs, one backward pass")


def problems(subject: Subject) -> list[Problem]:
    """A linear network, where |d ||Wx + b||^2 / dW| = 2 |f x|, and one with a hidden layer."""
    masked = bool({"mask", "classes"} & subject.takes)
    hidden = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4))
    return [
        small("a linear network", nn.Linear(3, 4), 7, 3, 4, 10, (1, 3) if masked else ()),
        small("a network with three hidden units", hidden, 9, 2, 4, 11, (0, 1, 3) if masked else ()),
    ]


def slopes(q: Problem) -> Tensor:
    """The derivative of the squared length of the task's outputs, for each sample [N, P]."""
    return 2 * (q.f[:, q.mask, None] * q.J[:, q.mask]).sum(1)


def right(q: Problem, form: str = "norm") -> Tensor:
    """norm: 1/N sum_n |d ||f_n||^2 / d theta|; outputs: 1/N sum_n ||J_n||, the length over the outputs."""
    return (slopes(q).abs() if form == "norm" else q.J[:, q.mask].norm(dim=1)).mean(0)


def length(q: Problem) -> Tensor:
    """||f_n|| [N, 1]."""
    return q.f[:, q.mask].norm(dim=1)[:, None]


def of_probabilities(q: Problem) -> Tensor:
    """d ||softmax(f_n)||^2 / d theta [N, P]."""
    return 2 * (q.p[..., None] ** 2 * q.s).sum(1)


FORM = Convention("form", (
    Choice("norm", "one gradient, that of the squared length of the outputs"),
    Choice("outputs", "the length of the gradients of the single outputs",
           "It has another size, that of a derivative and not of a derivative times an output, so lam must be searched anew."),
))  # fmt: skip
CANCELS = (
    "A parameter that raises the output for some samples and lowers it for others cancels and gets no spring, although it "
    "matters "
    "to all of them."
)
FAULTS = (
    Fault("abs-after-mean", "the absolute value is taken of the mean over all samples, not of each sample", CANCELS,
          lambda q: slopes(q).mean(0).abs(), STIFFNESS),
    Fault("abs-after-mean", "the absolute value is taken of the mean over each batch, not of each sample", CANCELS,
          lambda q: torch.stack([part.mean(0).abs() for part in slopes(q).split(B)]).mean(0), STIFFNESS),
    Fault("no-abs", "no absolute value is taken",
          "Gradients of different sign cancel, and half of the springs are negative: they push.",
          lambda q: slopes(q).mean(0), STIFFNESS),
    Fault("squared", "the gradient is squared, as the Fisher information has it",
          "It has another unit and weighs samples with large outputs with their square; lam does not mean what it means "
          "for MAS.",
          lambda q: slopes(q).square().mean(0), STIFFNESS),
    Fault("norm-unsquared", "the gradient is that of the length of the outputs, not of its square",
          "Every sample counts alike, however large its outputs are: another importance than the paper's, and of another unit.",
          lambda q: (slopes(q) / (2 * length(q))).abs().mean(0), OUTPUTS),
    Fault("sum-of-outputs", "the gradient is that of the sum of the outputs, not of their squared length",
          "Outputs that move in opposite directions cancel: a parameter that changes the answer without changing the sum "
          "is free.",
          lambda q: q.J[:, q.mask].sum(1).abs().mean(0), OUTPUTS),
    Fault("softmax", "the length is that of the probabilities, not of the outputs",
          "Where the network is sure, probabilities hardly move, and the springs are too soft.",
          lambda q: of_probabilities(q).abs().mean(0), OUTPUTS),
    Fault("loss", "the gradient is that of the loss, which needs labels, not of the outputs",
          "What a sample says about the learned function is lost: where the loss is zero, nothing is held.",
          lambda q: q.own.abs().mean(0), STIFFNESS),
    Fault("all-outputs", "the length is that of all outputs, not of the task's",
          "Outputs that did not count while the task was trained are held as if they had been learned.",
          lambda q: right(q.everywhere), OUTPUTS),
    Fault("largest-output", "only the largest output is looked at",
          "The other outputs may change as they like, until one of them is the largest.",
          lambda q: q.J[torch.arange(len(q.x)), q.f.masked_fill(~q.mask, -torch.inf).argmax(-1)].abs().mean(0), OUTPUTS),
    Fault("accumulated", "gradients are not set to zero between samples, so each term holds the sum of all before",
          "The answer depends on the order of the samples and grows with their number.",
          lambda q: slopes(q).cumsum(0).abs().mean(0), STIFFNESS),
    Fault("last", "each sample overwrites the one before, so that only the last one counts",
          "One sample decides which parameters are held.", lambda q: slopes(q)[-1].abs(), STIFFNESS),
    Fault("zero", "zero for every parameter", "There are no springs at all, and this is fine-tuning.",
          lambda q: torch.zeros(q.J.shape[-1]).double(), STIFFNESS),
)  # fmt: skip

VALUE = Property(
    "mas.value",
    "is the mean over samples of the absolute gradient of the outputs' squared length",
    problems,
    ask,
    right,
    OUTPUTS,
    FAULTS,
    (FORM, fisher.REDUCTION),
    scale=True,
    scales=fisher.SCALES,
)
LEFT = Property(
    "mas.left",
    fisher.LEFT.says,
    fisher.training_problems,
    fisher.observe_change,
    fisher.LEFT.right,
    STIFFNESS,
    fisher.LEFT.faults,
    applies=fisher.LEFT.applies,
)

TEMPLATE = '''"""The importance of memory aware synapses. Change it, and run: clbook check {file}"""

import torch


def mas(model, x, mask):
    """One number for each parameter, by name. mask [C]: which outputs are the task's."""
    was_training = model.training
    model.eval()
    total = {{name: torch.zeros_like(p) for name, p in model.named_parameters()}}
    for x_n in x:  # each sample by itself
        model.zero_grad()
        model(x_n[None])[0, mask].square().sum().backward()
        for name, p in model.named_parameters():
            total[name] += p.grad.abs() / len(x)
    model.zero_grad()
    model.train(was_training)
    return total


mas.form = "norm"  # or "outputs", the length of the gradients of the single outputs
mas.reduction = "mean"  # or "sum" over the samples
'''
