"""Classes that carry EWC from task to task, as people write them."""

from __future__ import annotations

import copy

import torch
from fishers import exact_by_backward, undeclared_empirical, whole_batch
from torch.nn import functional as F

KIND = "ewc"


class Separate:
    """A dictionary for each task; exact."""

    def __init__(self, lam):
        self.lam, self.old = lam, []

    def after_task(self, model, x, y):
        self.old.append(({n: p.detach().clone() for n, p in model.named_parameters()}, exact_by_backward(model, x, y)))

    def penalty(self, model):
        total = 0
        for star, omega in self.old:
            for n, p in model.named_parameters():
                total += (omega[n] * (p - star[n]) ** 2).sum()
        return self.lam / 2 * total


class FlatAndLatest:
    """One vector of stiffness that sums, at the latest theta; empirical."""

    estimator, carry = "empirical", "latest"

    def __init__(self, ewc_lambda):
        self.strength, self.omega = ewc_lambda, 0.0

    def on_task_end(self, net, loader, criterion):
        net.eval()
        params, n, omega = list(net.parameters()), 0, 0.0
        for x, y in loader:
            for xn, yn in zip(x, y, strict=True):
                g = torch.autograd.grad(criterion(net(xn[None]), yn[None]), params)
                omega, n = omega + torch.cat([v.flatten() for v in g]) ** 2, n + 1
        net.train()
        self.omega = self.omega + omega / n
        self.star = torch.nn.utils.parameters_to_vector(params).detach().clone()

    def penalty(self, net):
        now = torch.nn.utils.parameters_to_vector(net.parameters())
        return 0.5 * self.strength * (self.omega * (now - self.star) ** 2).sum()


class Online:
    """The old stiffness fades; the penalty has no 1/2, and says so."""

    carry, half, gamma = "online", False, 0.5

    def __init__(self, model, lam):
        self.model, self.lam, self.F = model, lam, None

    def consolidate(self, x, y):
        new = exact_by_backward(self.model, x, y)
        self.F = new if self.F is None else {n: self.gamma * self.F[n] + new[n] for n in new}
        self.star = copy.deepcopy(self.model)

    def ewc_loss(self):
        pairs = zip(self.model.named_parameters(), self.star.parameters(), strict=True)
        return self.lam * sum((self.F[n] * (p - q.detach()).pow(2)).sum() for (n, p), q in pairs)


class AtOnce:
    """Made anew after each task, from its data; the strength is for the caller. Empirical."""

    estimator, half = "empirical", False

    def __init__(self, model, dataset):
        x, y = torch.stack([x for x, _ in dataset]), torch.stack([y for _, y in dataset])
        self.means = {n: p.data.clone() for n, p in model.named_parameters()}
        self.precision = undeclared_empirical(model, x, y)

    def penalty(self, model):
        return sum((self.precision[n] * (p - self.means[n]) ** 2).sum() for n, p in model.named_parameters())


RIGHT = [Separate, FlatAndLatest, Online, AtOnce]


class UndeclaredHalf(Separate):
    def penalty(self, model):
        return 2 * super().penalty(model)


class UndeclaredLatest(Separate):
    def after_task(self, model, x, y):
        new = exact_by_backward(model, x, y)
        if self.old:
            new = {n: self.old[0][1][n] + f for n, f in new.items()}
        self.old = [({n: p.detach().clone() for n, p in model.named_parameters()}, new)]


NOTED = {UndeclaredHalf: "half=False"}
NOTED_LATER = {UndeclaredLatest: "carry='latest'"}


class NoCopy(Separate):
    def after_task(self, model, x, y):
        self.old.append((dict(model.named_parameters()), exact_by_backward(model, x, y)))


class StateIsNoCopy(Separate):
    def after_task(self, model, x, y):
        self.old.append((model.state_dict(), exact_by_backward(model, x, y)))


class FisherOfTheMoment(Separate):
    """The stiffness is computed when it is asked for."""

    def after_task(self, model, x, y):
        self.old.append(({n: p.detach().clone() for n, p in model.named_parameters()}, (x, y)))

    def penalty(self, model):
        total = 0
        for star, (x, y) in self.old:
            omega = exact_by_backward(model, x, y)
            total += sum((omega[n] * (p - star[n]) ** 2).sum() for n, p in model.named_parameters())
        return self.lam / 2 * total


class FisherOfTheStart(Separate):
    """The stiffness is that of a copy that was made when the object was."""

    def __init__(self, model, lam):
        super().__init__(lam)
        self.start = copy.deepcopy(model)

    def after_task(self, model, x, y):
        omega = undeclared_empirical(self.start, x, y)
        self.old.append(({n: p.detach().clone() for n, p in model.named_parameters()}, omega))


class StarOfTheStart(Separate):
    def __init__(self, model, lam):
        super().__init__(lam)
        self.start = {n: p.detach().clone() for n, p in model.named_parameters()}

    def after_task(self, model, x, y):
        self.old.append((self.start, exact_by_backward(model, x, y)))


class Batched(Separate):
    def after_task(self, model, x, y):
        self.old.append(({n: p.detach().clone() for n, p in model.named_parameters()}, whole_batch(model, x, y)))


class Detached(Separate):
    def penalty(self, model):
        with torch.no_grad():
            return super().penalty(model)


class Uniform(Separate):
    def penalty(self, model):
        return self.lam / 2 * sum(((p - star[n]) ** 2).sum() for star, _ in self.old for n, p in model.named_parameters())


class InTrainingMode(Separate):
    estimator = "empirical"

    def after_task(self, model, x, y):
        omega = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
        for xn, yn in zip(x, y, strict=True):
            model.zero_grad()
            F.cross_entropy(model(xn[None]), yn[None]).backward()
            for n, p in model.named_parameters():
                omega[n] += p.grad**2 / len(x)
        self.old.append(({n: p.detach().clone() for n, p in model.named_parameters()}, omega))


class NewestOnly(Separate):
    def after_task(self, model, x, y):
        self.old = []
        super().after_task(model, x, y)


class OldestOnly(Separate):
    def after_task(self, model, x, y):
        if not self.old:
            super().after_task(model, x, y)


class StarStays(UndeclaredLatest):
    def after_task(self, model, x, y):
        star = self.old[0][0] if self.old else None
        super().after_task(model, x, y)
        self.old = [(star or self.old[0][0], self.old[0][1])]


class FisherStays(Separate):
    def after_task(self, model, x, y):
        omega = self.old[0][1] if self.old else exact_by_backward(model, x, y)
        self.old = [({n: p.detach().clone() for n, p in model.named_parameters()}, omega)]


WRONG = {
    NoCopy: "not-a-copy", StateIsNoCopy: "not-a-copy", FisherOfTheMoment: "wrong-theta", FisherOfTheStart: "wrong-theta",
    StarOfTheStart: "star-before", Batched: "batched", Detached: "detached", Uniform: "importance-ignored",
    InTrainingMode: "batchnorm", NewestOnly: "newest-only", OldestOnly: "oldest-only", StarStays: "mixed",
    FisherStays: "moved-star",
}  # fmt: skip
UNKNOWN: list = []
