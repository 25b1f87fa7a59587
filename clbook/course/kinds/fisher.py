"""The diagonal of the Fisher information, and the ways in which it goes wrong.

Everything is said with two tables of a small problem, in double precision: s [N, C, P], the score of each label at each sample,
d log p(c | x_n) / d theta, and p [N, C], how probable the network holds that label. Book: book/ewc, "The Fisher information".
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import clbook
from clbook.course.calling import CannotCheck, Subject, theta_of, vector
from clbook.course.properties import Choice, Convention, Fault, Property, Section, Told

INFORMATION = Section("book/ewc", "The Fisher information")
COMPUTED = Section("book/ewc", "How it is computed")
SPRINGS = Section("book/ewc", "The springs")
DRAWS = 100  # of a Fisher that draws its labels
B = 4  # samples in a batch of the loader


@dataclass(frozen=True)
class Problem:
    """A small network and a few samples, with the labels of the data and the outputs of the task."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    mask: Tensor

    def __str__(self) -> str:
        of = "" if bool(self.mask.all()) else f", of which {int(self.mask.sum())} are the task's"
        return f"{self.name}, {len(self.x)} samples, {len(self.mask)} outputs{of}"

    def known(self) -> dict[str, Any]:
        """What a function may ask for, with a network of its own, since it may change it."""
        model = copy.deepcopy(self.model)
        pairs = TensorDataset(self.x, self.y)
        return {
            "model": model, "x": self.x.clone(), "y": self.y.clone(), "mask": self.mask.clone(),
            "classes": self.mask.nonzero().flatten().tolist(), "loader": DataLoader(pairs, batch_size=B),
            "dataset": pairs, "criterion": nn.CrossEntropyLoss(), "device": "cpu",
        }  # fmt: skip

    @cached_property
    def f(self) -> Tensor:
        """The outputs [N, C]."""
        return self._exactly[0]

    @cached_property
    def J(self) -> Tensor:
        """Their derivatives [N, C, P]."""
        return self._exactly[1]

    @cached_property
    def p(self) -> Tensor:
        """Probabilities of the task's labels [N, K]."""
        return self.f[:, self.mask].softmax(-1)

    @cached_property
    def s(self) -> Tensor:
        """Their scores [N, K, P]: d log p_c = J_c - sum_k p_k J_k."""
        J = self.J[:, self.mask]
        return J - (self.p[..., None] * J).sum(1, keepdim=True)

    @cached_property
    def own(self) -> Tensor:
        """The score of the label of the data [N, P]."""
        return self.pick(self.s, self.label)

    @cached_property
    def label(self) -> Tensor:
        """The labels as rows of p and s."""
        return (self.mask.cumsum(0) - 1)[self.y]

    @cached_property
    def everywhere(self) -> Problem:
        """The same problem, as if all outputs were the task's."""
        return Problem(self.name, self.model, self.x, self.y, torch.ones_like(self.mask))

    @staticmethod
    def pick(table: Tensor, label: Tensor) -> Tensor:
        return table[torch.arange(len(label)), label]

    def layers(self, values: Tensor) -> list[Tensor]:
        return list(values.split([p.numel() for p in self.model.parameters()]))

    @cached_property
    def _exactly(self) -> tuple[Tensor, Tensor]:
        """f and J by plain autograd: one backward pass for each output of each sample."""
        model = copy.deepcopy(self.model).double().eval()
        f = model(self.x.double())
        rows = [torch.autograd.grad(value, list(model.parameters()), retain_graph=True) for value in f.flatten()]
        return f.detach(), torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).view(*f.shape, -1)


def small(name: str, module: nn.Module, n: int, inputs: int, outputs: int, seed: int, allowed: Sequence[int] = ()) -> Problem:
    """A problem with generic numbers: no entry of theta, x or the answers is zero or equals another."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.9 * torch.randn(p.shape, generator=g))
    mask = torch.zeros(outputs, dtype=torch.bool)
    mask[list(allowed) or list(range(outputs))] = True
    x = torch.randn(n, inputs, generator=g) + 0.3
    y = mask.nonzero().flatten()[torch.randint(int(mask.sum()), (n,), generator=g)]
    return Problem(name, module, x, y, mask)


def problems(subject: Subject) -> list[Problem]:
    """Softmax regression, where F = mean p_c (1 - p_c) x_k^2, and one with a hidden layer; with a mask if it is asked for."""
    masked = bool({"mask", "classes"} & subject.takes)
    hidden = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4))
    return [
        small("softmax regression", nn.Linear(3, 5 if masked else 3), 7, 3, 5 if masked else 3, 0, (1, 2, 4) if masked else ()),
        small("a network with three hidden units", hidden, 9, 2, 4, 1, (0, 3) if masked else ()),
    ]


def observe(subject: Subject, q: Problem) -> Tensor:
    """What the reader's function says [P]; the mean over many calls where it draws labels."""
    first = ask(subject, q)
    if torch.equal(first, ask(subject, q)):
        return first
    if subject.declared.get("estimator") not in (None, "sampled"):
        raise CannotCheck(f"{subject.name} gives another answer each time, and it declares {subject.declared['estimator']!r}")
    draws = torch.stack([ask(subject, q) for _ in range(DRAWS)])
    error = draws.std(0) / DRAWS**0.5
    near = lambda answer: bool(((draws.mean(0) - answer).abs() <= 5 * error + 1e-6 * answer.abs().max()).all())  # noqa: E731
    for answer in (right(q), len(q.x) * right(q)):
        if near(answer):
            return answer  # no further away than the draws explain
    if near(right(q) / len(q.x)):
        raise Told(BATCHED_DRAWS)
    return draws.mean(0)


def ask(subject: Subject, q: Problem, known: dict[str, Any] | None = None) -> Tensor:
    known = q.known() if known is None else known
    if {"model", "theta"} <= subject.takes:
        known |= {"theta": theta_of(known["model"]), "model": clbook.Net(lambda: copy.deepcopy(q.model))}
    return vector(subject(**known), q.model, subject.name)


# the right answers ----------------------------------------------------------------------------------------------------------


def right(q: Problem, estimator: str = "exact") -> Tensor:
    """exact: 1/N sum_n sum_c p_nc s_nc^2; empirical: 1/N sum_n s_n,y^2. The sampled one is the exact one in the mean."""
    if estimator == "empirical":
        return q.own.square().mean(0)
    return (q.p[..., None] * q.s.square()).sum(1).mean(0)


ESTIMATOR = Convention("estimator", (
    Choice("exact", "the Fisher information by its definition"),
    Choice("empirical", "the empirical Fisher: the labels of the data in place of the network's own",
           "It is another matrix, equal to the exact one only where the model fits; its strength must be searched anew."),
    Choice("sampled", "labels drawn from the network"),
))  # fmt: skip
REDUCTION = Convention("reduction", (
    Choice("mean", "a mean over the samples", factor=lambda q: 1.0),
    Choice("sum", "a sum over the samples, off by exactly N",
           "Then lam must be the book's divided by N, and tasks of several sizes weigh as Bayes' rule says.",
           factor=lambda q: float(len(q.x))),
))  # fmt: skip

# the known mistakes, each beside its formula ----------------------------------------------------------------------------------


def batched(q: Problem, size: int) -> Tensor:
    """The mean over batches of the squared mean gradient."""
    return torch.stack([part.mean(0).square() for part in q.own.split(size)]).mean(0)


CANCELS = (
    "Gradients of different samples cancel before they are squared. Near a minimum the mean gradient is almost zero, so the "
    "springs are too soft by about the size of the batch, and softest where the samples disagree most."
)
BATCH_SEEN = (
    "https://github.com/facebookresearch/GradientEpisodicMemory/issues/7",
    "https://github.com/shivamsaboo17/Overcoming-Catastrophic-forgetting-in-Neural-Networks/issues/6",
    "https://github.com/kuc2477/pytorch-ewc/issues/1",
    "https://github.com/GT-RIPL/Continual-Learning-Benchmark/issues/10",
)
FAULTS = (
    Fault("batched", "the gradient of all samples together is squared, not that of each sample", CANCELS,
          lambda q: q.own.mean(0).square(), COMPUTED, BATCH_SEEN),
    Fault("batched", "the mean gradient of each batch is squared, not the gradient of each sample", CANCELS,
          lambda q: batched(q, B), COMPUTED, BATCH_SEEN),
    Fault("batched", "the mean gradient of each batch of two is squared, not the gradient of each sample", CANCELS,
          lambda q: batched(q, 2), COMPUTED, BATCH_SEEN),
    Fault("all-outputs", "the softmax is taken over all outputs, not over the task's",
          "Outputs that did not count while the task was trained get springs, and those of the task get the wrong ones: "
          "the new outputs of later tasks are held back before they have learned anything.",
          lambda q: right(q.everywhere, "exact"), COMPUTED),
    Fault("all-outputs", "the empirical Fisher of a softmax over all outputs, not over the task's",
          "Outputs that did not count while the task was trained get springs, and those of the task get the wrong ones.",
          lambda q: right(q.everywhere, "empirical"), COMPUTED),
    Fault("argmax", "the label that the network holds for most probable is taken for a drawn one",
          "Where the network is sure this hardly matters; where it is not, the other labels are left out, and the springs "
          "are too soft.",
          lambda q: q.pick(q.s, q.p.argmax(-1)).square().mean(0), COMPUTED,
          ("https://github.com/GT-RIPL/Continual-Learning-Benchmark/issues/7",)),
    Fault("weighted", "the squared gradient of the data's label is weighted with its probability, and the other labels "
          "are left out",
          "This is one term of the exact Fisher information's sum over labels: samples that the network gets wrong hardly "
          "count.",
          lambda q: (q.pick(q.p, q.label)[:, None] * q.own.square()).mean(0), COMPUTED),
    Fault("no-log", "the gradient is that of p(y | x), not of log p(y | x)",
          "Each sample is weighted with the square of its probability: the samples that the network finds hard hardly count.",
          lambda q: (q.pick(q.p, q.label)[:, None] * q.own).square().mean(0), INFORMATION),
    Fault("unsquared", "the gradients are averaged and not squared",
          "At a minimum their mean is zero, and elsewhere it is negative for some parameters: a spring that pushes.",
          lambda q: -q.own.mean(0), INFORMATION),
    Fault("absolute", "the absolute value of each gradient, not its square",
          "It ranks parameters differently and has another unit, so that lam does not mean what it means for EWC.",
          lambda q: q.own.abs().mean(0), INFORMATION),
    Fault("logits", "the gradient is that of the output, not of its log-probability",
          "A shift of all outputs changes no probability and yet gets springs.",
          lambda q: q.pick(q.J, q.y).square().mean(0), INFORMATION),
    Fault("uniform", "the sum over the labels has no weights p(c | x)",
          "Labels that the network excludes have the largest gradients, and here they count as much as the others.",
          lambda q: q.s.square().sum(1).mean(0), INFORMATION),
    Fault("accumulated", "gradients are not set to zero between samples, so each square holds the sum of all before",
          "The answer depends on the order of the samples and grows with their number instead of settling.",
          lambda q: q.own.cumsum(0).square().mean(0), COMPUTED),
    Fault("last", "each sample overwrites the one before, so that only the last one counts",
          "One sample decides which parameters are held.", lambda q: q.own[-1].square(), COMPUTED),
    Fault("last-batch", "each batch overwrites the one before, and its mean gradient is squared",
          "A few samples decide which parameters are held, and their gradients cancel.",
          lambda q: q.own.split(B)[-1].mean(0).square(), COMPUTED),
    Fault("tensor-mean", "one number for a whole tensor of parameters: the mean over its entries",
          "All entries of a layer are held alike, which is what EWC wants to avoid: this is L2 with a strength for each layer.",
          lambda q: torch.cat([v.mean().expand_as(v) for v in q.layers(right(q, "empirical"))]), SPRINGS,
          ("https://github.com/kuc2477/pytorch-ewc/issues/2",)),
    Fault("zero", "zero for every parameter", "There are no springs at all, and this is fine-tuning.",
          lambda q: torch.zeros(q.own.shape[1]).double(), SPRINGS,
          ("https://github.com/mabirck/CatastrophicForgetting-EWC/issues/1",)),
)  # fmt: skip
# What a Fisher that draws its labels gives when it squares the mean gradient: the draws are independent with mean zero.
BATCHED_DRAWS = Fault(
    "batched",
    "labels are drawn, and then the mean gradient is squared, not the gradient of each sample",
    CANCELS,
    lambda q: right(q, "exact") / len(q.x),
    COMPUTED,
    BATCH_SEEN,
)
SCALES = {
    "N": lambda q: float(len(q.x)), "1/N": lambda q: 1 / len(q.x), "N^2": lambda q: float(len(q.x)) ** 2,
    "the number of batches": lambda q: float(-(-len(q.x) // B)),
    "the number of batches / N": lambda q: -(-len(q.x) // B) / len(q.x),
    "N / the number of batches": lambda q: len(q.x) / -(-len(q.x) // B),
}  # fmt: skip

VALUE = Property(
    "fisher.value",
    "is the mean over samples of the squared gradient of each one's log-probability",
    problems,
    observe,
    right,
    INFORMATION,
    FAULTS,
    (ESTIMATOR, REDUCTION),
    scale=True,
    scales=SCALES,
)

# what must be left as it was --------------------------------------------------------------------------------------------------


def training_problems(subject: Subject) -> list[Problem]:
    """A network with BatchNorm, in training mode, as it stands when training has just ended."""
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    q = small("a network with BatchNorm, in training mode", module, 8, 2, 3, 3)
    return [q]


def observe_change(subject: Subject, q: Problem) -> Tensor:
    """By how much the call changes the parameters and the statistics of the network it is given [2]."""
    known = q.known()
    model = known["model"].train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    parameters = {n for n, _ in model.named_parameters()}
    try:
        subject(**known)
    except (ValueError, RuntimeError) as error:
        if not any(
            word in str(error) for word in ("more than 1 value per channel", "running_mean", "num_batches_tracked", "vmap")
        ):
            raise
        return torch.tensor([0.0, torch.inf])  # BatchNorm refuses single samples in training mode
    change = {k: float((v.double() - before[k].double()).abs().max()) for k, v in model.state_dict().items()}
    return torch.tensor([max(v for k, v in change.items() if (k in parameters) == own) for own in (True, False)])


LEFT = Property(
    "fisher.left",
    "leaves the network as it was: its parameters, and the statistics of BatchNorm",
    training_problems,
    observe_change,
    lambda q: torch.zeros(2).double(),
    COMPUTED,
    (
        Fault(
            "steps",
            "the network's parameters are changed: an optimiser takes a step in here",
            "The importance is that of another theta than theta*, and the network itself is no longer the one that was "
            "trained.",
            None,
            COMPUTED,
            tells=lambda q, got: bool(got[0] > 1e-6),
        ),
        Fault(
            "batchnorm",
            "the pass runs in training mode: BatchNorm uses the statistics of the batch and changes its own",
            "With every look at the old data the network's answers change, and the gradients are those of another "
            "function. Call "
            "model.eval() first, and model.train(was_training) after. (Declare mode='eval' where the caller does this.)",
            None,
            COMPUTED,
            ("https://github.com/awslabs/aws-cv-task2vec/issues/23",),
            tells=lambda q, got: bool(got[0] <= 1e-6 and got[1] > 1e-6),
        ),
    ),
    applies=lambda subject: (
        "model" in subject.takes and "theta" not in subject.takes and subject.declared.get("mode") != "eval"
    ),
)

TEMPLATE = '''"""The diagonal of the Fisher information. Change it, and run: clbook check {file}"""

import torch
from torch.nn.functional import log_softmax


def fisher(model, x, y, mask):
    """One number for each parameter, by name. mask [C]: which outputs are the task's."""
    was_training = model.training
    model.eval()
    total = {{name: torch.zeros_like(p) for name, p in model.named_parameters()}}
    for x_n in x:  # each sample by itself
        log_p = log_softmax(model(x_n[None])[0, mask], -1)
        for log_p_c in log_p:  # every label, weighted with its probability
            model.zero_grad()
            log_p_c.backward(retain_graph=True)
            for name, p in model.named_parameters():
                total[name] += log_p_c.exp().item() * p.grad ** 2 / len(x)
    model.zero_grad()
    model.train(was_training)
    return total


fisher.estimator = "exact"  # or "empirical", with the labels y; or "sampled"
fisher.reduction = "mean"  # or "sum" over the samples
'''
